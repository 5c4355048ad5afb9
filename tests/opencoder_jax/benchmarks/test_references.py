"""Published references pass, and what is a little wrong is told from them as the benchmark's own tests tell it.

They need the published files: the folder is named by BENCHMARKS, and tests skip without it.
"""

import ast
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opencoder_jax.benchmarks import judging
from opencoder_jax.benchmarks.differential import functions
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.programs import ProgramProblem
from opencoder_jax.benchmarks.readers import apps, polyglot
from opencoder_jax.benchmarks.readers.table import Loaded, load
from opencoder_jax.recipe import UserError
from opencoder_jax.sandbox.languages.polyglot import Polyglot
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits, Program

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))

pytestmark = pytest.mark.slow


def loaded(name: str, count: int) -> Loaded:
    try:
        found = load(name, FOLDER)
    except UserError as error:
        pytest.skip(str(error))
    assert len(found.problems) == count
    assert found.edition != "unknown"
    return found


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(cpu_seconds=20, idle_seconds=20, memory_bytes=4 << 30), workers=2) as sandbox:
        yield sandbox


def failing(sandbox: Sandbox, problems: Sequence[FunctionProblem | ProgramProblem], head: str = "") -> list[str]:
    """The problems whose own reference does not pass."""
    called = [problem for problem in problems if isinstance(problem, FunctionProblem)]
    programs = (judging.call(each, head + whole(each)) for each in called)
    failed = [f"{called[at].task_id}: {end}" for at, end in sandbox.map(programs) if end.status != "ok"]
    alone = [problem for problem in problems if isinstance(problem, ProgramProblem)]
    with ThreadPoolExecutor(2) as threads:
        ends = threads.map(lambda each: judging.judge(each, each.solution, sandbox, Polyglot(sandbox)), alone)
        failed += [f"{each.task_id}: {end}" for each, end in zip(alone, ends, strict=True) if end.verdict != "passed"]
    return failed


def whole(problem: FunctionProblem) -> str:
    return problem.prompt + problem.solution if problem.task_id.startswith("HumanEval") else problem.solution


@pytest.mark.parametrize(("name", "count"), [("humaneval", 164), ("mbpp", 974), ("mbpp-sanitized", 427), ("apps", 5)])
def test_references_pass(sandbox: Sandbox, name: str, count: int) -> None:
    head = apps.PREAMBLE if name == "apps" else ""
    assert failing(sandbox, loaded(name, count).problems, head) == []  # type: ignore[arg-type]


def test_references_pass_on_all_inputs(sandbox: Sandbox) -> None:
    found = loaded("humaneval+", 164)
    assert failing(sandbox, functions(found.problems, found.sha256)) == []  # type: ignore[arg-type]


# In front of a wrapped function: what it returns, a little wrong.
_OFF_BY_ONE = """
def {0}(*given, **named):
    got = _itself(*given, **named)
    if isinstance(got, (int, float)) and not isinstance(got, bool):
        return got + 1
    return got[:-1] if isinstance(got, (str, list, tuple)) else got
"""
_WRONG_TYPE = "\ndef {0}(*given, **named):\n    return [_itself(*given, **named)]\n"
_NONE = "\ndef {0}(*given, **named):\n    return None\n"
_FOR_EVER = "\ndef {0}(*given, **named):\n    while True:\n        pass\n"


