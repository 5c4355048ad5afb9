"""OUT/report.html and OUT/report.md of an evaluation."""

from collections.abc import Sequence
from pathlib import Path


def write_report(output: Path, directories: Sequence[Path]) -> None:
    """Placeholder until the page is written."""
