"""python -m opencoder_jax generate: completes a prompt, or answers a message, with a trained model."""

import argparse
import json
from pathlib import Path

from opencoder_jax.data import chat
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.recipe import build, parse_flags, refuse_unknown


def main(argv: list[str]) -> None:
    """Prints the completion of every prompt. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax generate",
        description="Completes prompts with the newest checkpoint of a run; with --chat they are messages to it.",
        epilog=(
            "examples:\n"
            '  python -m opencoder_jax generate --checkpoint=runs/cookbook/train/anneal --prompt="def add(a, b):"\n'
            "  python -m opencoder_jax generate --checkpoint=runs/cookbook/train/sft --chat"
            ' --prompt="Write a Python function." --gin.SamplingConfig.temperature=0.8\n'
        ),
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="RUN_DIR", help="the directory of a run")
    parser.add_argument("--step", type=int, metavar="N", help="which checkpoint; the newest by default")
    parser.add_argument("--prompt", required=True, action="append", help="repeatable")
    parser.add_argument("--chat", action="store_true", help="the prompt is a message, to a model tuned for chats")
    parser.add_argument("--output", type=Path, metavar="DIR", help="also writes DIR/completions.jsonl")
    flags, rest = parse_flags(parser, argv, SamplingConfig)
    refuse_unknown(parser, rest)
    sampling = build(SamplingConfig)
    engine = Engine.open(flags.checkpoint, flags.step)
    tokenizer = engine.tokenizer
    prompts = [
        chat.encode_prompt(tokenizer, [{"role": "user", "content": prompt}])
        if flags.chat
        else tokenizer.encode_prompt(prompt)
        for prompt in flags.prompt
    ]
    completions = engine.generate(prompts, sampling)
    if flags.output:
        flags.output.mkdir(parents=True, exist_ok=True)
        rows = [
            {"prompt": prompt, "text": completion.text, "finish_reason": completion.finish_reason}
            for prompt, completion in zip(flags.prompt, completions, strict=True)
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (flags.output / "completions.jsonl").write_text(lines, encoding="utf-8")
    for prompt, completion in zip(flags.prompt, completions, strict=True):
        print(completion.text if flags.chat else prompt + completion.text)
        if completion.finish_reason == "length":
            print(f"[cut off after {sampling.max_tokens} tokens: raise --gin.SamplingConfig.max_tokens for more]")
