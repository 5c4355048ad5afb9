"""The language of a file, by GitHub linguist's tables: its name, its first line, its extension, its content.

OpenCoder keeps the files whose extension linguist knows, less a list of types of low quality, and calls each code, data
or text (paper section 2.1.1 and the released type map). make_tables.py makes the tables from linguist's data:
languages.json, and heuristics.json with its rules about the content. language_choices.json says which language was
chosen where linguist lists several for an extension and neither a shebang nor the content tells.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

HEAD_BYTES = 50 * 1024  # of a file that `identify` may look at; linguist's own limit
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
    names: dict[str, str]  # in lower case -> as linguist writes them
    filenames: dict[str, str]
    extensions: dict[str, str]
    candidates: dict[str, list[str]]  # the languages of an ambiguous extension
    interpreters: dict[str, str]
    rules: dict[str, list[dict[str, Any]]]  # about content, by extension in lower case


@cache
def _tables() -> _Tables:
    folder = Path(__file__).parent
    table = json.loads((folder / "languages.json").read_text(encoding="utf-8"))
    rules = json.loads((folder / "heuristics.json").read_text(encoding="utf-8"))["rules"]
    # Few extensions are written in mixed case (.4DForm); they are found by their lower case too.
    extensions = {extension.lower(): name for extension, name in table["extensions"].items()}
    extensions |= table["extensions"] | table["upper_case_extensions"]
    names = {name.lower(): name for name in table["kinds"]}
    return _Tables(
        table["kinds"], names, table["filenames"], extensions, table["candidates"], table["interpreters"], rules
    )


def identify(path: str, head: bytes = b"") -> Language:
    """The language of a file from its path and the head of its content (HEAD_BYTES are enough).

    A file name that linguist knows decides (Makefile, CMakeLists.txt). Then the extension, the longest first
    (.blade.php before .php), as written and then in lower case; where several languages share it, a shebang that names
    one of them decides, then linguist's rules about the content. Last, the shebang alone. It never fails: what nothing
    tells is UNKNOWN.
    """
    tables = _tables()
    filename = path.rsplit("/", 1)[-1]
    name = tables.filenames.get(filename)
    if name is None and (extension := _extension(filename)):
        name = _by_head(extension, head) or tables.extensions[extension]
    name = name or _by_shebang(head)
    return Language(name, tables.kinds[name]) if name else UNKNOWN


def path_decides(path: str) -> bool:
    """Whether no content would make `identify` answer otherwise: a known name, or an extension of one language."""
    filename = path.rsplit("/", 1)[-1]
    extension = _extension(filename)
    return filename in _tables().filenames or (extension is not None and extension not in _tables().candidates)


# How OpenCoder's release and other data sets write names that linguist writes otherwise.
_OTHER_NAMES = {"cpp": "C++", "csharp": "C#", "c-sharp": "C#", "fsharp": "F#", "golang": "Go", "bash": "Shell"}


def by_name(name: str) -> Language:
    """The language that a data set names, whatever its capitals; UNKNOWN where linguist has no such name."""
    names = _tables().names
    written = _OTHER_NAMES.get(name.lower(), name).lower()
    known = names.get(written) or names.get(written.replace("-", " "))
    return Language(known, _tables().kinds[known]) if known else UNKNOWN


def _extension(filename: str) -> str | None:
    """The longest extension that linguist knows, as its tables write it."""
    extensions = _tables().extensions
    start = filename.find(".")
    while start >= 0:
        written = filename[start:]
        for extension in (written, written.lower()):
            if extension in extensions:
                return extension
        start = filename.find(".", start + 1)
    return None


def _by_head(extension: str, head: bytes) -> str | None:
    """The one of an ambiguous extension's languages that the head tells, if it tells one."""
    candidates = _tables().candidates.get(extension)
    if not candidates or not head:
        return None
    spoken = _by_shebang(head)
    return spoken if spoken in candidates else by_content(extension.lower(), head)


def _by_shebang(head: bytes) -> str | None:
    if not (match := _SHEBANG.match(head[:FIRST_LINE].decode("latin-1"))):
        return None
    program = match[1].rsplit("/", 1)[-1]
    if program == "env":
        # `env -S VARIABLE=value python3 -u`: the first word that is neither an option nor a setting.
        words = [word for word in match[2].split() if not word.startswith("-") and "=" not in word]
        program = words[0].rsplit("/", 1)[-1] if words else ""
    interpreters = _tables().interpreters
    return interpreters.get(program) or interpreters.get(_VERSION.sub("", program))


def by_content(extension: str, head: bytes) -> str | None:
    """The language of the first of linguist's rules that holds, or None where none does.

    As at linguist, a rule may name a language that doesn't list the extension: what's no manual page is text. Arrow's
    RE2 matches the rules: linear in the text, so that no hostile file holds a worker up.

    Args:
        extension: in lower case, with its dot.
        head: of the file; HEAD_BYTES of it are looked at.
    """
    content = pa.array([head[:HEAD_BYTES]], pa.binary())

    def matches(pattern: str) -> bool:
        return bool(pc.match_substring_regex(content, pattern)[0].as_py())

    for rule in _tables().rules.get(extension, ()):
        if all(map(matches, rule["match"])) and not any(map(matches, rule["absent"])):
            return next((name for name in rule["languages"] if name in _tables().kinds), None)
    return None
