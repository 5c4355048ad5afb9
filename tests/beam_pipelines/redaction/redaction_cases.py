"""Reads redaction_cases.jsonl: texts with what must be found in them marked «kind:like this».

A case has a `split`: patterns may be tuned on "dev"; "test" is only measured. The forms are those of real source, lines
drawn from Linux, Go, OpenJDK, Mono, packages of npm, Python, Ruby, Perl and Racket, manuals, linguist's samples, and
public repositories, by words wider than any pattern's (`@`, four numbers, "token", "author"); every name, address and
secret that is marked in them is invented. The sign
⁞ (U+205E) is taken out: it stands inside whatever has the form of a real token, so that no scanner of a code host takes
the file for a leak.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

from opencoder_jax.beam_pipelines.redaction.personal import KINDS, Finding, find


class Case(NamedTuple):
    """A text and what must be found in it."""

    split: str  # dev | test
    language: str
    text: str
    expected: list[Finding]


class Score(NamedTuple):
    """How often a kind was found exactly as it is marked."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong or 1)

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed or 1)


def cases() -> list[Case]:
    file = Path(__file__).with_name("redaction_cases.jsonl")
    return [parse(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def parse(split: str, language: str, marked: str) -> Case:
    text, expected = "", []
    for piece in re.split(r"(«[^»]*»)", marked.replace("⁞", "")):
        if piece.startswith("«"):
            kind, piece = piece[1:-1].split(":", 1)
            if piece:
                expected.append(Finding(len(text), len(text) + len(piece), kind))
        text += piece
    return Case(split, language, text, expected)


def wrong_cases(split: str) -> list[tuple[Case, list[Finding]]]:
    """The cases of a split that come out otherwise than marked, with what was found."""
    pairs = [(case, find(case.text, case.language)) for case in cases() if case.split == split]
    return [(case, found) for case, found in pairs if found != case.expected]


def scores(split: str) -> dict[str, Score]:
    """The score of each kind on a split of the cases."""
    counts = {kind: [0, 0, 0] for kind in KINDS}
    for case in cases():
        if case.split == split:
            found = find(case.text, case.language)
            for finding in found:
                counts[finding.kind][finding not in case.expected] += 1
            for finding in case.expected:
                counts[finding.kind][2] += finding not in found
    return {kind: Score(*numbers) for kind, numbers in counts.items()}
