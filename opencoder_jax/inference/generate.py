"""python -m opencoder_jax generate: completes prompts, answers a file of them, or talks, with a trained model."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from opencoder_jax.files import write_lines
from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.prompts_file import OUTPUT, Task, answer_file, encode
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.inference.terminal_chat import TerminalChat, printable
from opencoder_jax.recipe import UserError, build, parse_flags, refuse_unknown


def main(argv: list[str]) -> None:
    """Prints the completion of every prompt. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax generate",
        description=(
            "Completes prompts with the newest checkpoint of a run; with --chat they are messages. --chat without "
            "a prompt is a conversation in the terminal. A file of prompts is answered into a folder; a run that was "
            "killed goes on there."
        ),
        epilog=(
            "examples:\n"
            '  python -m opencoder_jax generate --checkpoint=runs/cookbook/train/anneal --prompt="def add(a, b):"\n'
            "  python -m opencoder_jax generate --checkpoint=runs/cookbook/train/sft --chat"
            " --gin.SamplingConfig.temperature=0.8\n"
            "  python -m opencoder_jax generate --checkpoint=runs/cookbook/train/anneal --prompts=prompts.jsonl"
            " --output=runs/answers --samples=4\n"
        ),
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="RUN_DIR", help="the directory of a run")
    parser.add_argument("--step", type=int, metavar="N", help="which checkpoint; the newest by default")
    parser.add_argument("--prompt", action="append", default=[], help="repeatable")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="JSON lines with prompt, or messages; also fields of SamplingConfig and stop, for that line",
    )
    parser.add_argument("--chat", action="store_true", help="prompts are messages, to a model tuned for chats")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="answers to each prompt of a file")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends an answer; repeatable")
    parser.add_argument("--output", type=Path, metavar="DIR", help=f"where {OUTPUT} is written")
    flags, rest = parse_flags(parser, argv, SamplingConfig, EngineConfig)
    refuse_unknown(parser, rest)
    if flags.prompt and flags.prompts:
        raise UserError("give either --prompt or --prompts")
    if not (flags.prompt or flags.prompts or flags.chat):
        raise UserError("give --prompt=TEXT, --prompts=FILE, or --chat to talk")
    if flags.prompts and not flags.output:
        raise UserError("--prompts needs --output=DIR, where the answers are written")
    if flags.samples != 1 and not flags.prompts:
        raise UserError("--samples is for a file of --prompts")
    sampling, stop = build(SamplingConfig), tuple(flags.stop)
    if "" in stop:
        raise UserError("--stop is empty: every answer would end at once")
    task = Task(flags.prompts, sampling, flags.samples, flags.chat, stop) if flags.prompts else None
    engine = Engine.open(flags.checkpoint, flags.step)
    if task:
        answer_file(engine, task, flags.output)
        print(f"{flags.output / OUTPUT}: an answer a line")
    elif flags.prompt:
        _answer_prompts(engine, flags.prompt, sampling, flags.chat, stop, flags.output)
    else:
        _talk(engine, sampling, stop)


def _answer_prompts(
    engine: Engine,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    chat: bool,
    stop: Sequence[str],
    output: Path | None,
) -> None:
    """Prints the answers; writes them, too, where an output is given."""
    try:
        ids = [encode(engine, prompt, chat) for prompt in prompts]
    except ValueError as error:
        raise UserError(f"--prompt: {error}") from None
    completions = engine.generate(ids, sampling, stop)
    if output:
        rows = [
            {"prompt": prompt, "text": completion.text, "finish_reason": completion.finish_reason}
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        write_lines(output / OUTPUT, rows)
    for prompt, completion in zip(prompts, completions, strict=True):
        text = printable(completion.text) if sys.stdout.isatty() else completion.text
        print(text if chat else prompt + text)
        if completion.finish_reason == "length":
            print(f"[cut off after {sampling.max_tokens} tokens: raise --gin.SamplingConfig.max_tokens for more]")


def _talk(engine: Engine, sampling: SamplingConfig, stop: tuple[str, ...]) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  # gives `input` a history and its keys

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    if sys.stdin.isatty():
        write("/help tells the commands, Ctrl-D leaves\n")
    TerminalChat(engine, sampling, write, stop).run(input)
