"""Thresholds are data: a profile is a folder of TOML files, one for each table of rules.

    [[rules]]
    signal = "qsc_code_num_lines"    fires where the signal is
    below = 10                       smaller than this,
    above = 100000                   or larger than this (`equal` for a category),
    spare = 0.2                      except for this share of the documents, chosen by hash

`profile.toml` is the head: which definitions of the signals the thresholds were made for, and, with `extends`, the
profile that this one derives from. That one's tables hold where this folder has none of that name; one that it has adds
to the table of the same name: its rules replace those on the same signal, and `without` names signals whose rules it
leaves out. `extends = "others"` in a table adds to that table instead, `extends = "reference/python"` to one of that
profile, and `extends = ""` to none. The names in a file mean the tables of the profile that is loaded.

"reference" holds the published values (opc_data_filtering, pipeline/code_filter_config.py); "fixed" derives from it.
"""

import tomllib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_jax.recipe import UserError

PROFILES = Path(__file__).with_name("thresholds")
HEAD = "profile.toml"

# The table of a document of code or data by its language; other code has "others", other data "data", text "text".
LANGUAGE_TABLES = {
    "Python": "python",
    "C": "c",
    "C++": "cpp",
    "C#": "csharp",
    "Go": "go",
    "HTML": "html",
    "Java": "java",
    "JavaScript": "javascript",
    "Shell": "shell",
    "SQL": "sql",
}


@dataclass(frozen=True)
class Rule:
    """Fires where a signal is out of bounds; see the module."""

    signal: str
    below: float | None = None
    above: float | None = None
    equal: float | None = None
    spare: float = 0.0

    def __post_init__(self) -> None:
        if (self.below, self.above, self.equal) == (None, None, None):
            raise ValueError(f"rule on {self.signal}: give below, above or equal")
        if not 0 <= self.spare < 1:
            raise ValueError(f"rule on {self.signal}: spare={self.spare} must be at least 0 and less than 1")

    def fires(self, values: np.ndarray) -> np.ndarray:
        """Where the rule fires, bool [rows]; values float64 [rows], NaN where the signal is null."""
        hit = np.zeros(len(values), bool)
        if self.below is not None:
            hit |= values < self.below
        if self.above is not None:
            hit |= values > self.above
        if self.equal is not None:
            hit |= values == self.equal
        return hit

    def __str__(self) -> str:
        bounds = [("<", self.below), (">", self.above), ("=", self.equal)]
        return f"{self.signal} " + " or ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


def table_of(kind: str, language: str, tables: Container[str], natural_language: str = "") -> str:
    """The table that a document is judged by, of those that the profile has."""
    if kind in ("text", "web"):
        own = f"text_{natural_language}"
        return own if own in tables else "text"
    own = LANGUAGE_TABLES.get(language, "")
    return own if own in tables else "data" if kind == "data" else "others"


def load_profile(profile: str, signals: set[str]) -> dict[str, list[Rule]]:
    """The rules of every table of a profile: one of ours by its name, or a folder by its path.

    Raises:
        UserError: the profile or a table is missing, a file is no TOML, or a rule names no signal or no bound.
    """
    folders = _folders(profile)
    files = {file.stem: file for folder in reversed(folders) for file in sorted(folder.glob("*.toml"))}
    files.pop(HEAD.removesuffix(".toml"), None)
    for needed in ("others", "data", "text"):
        if needed not in files:
            missing = folders[0] / f"{needed}.toml"
            raise UserError(f"profile {profile}: no {missing}; known profiles: {_known()}, or give a folder")
    tables = sorted(files)
    for folder in folders[1:]:
        files |= {f"{folder.name}/{file.stem}": file for file in folder.glob("*.toml")}
    return {name: list(_table(name, files, folders, signals).values()) for name in tables}


def required_definitions(profile: str) -> str:
    """The definitions of the signals that a profile's thresholds were made for."""
    head = next((head for folder in _folders(profile) if (head := _toml(folder / HEAD)).get("definitions")), {})
    return str(head.get("definitions", "fixed"))


def _folders(profile: str, inside: tuple[Path, ...] = ()) -> list[Path]:
    """The folder of a profile, then those that it derives from."""
    folder = PROFILES / profile if (PROFILES / profile).is_dir() else Path(profile)
    if folder in inside:
        raise UserError(f"{folder / HEAD}: extends itself")
    parent = _toml(folder / HEAD).get("extends")
    if parent is None:
        return [folder]
    if not (PROFILES / parent).is_dir() and not Path(parent).is_dir():
        raise UserError(f"{folder / HEAD}: extends {parent!r}, which is no profile; known profiles: {_known()}")
    return [folder, *_folders(parent, (*inside, folder))]


def _known() -> str:
    return ", ".join(sorted(path.name for path in PROFILES.iterdir() if path.is_dir()))


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {error}") from None


def _table(
    name: str, files: dict[str, Path], folders: list[Path], signals: set[str], inside: tuple[Path, ...] = ()
) -> dict[str, Rule]:
    file = files[name]
    content = _toml(file)
    try:
        own = [Rule(**rule) for rule in content.get("rules", [])]
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: {error}") from None
    older = folders[folders.index(file.parent) + 1 :]
    derived = (f"{folder.name}/{file.stem}" for folder in older if (folder / file.name).exists())
    parent = content.get("extends", next(derived, ""))
    if parent and (parent not in files or files[parent] in (*inside, file)):
        raise UserError(f"{file}: extends {parent!r}, which is no other table of this profile")
    rules = _table(parent, files, folders, signals, (*inside, file)) if parent else {}
    for missing in [*content.get("without", []), *(rule.signal for rule in own)]:
        if missing not in signals:
            raise UserError(f"{file}: {missing} is no signal; see beam_pipelines/signals")
    rules = {signal: rule for signal, rule in rules.items() if signal not in content.get("without", [])}
    return rules | {rule.signal: rule for rule in own}
