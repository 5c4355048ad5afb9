"""BigCodeBench, complete and instruct, full and hard: unit tests that replace parts of libraries while they run.

Those can't be run from another process than the answer's, so an answer is judged as a program with its tests behind it.
"""

from collections.abc import Iterable
from typing import Any, Literal

from opencoder_jax.benchmarks.programs import ProgramProblem

Row = dict[str, Any]

_END = """
import unittest as _unittest
_result = _unittest.TextTestRunner(verbosity=0).run(_unittest.defaultTestLoader.loadTestsFromTestCase(TestCases))
assert _result.testsRun > 0 and _result.wasSuccessful(), "tests failed"
"""


def problems(rows: Iterable[Row], split: Literal["complete", "instruct"]) -> list[ProgramProblem]:
    """All tasks of a file; the hard ones are a file of their own."""
    return [
        ProgramProblem(
            row["task_id"],
            row[f"{split}_prompt"],
            row["code_prompt"] + row["canonical_solution"],
            tests=row["test"] + _END,
        )
        for row in rows
    ]


def calibrated(row: Row, program: str) -> str:
    """An answer behind the imports and the signature of its task, as the published scores have it."""
    return f"{row['code_prompt']}\n    pass\n{program}"
