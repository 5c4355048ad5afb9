"""Thresholds are data: a profile is a folder of TOML files, one for each table of rules.

    [[rules]]
    signal = "qsc_code_num_lines"    fires where the signal is
    below = 10                       smaller than this,
    above = 100000                   or larger than this (`equal` for a category),
    spare = 0.2                      except for this share of the documents, chosen by hash

A table may extend another: its rules replace those on the same signal, and `without` names signals whose rules it
leaves out. The profile "opencoder" holds the published values (opc_data_filtering, pipeline/code_filter_config.py).
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_jax.recipe import UserError

PROFILES = Path(__file__).with_name("thresholds")

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


def table_of(kind: str, language: str, tables: dict[str, list[Rule]]) -> str:
    """The table that a document is judged by, of those that the profile has."""
    if kind in ("text", "web"):
        return "text"
    own = LANGUAGE_TABLES.get(language, "")
    return own if own in tables else "data" if kind == "data" else "others"


def load_profile(profile: str, signals: set[str]) -> dict[str, list[Rule]]:
    """The rules of every table of a profile: one of ours by its name, or a folder by its path.

    Raises:
        UserError: the profile or a table is missing, a file is no TOML, or a rule names no signal or no bound.
    """
    folder = PROFILES / profile if (PROFILES / profile).is_dir() else Path(profile)
    files = {file.stem: file for file in sorted(folder.glob("*.toml"))}
    for needed in ("others", "data", "text"):
        if needed not in files:
            known = ", ".join(sorted(path.name for path in PROFILES.iterdir()))
            raise UserError(f"profile {profile}: no {folder / needed}.toml; known profiles: {known}, or give a folder")
    return {name: list(_table(name, files, signals).values()) for name in files}


def _table(name: str, files: dict[str, Path], signals: set[str], inside: tuple[str, ...] = ()) -> dict[str, Rule]:
    file = files[name]
    try:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        own = [Rule(**rule) for rule in content.get("rules", [])]
    except (tomllib.TOMLDecodeError, ValueError, TypeError) as error:
        raise UserError(f"{file}: {error}") from None
    parent = content.get("extends")
    if parent is not None and (parent not in files or parent in (*inside, name)):
        raise UserError(f"{file}: extends {parent!r}, which is no other table of this profile")
    rules = _table(parent, files, signals, (*inside, name)) if parent else {}
    for missing in [*content.get("without", []), *(rule.signal for rule in own)]:
        if missing not in signals:
            raise UserError(f"{file}: {missing} is no signal; see beam_pipelines/code/signals.py")
    rules = {signal: rule for signal, rule in rules.items() if signal not in content.get("without", [])}
    return rules | {rule.signal: rule for rule in own}
