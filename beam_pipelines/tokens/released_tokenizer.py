"""Takes over a released tokenizer instead of training one: OpenCoder's, or one that was built like it.

    python -m opencoder_jax.beam_pipelines.tokens.released_tokenizer --released=OpenCoder-8B-Instruct --output=runs/tokenizer

The folder is as it lies on Hugging Face: the SentencePiece `tokenizer.model`, `tokenizer_config.json`, whose added
tokens are made control tokens of the model, and `config.json`, up to whose `vocab_size` reserved tokens are filled in.
So one file holds the whole vocabulary, as for a tokenizer of our own. Texts get the ids that the released code gives
them, but for U+2581, which that code takes for a space, and for names of control tokens, which here are only text.

Reads: the folder. Writes: `tokenizer.model`.
"""

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.data.token_records import TOKENIZER
from opencoder_jax.data.tokenizer import Tokenizer
from opencoder_jax.recipe import UserError, parse_flags, refuse_unknown, run_command

_OPENCODERS_CLASS = "INFLMTokenizer"


@dataclass(frozen=True)
class Plan:
    """What is taken over: the digests of the files that there are."""

    files: dict[str, str]


def run(released: str, output: str) -> Manifest:
    """Writes the tokenizer of a released model's folder.

    Raises:
        UserError: the folder has no tokenizer, a foreign one, or files that don't fit together.
    """
    names = ("tokenizer.model", "tokenizer_config.json", "config.json")
    files = {name: (Path(released) / name).read_bytes() for name in names if (Path(released) / name).is_file()}
    if names[0] not in files:
        raise UserError(f"{released}: holds no {names[0]}; --released takes the folder of a released model")
    model = complete(files[names[0]], _object(released, names[1], files), _object(released, names[2], files), released)

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        directory.write_bytes(TOKENIZER, model)
        return {"count": {"ids": Tokenizer(model).vocab_size}}, {TOKENIZER: digest(directory, TOKENIZER)}

    plan = Plan({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    return Stage("released_tokenizer", "opencoder_jax.beam_pipelines.tokens.released_tokenizer", plan, (), output).run(
        work
    )


def _object(released: str, name: str, files: dict[str, bytes]) -> dict[str, Any]:
    try:
        content = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise UserError(f"{released}/{name}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{released}/{name}: not a JSON object")
    return content


def complete(model: bytes, tokenizer_config: dict[str, Any], config: dict[str, Any], name: str) -> bytes:
    """The model with all added tokens as control tokens, and as many ids as the network has.

    Raises:
        UserError: naming `name` and what doesn't fit.
    """
    splitter = tokenizer_config.get("tokenizer_class", _OPENCODERS_CLASS)
    if splitter != _OPENCODERS_CLASS:
        raise UserError(
            f"{name}: a foreign tokenizer: {splitter} doesn't split text into words as OpenCoder's "
            f"{_OPENCODERS_CLASS} does, so the ids would be others than the model knows; train a tokenizer instead"
        )
    try:
        sentencepiece.SentencePieceProcessor().LoadFromSerializedProto(model)
    except RuntimeError:
        raise UserError(f"{name}/tokenizer.model: not a SentencePiece model, or a damaged one") from None
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    added = {
        int(index): str(token["content"]) for index, token in tokenizer_config.get("added_tokens_decoder", {}).items()
    }
    size = max(int(config.get("vocab_size", 0)), len(proto.pieces), *(index + 1 for index in added), 0)
    if config and size > int(config.get("vocab_size", size)):
        raise UserError(f"{name}: has {size} tokens, but config.json a vocab_size of {config['vocab_size']}")
    for index in range(len(proto.pieces), size):
        proto.pieces.add(piece=added.get(index, f"<|reserved_{index}|>"), score=0.0)
        proto.pieces[index].type = proto.SentencePiece.CONTROL
    for index, content in added.items():
        piece = proto.pieces[index]
        if piece.piece != content:
            raise UserError(
                f"{name}: id {index} is {piece.piece!r} in tokenizer.model, but {content!r} was added there"
            )
        if piece.type != proto.SentencePiece.UNKNOWN:
            piece.type = proto.SentencePiece.CONTROL
    proto.trainer_spec.vocab_size = size
    completed: bytes = proto.SerializeToString(deterministic=True)
    return Tokenizer(completed, f"{name}/tokenizer.model").model


def main(argv: list[str]) -> None:
    """The command line. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax.beam_pipelines.tokens.released_tokenizer", description=__doc__
    )
    parser.add_argument("--released", required=True, metavar="DIR", help="the folder of a released model")
    parser.add_argument("--output", required=True, metavar="DIR", help="the stage directory to write")
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    manifest = run(flags.released, flags.output)
    print(f"{flags.output}/{TOKENIZER}: {manifest.total('count', 'ids')} ids")


if __name__ == "__main__":
    run_command(main)
