"""Directories on any file system that Arrow knows: local, gs://, s3://.

Stages name files only within their own input and output directories, so one small class is all that they need. A file
appears whole or not at all: on a disk it's written under a temporary name and renamed, to a bucket it's sent in one
upload (stores/systems.py).
"""

import json
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash
from pyarrow import fs

from opencoder_jax.beam_pipelines.core.stores.systems import (
    fetched,
    is_disk,
    located,
    look_below,
    look_up,
    naming,
    read,
    sent,
)
from opencoder_jax.files import WRITING
from opencoder_jax.recipe import UserError


@dataclass(frozen=True)
class Directory:
    """A directory by its path or URI. Only names travel to workers, so it can be pickled."""

    uri: str

    def _place(self, name: str = "") -> tuple[fs.FileSystem, str]:
        system, root = located(self.uri)
        return system, f"{root}/{name}" if name else root

    def local(self) -> Path | None:
        """Where it lies on a disk of this machine; None for a bucket."""
        system, root = self._place()
        return Path(root) if is_disk(system) else None

    def same_as(self, other: "Directory") -> bool:
        """Whether both name one directory."""
        return self._resolved() == other._resolved()

    def _resolved(self) -> str:
        return self.uri.rstrip("/") if "://" in self.uri else str(Path(self.uri).resolve())

    def child(self, name: str) -> "Directory":
        return Directory(f"{self.uri.rstrip('/')}/{name}")

    def exists(self, name: str = "") -> bool:
        system, path = self._place(name)
        return look_up(system, path).type != fs.FileType.NotFound

    def size(self, name: str) -> int:
        """Bytes of a file."""
        system, path = self._place(name)
        return int(look_up(system, path).size or 0)

    def changed(self, name: str) -> int:
        """When a file changed last, in nanoseconds since 1970; 0 where its file system doesn't say."""
        system, path = self._place(name)
        return int(look_up(system, path).mtime_ns or 0)

    def names(self) -> list[str]:
        """The names of the files in it, sorted; none where the directory is missing."""
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        """The bytes of each file in it, by name; none where the directory is missing."""
        system, root = self._place()
        found = look_below(system, root)
        return {info.base_name: int(info.size or 0) for info in found if info.type == fs.FileType.File}

    def tree(self) -> list[str]:
        """The paths of the files in it and in its folders, sorted; hidden ones, as of caches, are left out."""
        system, root = self._place()
        found = look_below(system, root, recursive=True)
        files = (info.path.removeprefix(root).lstrip("/") for info in found if info.type == fs.FileType.File)
        return sorted(path for path in files if not any(part.startswith(".") for part in path.split("/")))

    def read(self, name: str) -> pa.NativeFile:
        """Opens a file for reading; raises FileNotFoundError. Of a bucket each read is a request."""
        return read(*self._place(name))

    def fetch(self, name: str) -> pa.NativeFile:
        """Opens a file that will be read as a whole, or back and forth; raises FileNotFoundError."""
        return fetched(*self._place(name))

    @contextmanager
    def atomic(self, name: str) -> Iterator[pa.NativeFile]:
        """A stream whose file gets its name only when everything was written.

        Raises:
            OSError: naming the file; nothing is left of it.
        """
        system, path = self._place(name)
        if not is_disk(system):
            with sent(system, path) as stream:
                yield stream
            return
        # Each attempt at a file has a name of its own: a retried or orphaned one can't mix with another's.
        temporary = f"{path}.{secrets.token_hex(8)}{WRITING}"
        try:
            with naming(path):
                system.create_dir(path.rsplit("/", 1)[0], recursive=True)
                with system.open_output_stream(temporary) as stream:
                    yield stream
        except BaseException:
            if look_up(system, temporary).type == fs.FileType.File:
                system.delete_file(temporary)
            raise
        system.move(temporary, path)

    def write_bytes(self, name: str, data: bytes) -> None:
        with self.atomic(name) as stream:
            stream.write(data)

    def read_bytes(self, name: str) -> bytes:
        with self.read(name) as stream:
            return stream.read()

    def write_json(self, name: str, value: Any) -> None:
        """Sorted and indented, so that equal values are equal bytes."""
        self.write_bytes(name, _json(value))

    def read_json(self, name: str) -> Any:
        """Raises UserError for a file that isn't JSON."""
        return self._parsed(name, self.read_bytes(name))

    def _parsed(self, name: str, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.uri}/{name}: not JSON ({error}); delete the directory and run again") from None

    def write_sealed(self, name: str, value: Mapping[str, Any]) -> None:
        """As `write_json`, with a digest of the rest in its field `seal`."""
        self.write_bytes(name, _sealed(value))

    def read_sealed(self, name: str) -> Any:
        """What `write_sealed` wrote, without the seal; JSON that has none, as of older versions, as it is.

        Raises:
            UserError: some bit isn't as it was written.
        """
        content = self.read_bytes(name)
        value = self._parsed(name, content)
        if not isinstance(value, dict) or "seal" not in value:
            return value
        # The seal is of bytes, for there are several ways to write a number or a letter.
        if value.pop("seal") != xxhash.xxh3_128_hexdigest(_without_seal(content)):
            raise UserError(
                f"{self.uri}/{name}: damaged after it was written; delete the directory and run the command that "
                "wrote it again"
            )
        return value

    def remove(self, name: str) -> None:
        system, path = self._place(name)
        if look_up(system, path).type == fs.FileType.File:
            system.delete_file(path)

    def clear(self) -> None:
        """Deletes everything in it, and makes it if it's missing."""
        system, path = self._place()
        system.create_dir(path, recursive=True)
        system.delete_dir_contents(path)

    @contextmanager
    def scratch(self, name: str) -> Iterator["Directory"]:
        """An empty folder on this machine while the block lasts: in the directory, where that's on a disk."""
        if self.local() is None:
            with tempfile.TemporaryDirectory() as folder:
                yield Directory(folder)
            return
        inside = self.child(name)
        inside.remove_tree()  # of a run that was killed
        try:
            yield inside
        finally:
            inside.remove_tree()

    def remove_tree(self) -> None:
        system, path = self._place()
        if look_up(system, path).type == fs.FileType.Directory:
            with suppress(FileNotFoundError):  # once its files are gone, a folder of a bucket may be, too
                system.delete_dir(path)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


_SEAL = re.compile(rb'\n "seal": "[0-9a-f]{32}"(,?)')  # a line break within a string would be an escape


def _sealed(value: Mapping[str, Any]) -> bytes:
    """JSON with a digest of what it is without it."""
    content = _json({**value, "seal": "0" * 32})
    seal = xxhash.xxh3_128_hexdigest(_without_seal(content)).encode()
    return _SEAL.sub(lambda found: found[0].replace(b"0" * 32, seal), content)


def _without_seal(content: bytes) -> bytes:
    """What `_json` makes of a sealed value without the seal."""
    found = _SEAL.search(content)
    if found is None:
        return content
    before, after = content[: found.start()], content[found.end() :]
    return before + after if found[1] else before.removesuffix(b",") + (b"}\n" if before == b"{" else after)
