"""A conversation in the terminal: answers appear as they are made, commands begin with a slash.

What a model says could hold the sequences by which programs steer a terminal; they are shown instead of obeyed.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from opencoder_jax.files import write_json
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.requests import Request
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat

HELP = """\
/help              this
/system TEXT       another system message, and a new conversation; without TEXT the model's own
/set NAME VALUE    temperature, top_p, max_tokens, seed …; without a name: what they are
/reset             a new conversation
/again             another answer to the last message
/save FILE         the conversation as JSON
/quit              or Ctrl-D
A line that ends in \\ goes on in the next. Ctrl-C ends an answer."""


class TerminalChat:
    """One conversation with one model.

    Attributes:
        messages: what was said so far.
        sampling: how the next answer is drawn.
    """

    def __init__(
        self, engine: Engine, sampling: SamplingConfig, write: Callable[[str], object], stop: tuple[str, ...] = ()
    ) -> None:
        """`write` shows a text at once."""
        self.messages: list[chat.Message] = []
        self.sampling = sampling
        self._engine = engine
        self._write = write
        self._stop = stop
        self._answers = 0  # so far: each has a seed of its own

    def run(self, read: Callable[[str], str]) -> None:
        """Talks until /quit or the end of the input; `read(prompt)` gives a line, or raises EOFError."""
        while True:
            try:
                line = self._line(read)
            except EOFError:
                self._write("\n")
                return
            except KeyboardInterrupt:
                self._write("\n(/quit or Ctrl-D to leave)\n")
                continue
            if line in ("/quit", "/exit"):
                return
            try:
                if line.startswith("/"):
                    self.command(line)
                elif line.strip():
                    self.say(line)
            except (UserError, ValueError) as error:
                self._write(f"{str(error).splitlines()[0]}\n")  # gin adds lines of its own
            except OSError as error:
                self._write(f"{error.filename}: {error.strerror}\n")

    @staticmethod
    def _line(read: Callable[[str], str]) -> str:
        lines = [read("> ")]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(read("… "))
        return "\n".join(lines)

    def command(self, line: str) -> None:
        """Does what a line with a slash says. Raises UserError, ValueError or OSError for what can't be done."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        match name:
            case "/help":
                self._write(f"{HELP}\n")
            case "/reset":
                self.messages = [each for each in self.messages[:1] if each["role"] == "system"]
            case "/system":
                self.messages = [chat.turn("system", rest)] if rest else []
            case "/set":
                self._set(*(rest.split(None, 1) or [""]))
            case "/again":
                if not self.messages or self.messages[-1]["role"] == "system":
                    raise UserError("nothing was said yet")
                if self.messages[-1]["role"] == "assistant":
                    self.messages.pop()
                self._answer()
            case "/save":
                if not rest:
                    raise UserError("/save FILE")
                write_json(Path(rest).expanduser(), self.messages)
                self._write(f"{len(self.messages)} messages in {rest}\n")
            case _:
                raise UserError(f"{name}: no such command; /help tells which there are")

    def _set(self, name: str, value: str = "") -> None:
        known = {field.name: field for field in fields(SamplingConfig)}
        if name:
            if name not in known:
                raise UserError(f"{name}: there is {', '.join(known)}")
            kind = type(getattr(self.sampling, name))
            try:
                number = kind(value)
            except ValueError:
                raise UserError(f"{name}: a number is wanted, such as {known[name].default}") from None
            self.sampling = replace(self.sampling, **{name: number})
        self._write("  ".join(f"{each} {getattr(self.sampling, each)}" for each in known) + "\n")

    def say(self, text: str) -> None:
        """Says something, and shows the answer. Raises UserError or ValueError for what can't be answered."""
        self.messages.append(chat.turn("user", text))
        try:
            self._answer()
        except (UserError, ValueError):
            self.messages.pop()
            raise

    def _answer(self) -> None:
        prompt = chat.encode_prompt(self._engine.tokenizer, self.messages)
        room = self._engine.model.config.context - len(prompt)
        if room < 1:
            raise UserError(f"the conversation has {len(prompt)} tokens, and the model takes no more; /reset it")
        sampling = replace(self.sampling, max_tokens=min(self.sampling.max_tokens, room))
        (number,) = self._engine.submit([Request(tuple(prompt), sampling, self._answers, self._stop)])
        self._answers += 1
        said, reason = [], None
        with _interruptions() as interrupted:
            while reason is None:
                if interrupted:
                    interrupted.clear()
                    self._engine.cancel(number)
                for piece in self._engine.step():
                    said.append(piece.text)
                    self._write(printable(piece.text))
                    reason = piece.finish_reason
        self.messages.append(chat.turn("assistant", "".join(said)))
        notes = {"length": f"\n[cut off after {sampling.max_tokens} tokens]\n", "cancelled": "\n[stopped]\n"}
        self._write(notes.get(reason, "\n"))


@contextmanager
def _interruptions() -> Iterator[list[bool]]:
    """Yields a list that Ctrl-C fills: a step of the engine isn't broken off in its middle."""
    found: list[bool] = []
    previous = signal.signal(signal.SIGINT, lambda *_: found.append(True))
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, previous)


def printable(text: str) -> str:
    """A text without what steers a terminal: control characters are shown as their pictures, ␛ for escape."""
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 32:
        return chr(0x2400 + code)
    return "\ufffd" if 127 <= code < 160 else character
