"""Takes over a released tokenizer instead of training one: OpenCoder's, or one that was built like it.

    python -m beam_pipelines released_tokenizer --released=OpenCoder-8B-Instruct --output=runs/tokenizer

The folder is as it lies on Hugging Face: the SentencePiece `tokenizer.model`, `tokenizer_config.json`, whose added
tokens are made control tokens of the model, and `config.json`, up to whose `vocab_size` reserved tokens are filled in.
So one file holds the whole vocabulary, as for a tokenizer of our own. Texts get the ids that the released code gives
them, but for U+2581, which that code takes for a space, and for names of control tokens, which here are only text.

Any other model's `tokenizer.json` (byte-level BPE: SmolLM2, Llama 3, Qwen) is taken over as it is, with the files that
belong to it, and run by Hugging Face's own library: so such a model can be trained on, or teach a student.

Writes: `tokenizer.model`, or `tokenizer.json` and what belongs to it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.files import parse_line
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.hugging_face import HuggingFaceTokenizer
from opencoder_jax.tokenization.tokenizer import Tokenizer
from opencoder_jax.tokenization.tokenizer_files import FOREIGN, TOKENIZER, TOKENIZER_CONFIG, TOKENIZER_JSON

_OPENCODERS_CLASS = "INFLMTokenizer"


@dataclass(frozen=True)
class Released:
    """What is taken over: the digests of the files that there are."""

    files: dict[str, str]


def run(released: str, output: str, options: BeamOptions) -> Manifest:
    """Writes the tokenizer of a released model's folder, and prints how many ids it has.

    Args:
        released: the folder of a released model.

    Raises:
        UserError: the folder has no tokenizer, a foreign one, or files that don't fit together.
    """
    names = (TOKENIZER, TOKENIZER_CONFIG, "config.json")
    files = {name: (Path(released) / name).read_bytes() for name in names if (Path(released) / name).is_file()}
    added, config = (parse_line(f"{released}/{name}", files.get(name, b"{}")) for name in names[1:])
    foreign = added.get("tokenizer_class", _OPENCODERS_CLASS) != _OPENCODERS_CLASS or TOKENIZER not in files
    if foreign and (Path(released) / TOKENIZER_JSON).is_file():
        ids = HuggingFaceTokenizer(Path(released)).vocab_size
        files = {name: (Path(released) / name).read_bytes() for name in FOREIGN if (Path(released) / name).is_file()}
        written = files
    else:
        if TOKENIZER not in files:
            raise UserError(
                f"{released}: holds neither {TOKENIZER} nor {TOKENIZER_JSON}; --released takes the folder of a released"
                " model"
            )
        model = complete(files[TOKENIZER], added, config, released)
        written, ids = {TOKENIZER: model}, Tokenizer(model).vocab_size

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        for name, content in written.items():
            directory.write_bytes(name, content)
        return {"count": {"ids": ids}}, {name: digest(directory, name) for name in written}

    identity = Released({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    manifest = Stage("released_tokenizer", __name__, identity, (), output).run(work, options)
    print(f"{output}/{next(iter(written))}: {manifest.total('count', 'ids')} ids")
    return manifest


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
