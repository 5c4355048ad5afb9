"""What a source found, as a row: a document of the corpus, or a drop with its reason.

Every source hands `document` what it read, and the builder does the rest: the id, the language, the encoding, the text
of a notebook, the limits. Bytes that are no document are drops: unknown_language, excluded_language, too_large, binary,
not_utf8, broken_notebook, empty. What else may be wrong with a file, its source knows and says.
"""

import codecs
import re
from typing import Any

from opencoder_jax.beam_pipelines.core.documents import document_id
from opencoder_jax.beam_pipelines.languages import notebooks
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, Language, identify

Row = dict[str, Any]

SKIPPED_FOLDERS = (".git", ".hg", ".svn", "node_modules")  # they hold no source


def document(
    repository: str,
    path: str,
    content: bytes | str,
    *,
    source: str = "",
    language: Language | None = None,
    max_bytes: int | None = 8_000_000,
    reason: str = "",
    detail: str = "",
    size: int | None = None,
    stars: int = 0,
    commit_time: int = 0,
    license: str = "",
    url: str = "",
) -> Row:
    """A row of documents.SCHEMA, or of DROP_SCHEMA where the content is no document.

    A row that was decoded also names its `encoding`, which the batcher counts.

    Args:
        repository: whose file it is; with the path it makes the id.
        path: in the repository, with forward slashes.
        content: bytes are decoded, and notebooks become text; text is taken as it is.
        source: what documents call the place where it was found.
        language: what its path and content say, by default.
        max_bytes: longer content is dropped; OpenCoder's 8 MB. None for no limit.
        reason: why it's dropped, whatever it holds.
        detail: what a reviewer of drops wants to see; by default the size.
        size: of a drop in bytes, where `content` isn't all of it.
        commit_time: seconds since 1970; before that it counts as 0, unknown.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    if language is None:
        language = identify(path, data[:HEAD_BYTES])
    text, encoding = "", "utf-8"
    if not reason and isinstance(content, str):
        text, reason = content, _reason(content, len(data), language, max_bytes)
    elif not reason:
        text, reason, encoding = _text(data, language, max_bytes)
    row = {"id": document_id(repository, path), "path": path, "repository": repository, "language": language.name}
    if reason:
        size = len(data) if size is None else size
        return row | {"bytes": size, "reason": reason, "detail": detail or f"{size} bytes"}
    return row | {
        "text": text,
        "stars": stars,
        "commit_time": max(0, commit_time),
        "kind": language.kind,
        "license": license,
        "source": source,
        "url": url,
        "bytes": len(text.encode()),
        "encoding": encoding,
    }


def is_unicode(text: str) -> bool:
    """Whether a text can be written in UTF-8: it holds no half of a character, as JSON may."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _reason(text: str, size: int, language: Language, max_bytes: int | None) -> str:
    """Why a text is no document, or ""."""
    if not is_unicode(text):
        return "not_utf8"
    if not text.strip():
        return "empty"
    if max_bytes is not None and size > max_bytes:
        return "too_large"
    return f"{language.kind}_language" if language.kind in ("unknown", "excluded") else ""


def _text(data: bytes, language: Language, max_bytes: int | None) -> tuple[str, str, str]:
    """(text, why it's no document or "", encoding) of a file's content."""
    if language.kind in ("unknown", "excluded"):
        return "", f"{language.kind}_language", ""
    if max_bytes is not None and len(data) > max_bytes:
        return "", "too_large", ""
    text, encoding = decode(data, language.name)
    if text is None:
        return "", encoding, ""
    if language.name == notebooks.LANGUAGE:
        try:
            text = notebooks.structured(text)
        except notebooks.BrokenNotebook:
            return "", "broken_notebook", ""
    return text, "" if text.strip() else "empty", encoding


_COOKIE = re.compile(rb"\A(?:[ \t\f]*#[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*([-\w.]+)")
_NOT_ASCII = re.compile(rb"[\x80-\xff]++")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def decode(data: bytes, language: str) -> tuple[str | None, str]:
    """The text and the encoding's name, or None and the reason: "binary" or "not_utf8".

    UTF-8 is tried first, but for a Python file that declares another encoding (PEP 263), and UTF-16 with its mark. What
    is left is taken for Latin-1 if its other bytes stand alone, as accents in a Western text do; in a multi-byte
    encoding, or in binary data, they come in rows.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decoded(data, "utf-16") or (None, "binary")
    if b"\0" in data:
        return None, "binary"
    declared = _COOKIE.match(data) if language == "Python" else None
    for encoding in ([declared[1].decode("ascii", "replace")] if declared else []) + ["utf-8-sig"]:
        if decoded := _decoded(data, encoding):
            return decoded
    if _CONTROL.search(data):
        return None, "binary"
    runs = _NOT_ASCII.findall(data)
    if len(runs) < 0.6 * sum(map(len, runs)):
        return None, "not_utf8"
    return _decoded(data, "cp1252") or _decoded(data, "latin-1") or (None, "not_utf8")


def _decoded(data: bytes, encoding: str) -> tuple[str, str] | None:
    try:
        text = data.decode(codecs.lookup(encoding).name)
        text.encode()  # refuses what isn't text for us: lone surrogates
    except (UnicodeError, LookupError, ValueError):
        return None
    return text, "utf-8" if encoding == "utf-8-sig" else codecs.lookup(encoding).name
