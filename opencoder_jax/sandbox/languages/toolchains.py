"""Which languages this machine can run, and with what: programs that are trusted, and run here outside of any jail."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from opencoder_jax.machine import user_cache
from opencoder_jax.sandbox.languages.row import LanguageRow, Line
from opencoder_jax.sandbox.languages.table import LANGUAGES

_PATIENCE = 60  # seconds for a version, a thousand times what most take
_LONG_PATIENCE = 600  # to prepare something
_NUMBER = re.compile(r"\d+(\.\d+)*[\w.+-]*")


class ToolchainError(RuntimeError):
    """This machine cannot run a language; the message says what it lacks."""


@dataclass(frozen=True)
class Toolchain:
    """What runs a language here.

    Attributes:
        version: the first line of what its compiler or interpreter says of itself.
        path: the directories of its programs.
        root: the toolchain's own directory, where the row asks for it.
    """

    language: LanguageRow
    version: str
    path: tuple[str, ...]
    root: str = ""

    def environment(self) -> dict[str, str]:
        own = {name: value.replace("{root}", self.root) for name, value in self.language.environment.items()}
        path = ":".join(dict.fromkeys((*self.path, "/usr/bin", "/bin")))
        return {"PATH": path, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"} | own

    def reads(self) -> tuple[str, ...]:
        """What its programs may read and execute outside /usr."""
        homes = [self.root] if self.root else []
        homes += [str(Path(place).parent) for place in self.path]  # PREFIX/bin: its libraries lie in PREFIX too
        found = (*self.language.reads, *homes, *([str(self.cache())] if self.language.prepare else []))
        return tuple(dict.fromkeys(path for path in found if not Path(path).is_relative_to("/usr") and path != "/"))

    def line(self, words: Line, main: str, memory: int) -> Line:
        """A command line of the row, with its words in place."""
        own = {"root": self.root, "main": main, "memory": str(memory >> 20)}
        if self.language.prepare:
            own["cache"] = str(self.cache())
        return tuple(re.sub(r"(?<!\{)\{(\w+)\}(?!\})", lambda found: own[found[1]], word) for word in words)

    def cache(self) -> Path:
        """The directory of what it prepares; another for another version or row."""
        row = self.language
        key = hashlib.sha256(repr((self.version, self.root, row.prepare, sorted(row.prepared.items()))).encode())
        return user_cache("toolchains") / f"{re.sub('[^a-z]', '_', row.name.lower())}-{key.hexdigest()[:16]}"

    def prepare(self) -> None:
        """Makes what all programs use, unless it is there. Several processes may ask at once: one does it.

        Raises:
            ToolchainError: a command failed.
        """
        if not self.language.prepare:
            return
        folder = self.cache()
        done = folder / "done"
        if done.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if done.exists():
                return
            for name, text in self.language.prepared.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
            for words in self.language.prepare:
                line = self.line(words, "", 0)
                try:
                    # Flags of the user's own would make a Go or a C++ that differs from the recorded one.
                    environment = os.environ | self.environment()
                    _run(line, environment, _LONG_PATIENCE, folder)
                except (OSError, subprocess.SubprocessError) as error:
                    said = getattr(error, "stderr", "") or error
                    raise ToolchainError(f"{self.language.name}: {' '.join(line)[:200]}: {said}") from None
            done.touch()


@cache
def find(name: str) -> Toolchain:
    """The toolchain of a language.

    Raises:
        ToolchainError: there is no such row, or this machine has not what it names.
    """
    if name not in LANGUAGES:
        raise ToolchainError(f"{name} is no row of the table of languages; they are {', '.join(LANGUAGES)}")
    language = LANGUAGES[name]
    places = os.pathsep.join([os.environ.get("PATH", ""), *map(os.path.expanduser, language.places)])
    found = {tool: shutil.which(tool, path=places) for tool in (language.version[0], *language.needs)}
    if lacking := [tool for tool, path in found.items() if path is None]:
        raise ToolchainError(f"{name}: {', '.join(lacking)} not found; {language.install} brings it")
    path = tuple(dict.fromkeys(os.path.dirname(os.path.abspath(place)) for place in found.values() if place))
    environment = os.environ | {"PATH": os.pathsep.join([*path, places]), "LC_ALL": "C.UTF-8"}
    root = _said(language.root, environment).strip() if language.root else ""
    if root and os.path.isdir(os.path.join(root, "bin")):
        path = (os.path.join(root, "bin"), *path)
    # Where the PATH has links to what lies elsewhere, that is what must be readable.
    real = (os.path.dirname(os.path.realpath(place)) for place in found.values() if place)
    said = _said(language.version, environment).strip().splitlines()
    version = next((line.strip() for line in said if _NUMBER.search(line)), "")
    return Toolchain(language, version, (*path, *(place for place in real if place not in path)), root)


def found() -> Iterator[tuple[str, Toolchain | str]]:
    """Every row of the table with its toolchain, or what is missing."""

    def ask(name: str) -> Toolchain | str:
        try:
            return find(name)
        except ToolchainError as error:
            return str(error)

    with ThreadPoolExecutor(4) as threads:
        yield from zip(LANGUAGES, threads.map(ask, LANGUAGES), strict=True)


def _said(line: Line, environment: dict[str, str]) -> str:
    try:
        done = _run(line, environment, _PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(f"{' '.join(line)}: {error}; {getattr(error, 'stderr', '')}") from None
    return done.stdout or done.stderr


def _run(
    line: Line, environment: dict[str, str], patience: int, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line,
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=patience,
        env=environment,
        cwd=folder,
    )
