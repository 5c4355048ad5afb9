"""What a source found, as a row: a document of the corpus, or a drop with its reason.

Every source hands `document` what it read, and the builder does the rest: the id, the language, the encoding, the text
of a notebook, the limits. Bytes that are no document are drops: unknown_language, excluded_language, too_large, binary,
not_utf8, mixed_encodings, broken_notebook, lfs_pointer, empty. What else may be wrong with a file, its source says.
"""

from collections import Counter

from opencoder_jax.beam_pipelines.core.documents import document_id
from opencoder_jax.beam_pipelines.languages import notebooks
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, Language, identify
from opencoder_jax.beam_pipelines.sources.formats.encodings import decode
from opencoder_jax.beam_pipelines.sources.formats.members import LATEST, Row, is_unicode

_POINTER = b"version https://git-lfs.github.com/spec/"  # what git holds where Git LFS holds the file
_POINTER_BYTES = 1024
_MOST_STARS = 2**63 - 1


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
    detect_encodings: bool = False,
) -> Row:
    """A row of documents.SCHEMA, or of DROP_SCHEMA where the content is no document.

    A row that was decoded also names its `encoding`, which the batcher counts, and in `counts` what was lost by it.

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
        detect_encodings: also decodes what only its statistics tell (formats/encodings.py).
        commit_time: seconds since 1970; before that, or after 2106, it counts as 0, unknown.
    """
    repository, path, source, license, url = map(written, (repository, path, source, license, url))
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    if language is None:
        language = identify(path, data[:HEAD_BYTES])
    text, encoding, counts = "", "utf-8", Counter[str]()
    if not reason and isinstance(content, str):
        text, reason = content, _reason(content, len(data), language, max_bytes)
    elif not reason:
        text, reason, encoding = _text(data, language, max_bytes, detect_encodings, counts)
    row = {"id": document_id(repository, path), "path": path, "repository": repository, "language": language.name}
    if reason:
        size = len(data) if size is None else size
        return row | {"bytes": size, "counts": counts, "reason": reason, "detail": written(detail or f"{size} bytes")}
    return row | {
        "text": text,
        "stars": max(0, min(stars, _MOST_STARS)),
        "commit_time": commit_time if 0 <= commit_time < LATEST else 0,
        "kind": language.kind,
        "license": license,
        "source": source,
        "url": url,
        "bytes": len(text.encode()),
        "encoding": encoding,
        "counts": counts,
    }


def written(text: str) -> str:
    """As it can be written: halves of characters and NULs are escapes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _reason(text: str, size: int, language: Language, max_bytes: int | None) -> str:
    """Why a text is no document, or ""."""
    if not is_unicode(text):
        return "not_utf8"
    if not text.strip():
        return "empty"
    if max_bytes is not None and size > max_bytes:
        return "too_large"
    return f"{language.kind}_language" if language.kind in ("unknown", "excluded") else ""


def _text(
    data: bytes, language: Language, max_bytes: int | None, detect: bool, counts: Counter[str]
) -> tuple[str, str, str]:
    """(text, why it's no document or "", encoding) of a file's content; `counts` gets what was lost on the way."""
    if data.startswith(_POINTER) and len(data) < _POINTER_BYTES:
        return "", "lfs_pointer", ""
    if language.kind in ("unknown", "excluded"):
        return "", f"{language.kind}_language", ""
    if max_bytes is not None and len(data) > max_bytes:
        return "", "too_large", ""
    text, encoding, lost, reason = decode(data, language.name, detect)
    if reason:
        return "", reason, ""
    if language.name == notebooks.LANGUAGE:
        passed: list[str] = []
        try:
            text = notebooks.structured(text, passed)
        except notebooks.BrokenNotebook:
            return "", "broken_notebook", ""
        counts.update(f"notebook cell without text: {kind:.20}" for kind in passed)
    counts.update({"bytes lost in decoding": lost} if lost else {})
    return text, "" if text.strip() else "empty", encoding
