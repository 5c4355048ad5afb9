"""Files on this machine that are whole or not there, and JSON lines whose every mistake names its line.

What is replaced is written under a temporary name and renamed. A file of JSON lines can be appended to after a kill: a
line counts once its newline is written, and what a killed run left behind the last newline is cut off when the file is
opened to be continued. (Directories of stages, which may lie in a bucket: beam_pipelines/core/storage.py.)
"""

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from opencoder_jax.recipe import UserError

T = TypeVar("T")
WRITING = ".writing"  # what a temporary name ends in


def need_directory(path: Path, holds: str) -> None:
    """Raises UserError unless `path` is a directory; `holds` says what it should hold."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise UserError(f"{path}: an address, and only disks are read here; mount it (gcsfuse) or copy it to a disk")
    if not path.is_dir():
        problem = "not a directory" if path.exists() else "no such directory"
        raise UserError(f"{path}: {problem}; name one that holds {holds}")


def read_at(file: int, start: int, stop: int) -> bytes:
    """Bytes of an open file; fewer only where it ends. One read may give fewer anywhere, over a network for one."""
    content = os.pread(file, stop - start, start)
    while len(content) < stop - start and (more := os.pread(file, stop - start - len(content), start + len(content))):
        content += more
    return content


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + WRITING)
    temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(temporary, path)


def write_json(path: Path, value: object) -> None:
    """Sorted and indented, so that equal values are equal bytes; whole or not at all."""
    write_whole(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a file of JSON lines, whole or not at all."""
    write_whole(path, b"".join(map(_line, rows)))


def _line(content: Mapping[str, Any]) -> bytes:
    """As people read it; half a surrogate pair, which UTF-8 has no bytes for, stays an escape."""
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def read_json(path: Path, missing: Any = None) -> Any:
    """The value of a JSON file, or `missing` where there is none.

    Raises:
        UserError: the file isn't JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return missing
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); it was damaged after it was written") from None


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) of a file of JSON lines, also of a .gz or .zst. Empty lines are skipped.

    Raises:
        UserError: there is no such file, it can't be unpacked, or a line is no JSON object.
    """
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, parse_line(f"{path}, line {number}", line)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (IsADirectoryError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a file of JSON lines ({error})") from None


def _open(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, unpacked. Raises EOFError, too, for a damaged .zst."""
    if path.suffix == ".zst" and path.is_file():
        import pyarrow  # few files need it

        try:
            return io.BytesIO(pyarrow.input_stream(str(path), compression="zstd").read())
        except OSError as error:
            raise EOFError(error) from None
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def parse_line(place: str, line: str | bytes) -> dict[str, Any]:
    """The object of a line. Raises UserError, which names `place`, for what is no JSON object."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{place}: a JSON object is wanted, this is a {type(content).__name__}")
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
        self._file.write(_line(content))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()
