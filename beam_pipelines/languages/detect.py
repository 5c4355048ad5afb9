"""The language of a file, by GitHub linguist's tables: its modeline, its name, its first line, its content.

OpenCoder keeps the files whose extension linguist knows, less a list of types of low quality, and calls each code, data
or text (paper section 2.1.1 and the released type map). make_tables.py makes the tables from linguist's data:
languages.json, and heuristics.json with its rules about the content and ours (content_rules.json), which stand for the
classifier that linguist asks last. language_choices.json says which language was chosen where linguist lists several
for an extension and nothing in the file tells. attributes.py reads what a repository itself says of its files.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

HEAD_BYTES = 50 * 1024  # of a file that `identify` may look at; linguist's own limit
FIRST_LINE = 256  # bytes at the start that may hold a shebang


class Language(NamedTuple):
    """What a file is written in."""

    name: str  # linguist's name, or "unknown"
    kind: str  # code | data | text | excluded | unknown


UNKNOWN = Language("unknown", "unknown")

_SHEBANG = re.compile(r"#!\s*(\S+)[ \t]*(.*)")
_VERSION = re.compile(r"[-\d.]+$")
_EXEC = re.compile(r"""^\s*exec\s+(\w+)[\s"']+\$0[\s"']+\$@""", re.MULTILINE)  # a script that hands itself on: Scala


class _Tables(NamedTuple):
    kinds: dict[str, str]
    names: dict[str, str]  # in lower case -> as linguist writes them
    filenames: dict[str, str]
    extensions: dict[str, str]
    candidates: dict[str, list[str]]  # the languages of an ambiguous extension
    aliases: dict[str, str]  # in lower case -> the name
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
        table["kinds"],
        names,
        table["filenames"],
        extensions,
        table["candidates"],
        table["aliases"],
        table["interpreters"],
        rules,
    )


def identify(path: str, head: bytes = b"") -> Language:
    """The language of a file from its path and the head of its content (HEAD_BYTES are enough).

    A modeline of Emacs or Vim decides, but where the path alone excludes the file. Then a file name that linguist knows
    (Makefile, CMakeLists.txt). Then the extension, the longest first (.blade.php before .php), as written and then in
    lower case; where several languages share it, a shebang that names one of them decides, then rules about the
    content. Last, the shebang alone. It never fails: what nothing tells is UNKNOWN.
    """
    tables = _tables()
    filename = path.rsplit("/", 1)[-1]
    known = tables.filenames.get(filename)
    key = filename if known else _extension(filename) or ""
    name = known or tables.extensions.get(key)
    if name and _decides(key) and tables.kinds[name] == "excluded":
        return Language(name, "excluded")
    name = _by_modeline(head) or (_by_head(key, head) or name if name else _by_shebang(head))
    return Language(name, tables.kinds[name]) if name else UNKNOWN


def path_decides(path: str) -> bool:
    """Whether no content but a modeline would make `identify` answer otherwise; of an excluded file, none at all."""
    filename = path.rsplit("/", 1)[-1]
    key = filename if filename in _tables().filenames else _extension(filename)
    return key is not None and _decides(key)


def _decides(key: str) -> bool:
    """Whether an extension or a file name is of one language only."""
    return key not in _tables().candidates and key not in _tables().rules


_OTHER_NAMES = {"c-sharp": "c#"}  # of OpenCoder's release, which linguist doesn't know


def by_name(name: str) -> Language:
    """The language that a data set or a modeline names, whatever its capitals; UNKNOWN where linguist knows none."""
    tables, written = _tables(), _OTHER_NAMES.get(name.lower(), name.lower())
    known = tables.names.get(written) or tables.aliases.get(written) or tables.names.get(written.replace("-", " "))
    return Language(known, tables.kinds[known]) if known else UNKNOWN


def _extension(filename: str) -> str | None:
    """The longest extension that linguist knows, as its tables write it.

    In a name without small letters the extension's capitals mean nothing: DOS wrote 2D.C where Unix writes 2d.c.
    """
    extensions = _tables().extensions
    start = filename.find(".")
    while start >= 0:
        written = filename[start:] if filename != filename.upper() else filename[start:].lower()
        for extension in (written, written.lower()):
            if extension in extensions:
                return extension
        start = filename.find(".", start + 1)
    return None


def _by_head(key: str, head: bytes) -> str | None:
    """The one of the languages of an ambiguous extension or file name that the head tells, if it tells one."""
    if not head or _decides(key):
        return None
    spoken = _by_shebang(head)
    return spoken if spoken in _tables().candidates.get(key, ()) else by_content(key.lower(), head)


_EMACS = re.compile(rb"-\*-(.{1,500}?)-\*-")
_VIM = re.compile(rb"(?:(?:^|[ \t])(?:vi|[vV]im(?:[<=>]?[0-9]+)?)|[ \t]ex):(.{1,500})")
_VIM_SET = re.compile(rb"[ \t]*set?[ \t]([^:]*)")
_FILETYPE = re.compile(rb"[ \t:](?:filetype|ft|syntax)[ \t]*=([\w+#-]+)(?=$|[\s:])")


def _by_modeline(head: bytes) -> str | None:
    """The language that Emacs or Vim is told, in the first five lines or the last five of a file that fits the head."""
    if b"-*-" not in head and not (b"ft=" in head or b"filetype" in head or b"syntax" in head or b"ft =" in head):
        return None
    lines = head.split(b"\n", 5)[:5]
    if any(b"UseVimball" in line for line in lines):
        return None  # an archive of files that may each have one
    if len(head) < HEAD_BYTES:
        lines += head.rstrip().rsplit(b"\n", 5)[-5:]
    modes = [mode for line in lines for mode in (_emacs_mode(line), _vim_filetype(line)) if mode]
    for mode in modes:
        if (language := by_name(mode.decode("latin-1"))) is not UNKNOWN:
            return language.name
    return None


def _emacs_mode(line: bytes) -> bytes:
    """`-*- ruby -*-`, or `-*- mode: ruby; other: things -*-`."""
    if not (match := _EMACS.search(line)):
        return b""
    if b":" not in match[1]:
        return match[1].strip(b" \t;")
    settings = (setting.partition(b":") for setting in match[1].split(b";"))
    return next((value.strip() for name, _, value in settings if name.strip().lower() == b"mode"), b"")


def _vim_filetype(line: bytes) -> bytes:
    r"""`vim: ft=sh ts=4`, or `vi: set ft=sh ts=4 :` (with its closing colon); a backslash escapes what follows it."""
    if not (match := _VIM.search(line)):
        return b""
    options = re.sub(rb"\\.", b"_", match[1].rstrip())
    if setting := _VIM_SET.match(options):
        if not options.startswith(b":", setting.end()):
            return b""
        options = setting[1]
    filetypes = _FILETYPE.findall(b":" + options)
    return filetypes[-1] if filetypes else b""


def _by_shebang(head: bytes) -> str | None:
    if not (match := _SHEBANG.match(head[:FIRST_LINE].decode("latin-1"))):
        return None
    program = match[1].rsplit("/", 1)[-1]
    if program == "env":
        # `env -S VARIABLE=value python3 -u`: the first word that is neither an option nor a setting.
        words = [word for word in match[2].split() if not word.startswith("-") and "=" not in word]
        program = words[0].rsplit("/", 1)[-1] if words else ""
    if program == "sh" and (again := _EXEC.search(head[:FIRST_LINE].decode("latin-1"))):
        program = again[1]
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
