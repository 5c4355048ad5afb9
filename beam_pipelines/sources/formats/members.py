"""What an archive of any format holds: members, each read or refused on its own.

A format's reader yields a `Member` for each thing that it finds, what it can't make sense of among them: such a member
raises when it's read. So one bad member costs itself, and who reads counts everything that there is.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

SKIPPED_FOLDERS = (".git", ".hg", ".svn", "node_modules")  # they hold no source
LATEST = 2**32  # seconds since 1970 beyond which a time is nonsense: the year 2106


Row = dict[str, Any]


class Late(NamedTuple):
    """A row that is made at once, before the reader goes on: if that fails, it alone is lost (units.py)."""

    path: str
    make: Callable[[], Row]
    size: int = 0  # of the content, in bytes


class Unit(NamedTuple):
    """A file or repository of the input.

    Attributes:
        directory: that holds it.
        name: in that directory, or in a folder of it, with forward slashes.
        size: in bytes.
        state: what else tells whether it changed: a digest of its content, a commit.
        reason: why it's dropped, if no reader is for it.
        label: what its documents call it, if that isn't its name.
    """

    directory: str
    name: str
    size: int
    state: str = ""
    reason: str = ""
    label: str = ""


class Damaged(Exception):
    """Something isn't as its writer should have written it; the message says what and where."""


class Untrusted(Damaged):
    """The same, where what was read before it may be wrong too: a checksum over all of it fails."""


class Member(NamedTuple):
    """A file in an archive."""

    name: str  # as the archive has it, without halves of characters
    size: int  # that the archive claims, in bytes
    time: int  # seconds since 1970; 0 where it's unknown
    reason: str  # why it's dropped unread, if it is
    # Its first bytes, as many as are asked for; at once, before the next member. Raises Damaged or Untrusted.
    read: Callable[[int], bytes]


def broken(where: str, what: str, size: int = 0) -> Member:
    """Stands for what can't be read: reading it raises Damaged."""

    def read(_: int) -> NoReturn:
        raise Damaged(what)

    return Member(where, size, 0, "", read)


def seconds(time: float) -> int:
    """A time as whole seconds since 1970; 0 for one before that, after 2106, or none (nan)."""
    return int(time) if math.isfinite(time) and 0 <= time < LATEST else 0


def printable(name: bytes) -> str:
    """A name as text; bytes that are no UTF-8 are written as escapes."""
    return name.decode("utf-8", "backslashreplace")


def unsafe(name: str) -> bool:
    """Whether a name is no path inside an archive, but leads out of it or to a device."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or "\0" in name or ":" in parts[0]


def is_unicode(text: str) -> bool:
    """Whether a text can be written in UTF-8: it holds no half of a character, as JSON may."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
