"""What a repository itself says of its files' languages: `linguist-language=…` in its `.gitattributes`.

The rules are git's (gitattributes(5)): a pattern without a slash is for names in this folder and below, one with a
slash for paths from this folder on; `**` crosses folders; the last line that fits decides, a deeper folder's file
before a shallower one's; `-linguist-language`, and the name of no language, leave the file to `identify`.
"""

import re
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from opencoder_jax.beam_pipelines.languages.detect import UNKNOWN, Language, by_name

NAME = ".gitattributes"
MOST_BYTES = 1 << 20
MOST_RULES = 200  # of one file; no repository has need of more, and each is tried on each path
_ATTRIBUTE = re.compile(r"(?:linguist-language(?:=(?P<language>\S+))?|[-!]linguist-language)\Z")
_WILD = re.compile(r"\*+|\?|\[[!^]?\]?[^\]/]*\]|\\.|.", re.DOTALL)


class _Rule(NamedTuple):
    pattern: str  # in RE2's words, of a path below the file's folder
    language: Language | None  # None: as if nothing were said


class Attributes:
    """The rules of the `.gitattributes` of one repository, folder by folder."""

    def __init__(self) -> None:
        self._folders: dict[str, list[_Rule]] = {}

    def add(self, path: str, content: bytes | str) -> None:
        """Takes a file in; what isn't of its form is passed over, as git does.

        Args:
            path: in the repository, with forward slashes; its folder is where the patterns begin.
        """
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        if rules := [rule for line in text.splitlines() if "linguist-language" in line for rule in _parsed(line)]:
            self._folders[path.removesuffix(NAME)] = rules[-MOST_RULES:]

    def language(self, path: str) -> Language | None:
        """The language that the repository names for a file, or None where it names none."""
        for folder in sorted(self._folders, key=len, reverse=True):
            if path.startswith(folder):
                inside = pa.array([path.removeprefix(folder)])
                for rule in reversed(self._folders[folder]):
                    if pc.match_substring_regex(inside, rule.pattern)[0].as_py():
                        return rule.language
        return None


def _parsed(line: str) -> list[_Rule]:
    """The line's rule, if it's one about a language."""
    line = line.strip()
    if line.startswith('"'):
        quoted, _, rest = line[1:].partition('" ')
        pattern, attributes = re.sub(r"\\(.)", r"\1", quoted), rest.split()
    else:
        pattern, *attributes = line.split()
    # Comments, macros and what git refuses in this file; a folder's name says nothing of what is in it.
    if pattern.startswith(("#", "!", "[attr]")) or pattern.endswith("/"):
        return []
    said = [match for match in map(_ATTRIBUTE.match, attributes) if match]
    if not said:
        return []
    language = by_name(said[-1]["language"] or "")
    return [_Rule(_expression(pattern), None if language is UNKNOWN else language)]


def _expression(pattern: str) -> str:
    """A pattern of git's in RE2's words: linear in the path, whatever the pattern."""
    *folders, name = pattern.removeprefix("/").split("/")
    if "/" not in pattern:
        start = r"(?:\A|/)"
    else:
        start = r"\A" + "".join("(?:.*/)?" if folder == "**" else _segment(folder) + "/" for folder in folders)
    return "(?s)" + start + (".*" if name == "**" and "/" in pattern else _segment(name)) + r"\z"


def _segment(pattern: str) -> str:
    return "".join(map(_piece, _WILD.findall(pattern)))


def _piece(wild: str) -> str:
    if wild[0] == "*":
        return "[^/]*"
    if wild == "?":
        return "[^/]"
    if wild[0] != "[" or len(wild) < 3:
        return re.escape(wild[-1])
    inside, negated = (wild[2:-1], "^/") if wild[1] in "!^" else (wild[1:-1], "")
    ends = [(piece[0], piece[-1]) for piece in re.findall(r".-.|.", inside.replace("\\", ""), re.DOTALL)]
    # A range that runs backwards holds nothing; RE2 would refuse it.
    letters = "".join(f"{re.escape(first)}-{re.escape(last)}" for first, last in ends if first <= last)
    return f"[{negated}{letters}]" if negated or letters else r"[^\x00-\x{10FFFF}]"
