"""The language of a file, by GitHub linguist's tables: its name, its first line, its extension.

OpenCoder keeps the files whose extension linguist knows, less a list of types of low quality, and calls each code, data
or text (paper section 2.1.1 and the released type map). The tables are languages.json; make_languages.py makes it and
language_choices.json says which language was chosen where linguist lists several and neither a shebang nor the
content (heuristics.py) tells.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from opencoder_jax.beam_pipelines.languages.heuristics import CONSIDERED_BYTES, by_content

HEAD_BYTES = CONSIDERED_BYTES  # of a file that `identify` may look at
FIRST_LINE = 256  # bytes of it that may hold a shebang


class Language(NamedTuple):
    """What a file is written in."""

    name: str  # linguist's name, or "unknown"
    kind: str  # code | data | text | excluded | unknown


UNKNOWN = Language("unknown", "unknown")

_SHEBANG = re.compile(r"#!\s*(\S+)[ \t]*(.*)")
_VERSION = re.compile(r"[-\d.]+$")


class _Tables(NamedTuple):
    kinds: dict[str, str]
    filenames: dict[str, str]
    extensions: dict[str, str]
    candidates: dict[str, list[str]]  # the languages of an ambiguous extension
    interpreters: dict[str, str]


@cache
def _tables() -> _Tables:
    table = json.loads(Path(__file__).with_name("languages.json").read_text(encoding="utf-8"))
    # Few extensions are written in mixed case (.4DForm); they are found by their lower case too.
    extensions = {extension.lower(): name for extension, name in table["extensions"].items()}
    extensions |= table["extensions"] | table["upper_case_extensions"]
    return _Tables(table["kinds"], table["filenames"], extensions, table["candidates"], table["interpreters"])


def identify(path: str, head: bytes | str = b"") -> Language:
    """The language of a file from its path and the head of its content (HEAD_BYTES are enough).

    A file name that linguist knows decides (Makefile, CMakeLists.txt). Then the extension, the longest first
    (.blade.php before .php), as written and then in lower case; where several languages share it, a shebang that names
    one of them decides, then linguist's rules about the content. Last, the shebang alone. It never fails: what nothing
    tells is UNKNOWN.
    """
    tables = _tables()
    filename = path.rsplit("/", 1)[-1]
    name = tables.filenames.get(filename)
    if name is None:
        name = _by_extension(filename, head, tables) or _by_shebang(head, tables)
    return Language(name, tables.kinds[name]) if name else UNKNOWN


def settled(path: str) -> bool:
    """Whether no content would make `identify` answer otherwise: a known name, or an extension of one language."""
    tables = _tables()
    filename = path.rsplit("/", 1)[-1]
    if filename in tables.filenames:
        return True
    extension = _extension(filename, tables)
    return extension is not None and extension not in tables.candidates


# How OpenCoder's release and other data sets write names that linguist writes otherwise.
_OTHER_NAMES = {"cpp": "C++", "csharp": "C#", "c-sharp": "C#", "fsharp": "F#", "golang": "Go", "bash": "Shell"}


def by_name(name: str) -> Language:
    """The language that a data set names, whatever its capitals; UNKNOWN where linguist has no such name."""
    written = _OTHER_NAMES.get(name.lower(), name).lower()
    known = _names().get(written) or _names().get(written.replace("-", " "))
    return Language(known, _tables().kinds[known]) if known else UNKNOWN


@cache
def _names() -> dict[str, str]:
    return {name.lower(): name for name in _tables().kinds}


def _by_extension(filename: str, head: bytes | str, tables: _Tables) -> str | None:
    extension = _extension(filename, tables)
    return (_by_head(extension, head, tables) or tables.extensions[extension]) if extension else None


def _extension(filename: str, tables: _Tables) -> str | None:
    """The longest extension that linguist knows, as its tables write it."""
    start = filename.find(".")
    while start >= 0:
        written = filename[start:]
        extension = written if written in tables.extensions else written.lower()
        if extension in tables.extensions:
            return extension
        start = filename.find(".", start + 1)
    return None


def _by_head(extension: str, head: bytes | str, tables: _Tables) -> str | None:
    """The one of an ambiguous extension's languages that the head tells, if it tells one."""
    candidates = tables.candidates.get(extension)
    if not candidates or not head:
        return None
    spoken = _by_shebang(head, tables)
    if spoken in candidates:
        return spoken
    return by_content(extension.lower(), head if isinstance(head, bytes) else head.encode(), tables.kinds)


def _by_shebang(head: bytes | str, tables: _Tables) -> str | None:
    text = head[:FIRST_LINE].decode("latin-1") if isinstance(head, bytes) else head[:FIRST_LINE]
    match = _SHEBANG.match(text)
    if not match:
        return None
    program = match[1].rsplit("/", 1)[-1]
    if program == "env":
        # `env -S VARIABLE=value python3 -u`: the first word that is neither an option nor a setting.
        words = [word for word in match[2].split() if not word.startswith("-") and "=" not in word]
        program = words[0].rsplit("/", 1)[-1] if words else ""
    return tables.interpreters.get(program) or tables.interpreters.get(_VERSION.sub("", program))
