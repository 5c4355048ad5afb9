"""Which language a file of an ambiguous extension is written in, by linguist's rules about its content.

Rules are heuristics.json, which make_heuristics.py makes. Arrow's RE2 matches them: linear in the text, so that no
hostile file holds a worker up.
"""

import json
from collections.abc import Container
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

CONSIDERED_BYTES = 50 * 1024  # of a file; linguist's own limit


@cache
def _rules() -> dict[str, list[dict[str, Any]]]:
    rules: dict[str, list[dict[str, Any]]] = json.loads(
        Path(__file__).with_name("heuristics.json").read_text(encoding="utf-8")
    )["rules"]
    return rules


def by_content(extension: str, content: bytes, known: Container[str]) -> str | None:
    """The first rule's language that holds, or None where no rule does.

    As at linguist, a rule may name a language that doesn't list the extension: what's no manual page is text.

    Args:
        extension: in lower case, with its dot.
        content: the file's head; CONSIDERED_BYTES of it are looked at.
        known: the languages that may be named.
    """
    head = pa.array([content[:CONSIDERED_BYTES]], pa.binary())
    for rule in _rules().get(extension, ()):
        if all(_matches(head, pattern) for pattern in rule["match"]) and not any(
            _matches(head, pattern) for pattern in rule["absent"]
        ):
            return next((name for name in rule["languages"] if name in known), None)
    return None


def _matches(head: pa.BinaryArray, pattern: str) -> bool:
    return bool(pc.match_substring_regex(head, pattern)[0].as_py())
