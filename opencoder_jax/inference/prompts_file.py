"""A file of prompts, answered: JSON lines in, JSON lines out, each written as soon as it is there.

A line holds `prompt`, a text, or `messages`, a conversation. It may set fields of SamplingConfig for itself, and
`stop`, a list of strings; whatever else it holds comes out again beside its answers. What is in the output already
isn't asked again, so a run that was killed goes on; one with other settings, prompts or model doesn't mix with it.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from opencoder_jax import files
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.requests import Request
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.progress import Progress
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat

OUTPUT, SETTINGS = "completions.jsonl", "settings.json"
ANSWER = ("line", "sample", "text", "tokens", "finish_reason")  # the fields of an answer
_AT_ONCE = 512  # answers that the engine knows of


@dataclass(frozen=True)
class Task:
    """What is to be answered.

    Attributes:
        prompts: file of JSON lines.
        samples: answers to each prompt.
        chat: whether a `prompt` is a message to the model.
        stop: strings that end an answer, where its line has none of its own.
    """

    prompts: Path
    sampling: SamplingConfig
    samples: int = 1
    chat: bool = False
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"--samples={self.samples}: must be 1 or more")
        if "" in self.stop:
            raise UserError("--stop is empty: every answer would end at once")


class _Open(NamedTuple):
    """An answer under way."""

    line: int
    sample: int
    row: dict[str, Any]
    texts: list[str]
    tokens: list[int]  # one count a piece


def answer_file(engine: Engine, task: Task, output: Path) -> None:
    """Answers all lines of a file into output/completions.jsonl.

    Raises:
        UserError: a line holds no prompt, or one that can't be answered (told before anything is asked); the output is
            of another task.
    """
    total = task.samples * sum(1 for _ in _requests(engine, task))
    output.mkdir(parents=True, exist_ok=True)
    _own(output, _settings(engine, task))
    with files.Appender(output / OUTPUT) as appender, Progress("generate", total, "answers") as progress:
        done = {(row["line"], row["sample"]) for _, row in files.read_lines(output / OUTPUT)}
        missing = (
            (line, sample, row, replace(request, seed=(line - 1) * task.samples + sample))
            for line, row, request in _requests(engine, task)
            for sample in range(task.samples)
            if (line, sample) not in done
        )
        answered, under_way = len(done), dict[int, _Open]()
        progress.update_to(answered)
        while True:
            batch = list(islice(missing, _AT_ONCE - len(under_way)))
            ids = engine.submit([request for *_, request in batch])
            for number, (line, sample, row, _) in zip(ids, batch, strict=True):
                under_way[number] = _Open(line, sample, row, [], [])
            if not under_way:
                return
            for piece in engine.step(math.inf):
                answer = under_way[piece.request]
                answer.texts.append(piece.text)
                answer.tokens.append(len(piece.tokens))
                if piece.finish_reason:
                    del under_way[piece.request]
                    said = ("".join(answer.texts), sum(answer.tokens), piece.finish_reason)
                    made = dict(zip(ANSWER, (answer.line, answer.sample, *said), strict=True))
                    appender.write(answer.row | made)
                    answered += 1
            progress.update_to(answered)


def _requests(engine: Engine, task: Task) -> Iterator[tuple[int, dict[str, Any], Request]]:
    """Yields (line, its content, the request of its first sample). Raises UserError, which names the line."""
    own = {field.name for field in fields(SamplingConfig)}
    context = engine.model.config.context
    for number, row in files.read_lines(task.prompts):
        place = f"{task.prompts}, line {number}"
        if taken := [name for name in ANSWER if name in row]:
            raise UserError(f"{place}: the field {taken[0]!r} is one of the answer's; rename it")
        try:
            sampling = replace(task.sampling, **{name: value for name, value in row.items() if name in own})
            prompt = encode(engine, _asked(row), task.chat)
        except ValueError as error:
            raise UserError(f"{place}: {str(error).splitlines()[0]}") from None  # gin adds lines of its own
        stop = row.get("stop", list(task.stop))
        if not isinstance(stop, list) or not all(isinstance(each, str) and each for each in stop):
            raise UserError(f"{place}: stop must be a list of strings, none of them empty")
        if not prompt:
            raise UserError(f"{place}: the prompt is empty")
        if len(prompt) + sampling.max_tokens > context:
            raise UserError(
                f"{place}: the prompt has {len(prompt)} tokens; with {sampling.max_tokens} more they exceed the "
                f"model's context of {context}; shorten it, or lower max_tokens"
            )
        yield number, row, Request(tuple(prompt), sampling, stop=tuple(stop))


def _asked(row: dict[str, Any]) -> str | list[chat.Message]:
    """What a line asks. Raises ValueError."""
    match row.get("prompt"), row.get("messages"):
        case str(prompt), None:
            return prompt
        case None, list(messages):
            return chat.messages_of(messages)
    raise ValueError("it must have either prompt, a string, or messages, a list of objects with role and content")


def encode(engine: Engine, prompt: str | list[chat.Message], is_message: bool) -> list[int]:
    """The ids of a text, or of a conversation up to its answer. Raises ValueError, or UserError without a template."""
    if isinstance(prompt, str) and not is_message:
        return engine.tokenizer.encode_prompt(prompt)
    messages = [chat.turn("user", prompt)] if isinstance(prompt, str) else prompt
    return chat.encode_prompt(engine.tokenizer, messages)


def _settings(engine: Engine, task: Task) -> dict[str, Any]:
    """What makes the answers what they are."""
    digest = hashlib.sha256()
    with task.prompts.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return {
        "model": engine.model.fingerprint,
        "prompts": digest.hexdigest(),
        "sampling": asdict(task.sampling),
        "samples": task.samples,
        "chat": task.chat,
        "stop": list(task.stop),
    }


def _own(output: Path, settings: dict[str, Any]) -> None:
    """Takes an output for a task. Raises UserError when it is another's."""
    found = files.read_json(output / SETTINGS)
    if found is None and (output / OUTPUT).exists():
        raise UserError(f"{output / OUTPUT}: is there, and was made by something else; give another --output")
    if found not in (None, settings):
        other = ", ".join(name for name in settings if found.get(name) != settings[name])
        raise UserError(f"{output}: holds answers of another task (other {other}); give another --output")
    files.write_json(output / SETTINGS, settings)
