"""No answer out of `attacks/` passes, stops the sandbox, or changes what the next one gets."""

import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opencoder_jax.evaluation.answers.syntax import bound, parse
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Candidate, Limits, Outcome

JUDGE = """
assert candidate(1) == 42
assert candidate(2) == 43
seen = candidate([1, 2], lambda x: x)
assert seen == [2, 1]
"""
HONEST = "def f(x, g=None): return x + 41 if g is None else [g(item) for item in reversed(x)]"

ATTACKS: dict[str, str] = {}  # "file: name" -> source
for _path in sorted(Path(__file__).parent.glob("attacks/*.py")):
    if _path.stem == "walls":  # programs of their own: test_attacks_on_walls.py
        continue
    _file = runpy.run_path(str(_path))
    ATTACKS |= {f"{_path.stem}: {name}": source for name, source in _file["ATTACKS"].items()}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome | BaseException]:
    """Of all attacks, run beside and behind each other; and of an honest answer that comes last."""
    limits = Limits(cpu_seconds=1, idle_seconds=1, memory_bytes=300 << 20, file_bytes=1 << 20, output_bytes=100_000)
    with Sandbox(limits, workers=2) as sandbox, ThreadPoolExecutor(2) as threads:

        def run(source: str) -> Outcome | BaseException:
            try:
                return sandbox.run(JUDGE, candidate=Candidate(source, "f"))
            except Exception as error:
                return error

        ends = dict(zip(ATTACKS, threads.map(run, ATTACKS.values()), strict=True))
        return ends | {"": run(HONEST)}


@pytest.mark.parametrize("name", ATTACKS)
def test_it_does_not_pass(outcomes: dict[str, Outcome | BaseException], name: str) -> None:
    outcome = outcomes[name]
    assert isinstance(outcome, Outcome)
    assert outcome.status not in ("ok", "sandbox_error"), outcome


def test_an_honest_answer_passes_behind_them(outcomes: dict[str, Outcome | BaseException]) -> None:
    outcome = outcomes[""]
    assert isinstance(outcome, Outcome)
    assert outcome.status == "ok", outcome


def test_no_answer_ends_the_run_before_it_is_judged() -> None:
    """What Python can still parse must not be too deep for what looks at the tree; this is in the run's own process."""
    module = parse("if 0: pass\n" + "elif 0: pass\n" * 1500 + "else: f = 1\n")
    assert module is None or list(bound(module.body[0])) == ["f"]


@pytest.mark.parametrize(
    ("judge", "source"),
    [
        ("for got in map(candidate, [1, 2]): assert got == 42", "def f(x): raise StopIteration"),
        ("assert all(map(lambda x: candidate(x) == 42, [1, 2]))", "def f(x): raise StopIteration"),
        (
            "assert candidate(1) == 10**6 and candidate(2) == 1e200",
            "import numpy\ndef f(x): return numpy.float16('inf')",
        ),
        ("assert candidate(1) == 0.1234567", "import numpy\ndef f(x): return numpy.float16(0.12345)"),
    ],
)
def test_what_equals_too_much_does_not_pass(sandbox: Sandbox, judge: str, source: str) -> None:
    assert sandbox.run(judge, candidate=Candidate(source, "f")).status != "ok"
