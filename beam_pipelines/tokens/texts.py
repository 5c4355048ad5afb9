"""What the stages of this room read: the text of documents, and a tokenizer's directory."""

import tempfile
from pathlib import Path

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import read_finished
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.hugging_face import HuggingFaceTokenizer
from opencoder_jax.tokenization.tokenizer import TextTokenizer, Tokenizer
from opencoder_jax.tokenization.tokenizer_files import FOREIGN, TOKENIZER, TOKENIZER_JSON


def need_tokenizer(directory: str) -> None:
    """Raises UserError where a directory holds no tokenizer."""
    if not any(map(Directory(directory).exists, (TOKENIZER, TOKENIZER_JSON))):
        raise UserError(
            f"{directory}/{TOKENIZER}: no such tokenizer model; --tokenizer takes the directory of a tokenizer, and "
            f"this one holds no {TOKENIZER}, nor a foreign {TOKENIZER_JSON}"
        )


def files_of_tokenizer(directory: str) -> dict[str, bytes]:
    """The files of a tokenizer that a stage wrote, the one that makes its tokens first."""
    place = Directory(directory)
    names = (TOKENIZER,) if place.exists(TOKENIZER) else FOREIGN
    return {name: read_finished(place, name) for name in names if place.exists(name)}


def tokenizer_of(directory: str) -> TextTokenizer:
    """The tokenizer that a stage wrote, wherever its directory lies. Raises UserError where it can't be read."""
    files = files_of_tokenizer(directory)
    if TOKENIZER in files:
        return Tokenizer(files[TOKENIZER], f"{directory}/{TOKENIZER}")
    with tempfile.TemporaryDirectory() as here:
        for name, content in files.items():
            Path(here, name).write_bytes(content)
        return HuggingFaceTokenizer(Path(here))


def texts_of(documents: pa.RecordBatch) -> list[str]:
    """The text of each document; of a conversation what is said in it, and nothing where it's none."""
    columns = (documents.column(name).to_pylist() for name in ("kind", "text"))
    return [_said(text) if kind == "chat" else text for kind, text in zip(*columns, strict=True)]


def _said(text: str) -> str:
    try:
        return chat.said(text)
    except ValueError:
        return ""
