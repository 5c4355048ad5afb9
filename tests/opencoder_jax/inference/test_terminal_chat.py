"""The conversation in the terminal: what is kept of it, what commands do, and what a model can't do to the screen."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.requests import Piece, Request
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.inference.terminal_chat import TerminalChat, printable
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.tokenizer import Tokenizer

SAMPLING = SamplingConfig(max_tokens=8)


class Terminal:
    def __init__(self, engine: Engine) -> None:
        self.shown: list[str] = []
        self.chat = TerminalChat(engine, SAMPLING, self.shown.append)

    def type(self, *lines: str) -> str:
        """Types lines until the end of the input; returns what is shown."""
        self.shown.clear()
        left: Iterator[str] = iter(lines)

        def read(_: str) -> str:
            try:
                return next(left)
            except StopIteration:
                raise EOFError from None

        self.chat.run(read)
        return "".join(self.shown)


@pytest.fixture
def terminal(engine: Engine) -> Terminal:
    return Terminal(engine)


def answered(engine: Engine, *turns: tuple[str, str], seed: int = 0) -> str:
    prompt = chat.encode_prompt(engine.tokenizer, [chat.turn(*each) for each in turns])
    return engine.generate([prompt], SAMPLING, seeds=[seed])[0].text


def test_the_model_hears_what_was_said_before(terminal: Terminal, engine: Engine) -> None:
    shown = terminal.type("hello", "and\\", "again")
    first = answered(engine, ("user", "hello"))
    second = answered(engine, ("user", "hello"), ("assistant", first), ("user", "and\nagain"))
    assert [each["content"] for each in terminal.chat.messages] == ["hello", first, "and\nagain", second]
    assert printable(first) in shown
    assert printable(second) in shown
    assert shown.count("[cut off after 8 tokens]") == 2


def test_commands(terminal: Terminal, engine: Engine, tmp_path: Path) -> None:
    assert "/save FILE" in terminal.type("/help")
    terminal.type("/system Be brief.", "hello")
    assert terminal.chat.messages[0] == chat.turn("system", "Be brief.")
    assert terminal.chat.messages[2]["content"] == answered(engine, ("system", "Be brief."), ("user", "hello"))
    terminal.type(f"/save {tmp_path}/talk.json")
    assert json.loads((tmp_path / "talk.json").read_text()) == terminal.chat.messages
    terminal.type("/reset")
    assert terminal.chat.messages == [chat.turn("system", "Be brief.")]
    terminal.type("/system")
    assert terminal.chat.messages == []
    assert "max_tokens 3" in terminal.type("/set max_tokens 3", "/set temperature 0.5")
    assert (terminal.chat.sampling.max_tokens, terminal.chat.sampling.temperature) == (3, 0.5)
    terminal.type("hello", "/again", "/quit", "never said")
    assert [each["role"] for each in terminal.chat.messages] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/nothing", "no such command"),
        ("/set", "temperature 0.0"),
        ("/set warmth 1", "there is temperature"),
        ("/set top_p 7", "top_p=7.0"),
        ("/set max_tokens many", "a number is wanted"),
        ("/set seed", "a number is wanted"),
        ("/save", "/save FILE"),
        ("/save /proc/no/where", "/proc/no"),
        ("/again", "nothing was said"),
        ("a\ud800b", "surrogate"),
        ("a long message " * 60, "the model takes no more"),
    ],
)
def test_mistakes_are_one_line_and_the_talk_goes_on(terminal: Terminal, line: str, words: str) -> None:
    shown = terminal.type(line, "/help")
    first, _, rest = shown.partition("\n")
    assert words in first
    assert rest.startswith("/help")
    assert terminal.chat.messages == []
    assert terminal.chat.sampling == SAMPLING


class Interrupted:
    """An engine while whose answer somebody presses Ctrl-C."""

    def __init__(self, engine: Engine) -> None:
        self.tokenizer, self.model, self.cancelled = engine.tokenizer, engine.model, False

    def submit(self, requests: list[Request]) -> list[int]:
        return [7]

    def cancel(self, number: int) -> None:
        assert number == 7
        self.cancelled = True

    def step(self) -> list[Piece]:
        if self.cancelled:
            return [Piece(7, "", (), None, None, "cancelled")]
        os.kill(os.getpid(), signal.SIGINT)
        return [Piece(7, "so far", (5, 6), None, None, None)]


@pytest.fixture
def python_handles_ctrl_c() -> Iterator[None]:
    """As in a terminal: what is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_ends_the_answer_and_not_the_talk(engine: Engine) -> None:
    terminal = Terminal(Interrupted(engine))  # type: ignore[arg-type]
    shown = terminal.type("hello", "/help")
    assert "so far\n[stopped]\n/help" in shown
    assert terminal.chat.messages[-1] == chat.turn("assistant", "so far")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_model_cannot_steer_the_terminal(
    constant: Callable[[dict[int, float]], Engine], tokenizer: Tokenizer
) -> None:
    engine = constant({tokenizer.encode("\x1b")[0]: 5.0})
    shown = Terminal(engine).type("hello")
    assert "\x1b" not in shown
    assert "␛" * 8 in shown
    assert printable("a\tb\nc\r\x07\x9b31m\x7f") == "a\tb\nc␍␇\ufffd31m\ufffd"
