"""JSON Lines as this room uses them: every mistake names its line, and a file can be appended to after a kill.

A line counts once its newline is written. What a killed run left behind the last newline is cut off when the file is
opened to be continued.
"""

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from opencoder_jax.recipe import UserError

T = TypeVar("T")


def read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) of a file, also of a .gz. Empty lines are skipped.

    Raises:
        UserError: there is no such file, it is no text, or a line is no JSON object.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _object(path, number, line)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (IsADirectoryError, UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path}: not a file of JSON lines ({error})") from None


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}, line {number}: a JSON object is wanted, this is a {type(content).__name__}")
    return content


def field(path: Path, number: int, content: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A field of a line; UserError if it is missing or of another type."""
    if name not in content:
        raise UserError(f"{path}, line {number}: the field {name!r} is missing; it has {', '.join(content) or 'none'}")
    value = content[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        wrong = type(value).__name__
        raise UserError(f"{path}, line {number}: the field {name!r} must be of type {kind.__name__}, it is {wrong}")
    return value


class Appender:
    """Appends objects to a file, each as one whole line that is on its way to the disk when `write` returns."""

    def __init__(self, path: Path):
        self._file = path.open("a+b")
        self._file.seek(0)
        whole = sum(len(line) for line in self._file if line.endswith(b"\n"))
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)

    def write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        self._file.flush()

    def __enter__(self) -> "Appender":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
