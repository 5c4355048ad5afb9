"""What of a document becomes tokens, for those who count its words or bytes."""

import pyarrow as pa

from opencoder_jax.data import chat


def texts_of(documents: pa.RecordBatch) -> list[str]:
    """The text of each document; of a conversation what is said in it, and nothing where it's none."""
    columns = (documents.column(name).to_pylist() for name in ("kind", "text"))
    return [_said(text) if kind == "chat" else text for kind, text in zip(*columns, strict=True)]


def _said(text: str) -> str:
    try:
        return chat.said(text)
    except ValueError:
        return ""
