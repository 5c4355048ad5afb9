"""Bytes as text: UTF-8 first, what is surely something else next, and what only looks like it where that is wanted.

UTF-8 is tried first, but for a Python file that declares another encoding (PEP 263), and UTF-16 and UTF-32 with their
marks. Bytes that stand alone among ASCII, as accents in a Western text do, are Windows-1252's. What is left is dropped
(not_utf8, mixed_encodings, binary), or by `detect` told by its statistics: UTF-16 without a mark, the encodings of East
Asia and of Cyrillic (charset-normalizer), and UTF-8 with some bytes that are none.
"""

import codecs
import re
from typing import NamedTuple

import charset_normalizer

DETECT_BYTES = 64_000  # of a file, that its encoding is told by

_COOKIE = re.compile(rb"\A(?:[ \t\f]*#[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*([-\w.]+)")
_NO_CHARSETS = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")  # decoders, but of no text
_WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NOT_ASCII = re.compile(rb"[\x80-\xff]++")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_CHARACTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_KANA = re.compile("[\u3041-\u30fa]")
_LEGACY = [
    *("gb18030", "big5hkscs", "cp932", "euc_jp", "cp949"),
    *("koi8_r", "koi8_u", "cp1251", "cp866", "iso8859_5", "mac_cyrillic"),
    *("mac_roman", "cp1250", "iso8859_2", "cp1253", "cp1254", "cp1255", "cp1256", "cp874"),
]


class Decoded(NamedTuple):
    """A file's text, or why it's none."""

    text: str
    encoding: str = "utf-8"  # by Python's name
    lost: int = 0  # bytes that have no character in it
    reason: str = ""  # binary, not_utf8 or mixed_encodings


def decode(data: bytes, language: str, detect: bool = False) -> Decoded:
    """The text of a file.

    Args:
        language: linguist's name of it.
        detect: also tells an encoding by its statistics, and gives up some bytes.
    """
    for mark, encoding in _WIDE.items():
        if data.startswith(mark):
            return _decoded(data, encoding) or Decoded("", reason="binary")
    if b"\0" in data:
        return (detect and _unmarked(data)) or Decoded("", reason="binary")
    declared = _COOKIE.match(data) if language == "Python" else None
    for encoding in ([declared[1].decode("ascii", "replace")] if declared else []) + ["utf-8-sig"]:
        if found := _decoded(data, encoding):
            return found
    if _CONTROL.search(data):
        return Decoded("", reason="binary")
    return _other(data, detect)


def _other(data: bytes, detect: bool) -> Decoded:
    """What is surely not all UTF-8."""
    runs = _NOT_ASCII.findall(data)
    strange = sum(map(len, runs))
    characters = sum(map(len, _CHARACTER.findall(data)))  # bytes of UTF-8's
    alone = len(runs) >= 0.6 * strange  # as accents are
    if detect and characters >= 0.8 * strange:
        return _repaired(data, "")
    if alone and not characters:
        # Of Latin-1 only what is Windows-1252 too: the others of its characters are no text.
        return _decoded(data, "cp1252") or (detect and _told(data)) or Decoded("", reason="not_utf8")
    if alone:
        return _repaired(data, "cp1252") if detect else Decoded("", reason="mixed_encodings")
    return (detect and _told(data)) or Decoded("", reason="not_utf8")


def _decoded(data: bytes, encoding: str) -> Decoded | None:
    try:
        name = codecs.lookup(encoding).name
        text = "" if name in _NO_CHARSETS else data.decode(name)
        text.encode()  # refuses what isn't text for us: lone surrogates
    except (UnicodeError, LookupError, ValueError):
        return None
    return None if name in _NO_CHARSETS else Decoded(text, name.removesuffix("-sig"))


def _unmarked(data: bytes) -> Decoded | None:
    """UTF-16 without a mark: of mostly Western text, every other byte is zero."""
    if len(data) % 2:
        return None
    first, second = data[::2].count(0), data[1::2].count(0)
    encoding = "utf-16-le" if second > first else "utf-16-be"
    if max(first, second) < 0.2 * len(data) or min(first, second) > 0.01 * len(data):
        return None
    found = _decoded(data, encoding)
    return None if found is None or _CONTROL.search(found.text.encode()) else found


def _repaired(data: bytes, other: str) -> Decoded:
    """UTF-8, its other bytes being of another encoding, or lost."""
    strays = 0

    def handle(error: UnicodeError) -> tuple[str, int]:
        nonlocal strays
        assert isinstance(error, UnicodeDecodeError)
        strays += error.end - error.start
        bad = error.object[error.start : error.end]
        return (bad.decode(other, "replace") if other else "\ufffd"), error.end

    codecs.register_error("opencoder_jax.repaired", handle)
    text = data.decode("utf-8-sig", "opencoder_jax.repaired")
    return Decoded(text, f"utf-8+{other}" if other else "utf-8", text.count("\ufffd") if other else strays)


def _told(data: bytes) -> Decoded | None:
    """What charset-normalizer takes it for, if nearly all of it can be decoded so."""
    for encoding in ("euc_jp", "cp932"):  # its kana tell Japanese, which else looks like Chinese or Korean
        found = _decoded(data, encoding)
        if found and len(_KANA.findall(found.text)) > 0.2 * sum(not letter.isascii() for letter in found.text):
            return found
    sample = data
    if len(data) > DETECT_BYTES:  # where its strange bytes begin, and not within a character
        start = _NOT_ASCII.search(data)
        at = max(0, (start.start() if start else 0) - 1000)
        sample = data[at : at + DETECT_BYTES].rpartition(b"\n")[0] or data[at : at + DETECT_BYTES]
    best = charset_normalizer.from_bytes(sample, cp_isolation=_LEGACY, preemptive_behaviour=True).best()
    if best is None:
        return None
    if found := _decoded(data, best.encoding):
        return found
    text = data.decode(best.encoding, "replace")
    lost = text.count("\ufffd")
    return Decoded(text, best.encoding, lost) if lost <= 0.001 * len(data) else None
