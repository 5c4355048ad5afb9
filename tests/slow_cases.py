"""Cases of a test that `make test` leaves out."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(cases: Iterable[str], *quick: str) -> list[Any]:
    """Cases by their names for `parametrize`, all but the quick ones behind the marker `slow`."""
    cases = list(cases)
    assert set(quick) <= set(cases)
    return [pytest.param(case, id=case, marks=() if case in quick else pytest.mark.slow) for case in cases]
