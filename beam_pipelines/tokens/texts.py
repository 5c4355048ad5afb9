"""What the stages of this room read: the text of documents, and a tokenizer's directory."""

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.data import chat
from opencoder_jax.data.token_records import TOKENIZER
from opencoder_jax.recipe import UserError


def need_tokenizer(directory: str) -> None:
    """Raises UserError where a directory holds no tokenizer."""
    if not Directory(directory).exists(TOKENIZER):
        raise UserError(
            f"{directory}/{TOKENIZER}: no such tokenizer model; --tokenizer takes the directory of a tokenizer, and "
            f"this one holds no {TOKENIZER}"
        )


def texts_of(documents: pa.RecordBatch) -> list[str]:
    """The text of each document; of a conversation what is said in it, and nothing where it's none."""
    columns = (documents.column(name).to_pylist() for name in ("kind", "text"))
    return [_said(text) if kind == "chat" else text for kind, text in zip(*columns, strict=True)]


def _said(text: str) -> str:
    try:
        return chat.said(text)
    except ValueError:
        return ""