class _Swap(ast.NodeTransformer):
    """Turns the first branch round."""

    done = False

    def visit_If(self, node: ast.If) -> ast.AST:
        return self._swapped(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        return self._swapped(node)

    def _swapped(self, node: ast.If | ast.IfExp) -> ast.AST:
        if self.done:
            return node
        self.done = True
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return node


def mutants(problem: FunctionProblem) -> Iterator[str]:
    source, name = whole(problem), problem.entry_point
    for wrapper in _NONE, _OFF_BY_ONE, _WRONG_TYPE:
        yield f"{source}\n_itself = {name}{wrapper.format(name)}"
    tree = ast.parse(source)
    swap = _Swap()
    yield ast.unparse(ast.fix_missing_locations(swap.visit(tree)))


@pytest.mark.parametrize(("name", "count", "every"), [("humaneval", 164, 1), ("mbpp-sanitized", 427, 3)])
def test_what_is_a_little_wrong_is_told_as_in_one_process(name: str, count: int, every: int) -> None:
    """The benchmark's own way is one process: the answer, the tests behind it, and the call of `check`."""
    problems = [each for each in loaded(name, count).problems[::every] if isinstance(each, FunctionProblem)]
    cases = [(problem, source) for problem in problems for source in mutants(problem)]
    with Sandbox(Limits(cpu_seconds=3, idle_seconds=5), workers=2) as sandbox:
        ours = dict(sandbox.map(judging.call(problem, source) for problem, source in cases))
        own = dict(sandbox.map(Program(together(problem, source)) for problem, source in cases))
        differ = [
            f"{cases[at][0].task_id}: {ours[at]} where its own tests say {own[at]}\n{cases[at][1]}"
            for at in range(len(cases))
            if (ours[at].status == "ok") != (own[at].status == "ok")
        ]
        assert differ == []
        assert sum(end.status != "ok" for end in ours.values()) > 0.7 * len(cases)  # most are really wrong
        # A limit of time is no less the benchmark's way.
        endless = [judging.call(each, whole(each) + _FOR_EVER.format(each.entry_point)) for each in problems[::20]]
        assert {end.status for _, end in sandbox.map(endless)} == {"timeout"}


def together(problem: FunctionProblem, source: str) -> str:
    return (
        f"{source}\n{problem.test}\ncheck({problem.entry_point})\n"
        if "candidate(" in problem.test
        else (f"{source}\n{problem.test}\n")
    )


def test_what_passes_humaneval_only_fails_humaneval_plus(sandbox: Sandbox) -> None:
    """Answers that know the older inputs and return nothing on others."""
    found = loaded("humaneval+", 164)
    problems = functions(found.problems, found.sha256)[:20]  # type: ignore[arg-type]
    older = {each.task_id: each for each in loaded("humaneval", 164).problems if isinstance(each, FunctionProblem)}
    base = {each.task_id: each.inputs[: each.base] for each in found.problems}  # type: ignore[union-attr]
    answers = []
    for problem in problems:
        known = f"\n_itself, _known = {problem.entry_point}, {list(base[problem.task_id])!r}\n"
        known += f"def {problem.entry_point}(*given):\n    return _itself(*given) if list(given) in _known else None\n"
        answers.append(whole(problem) + known)
    pairs = list(zip(problems, answers, strict=True))
    plain = dict(sandbox.map(judging.call(older[each.task_id], answer) for each, answer in pairs))
    added = dict(sandbox.map(judging.call(each, answer) for each, answer in pairs))
    assert [plain[at].status for at in range(20)].count("ok") >= 18
    assert [added[at].status for at in range(20)].count("ok") == 0


@pytest.mark.parametrize("name", ["multipl-e-js", "multipl-e-cpp"])
def test_published_answers_of_other_languages(sandbox: Sandbox, name: str) -> None:
    """The files hold answers of a model, most of them right; a program without a body is none."""
    found = loaded(name, 161)
    rows = {row["name"]: row["gpt_solution"] for row in read_rows(found.path)}
    problems = [polyglot.whole(each) for each in found.problems if isinstance(each, ProgramProblem)][::4]
    languages = Polyglot(sandbox)
    with ThreadPoolExecutor(2) as threads:
        ends = list(
            threads.map(lambda each: judging.judge(each, code(rows[each.task_id]), sandbox, languages), problems)
        )
        stubs = threads.map(lambda each: judging.judge(each, each.prompt + "}", sandbox, languages), problems[::4])
        assert [end.verdict for end in stubs].count("passed") == 0
    right = [end.verdict for end in ends].count("passed")
    assert right > 0.6 * len(ends), [end for end in ends if end.verdict != "passed"]
    assert {end.outcome.status for end in ends} <= {"exited", "killed", "compile_error", "timeout"}


def read_rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def code(answer: str) -> str:
    """The first block of a conversation's answer, without the main program that C++ tests bring themselves."""
    block = re.search(r"```\w*\n(.*?)```", answer, re.DOTALL)
    return re.split(r"\nint main", block[1] if block else answer)[0]
