"""MBPP, its sanitized half, and MBPP+, as google-research and evalplus publish them."""

import ast
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opencoder_jax.benchmarks.differential import DifferentialProblem
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.programs import ProgramProblem

Row = dict[str, Any]

# Google's splits, by task_id: the first is for prompts.
PROMPTS, TEST, VALIDATION, TRAINING = range(1, 11), range(11, 511), range(511, 601), range(601, 975)
SHOTS = (2, 3, 4)  # the three that are shown
# OpenCoder's evaluator counts from 0 where the ids begin at 1.
OPENCODER_TEST, OPENCODER_SHOTS = range(10, 510), (1, 2, 3)


def plain(rows: Iterable[Row]) -> list[FunctionProblem | ProgramProblem]:
    """Both halves: `text` is the question of one, `prompt` that of the other.

    A task whose tests use more of an answer than one function (a class that it defines) can't be judged from another
    process: its answer is judged as a program with its tests behind it.
    """
    return [_problem(row) for row in rows]


def question(row: Row) -> str:
    """What is asked, in either half's words."""
    return str(row.get("text") or row["prompt"])


def shots(rows: Sequence[Row], asked: Row) -> str:
    """The published prompt: three tasks with their answers, and the one that is asked.

    Of the sanitized half, those of the three that it has.
    """
    known = {row["task_id"]: row for row in rows}
    shown = [f"{message(known[task])}[BEGIN]\n{_code(known[task])}\n[DONE]\n" for task in SHOTS if task in known]
    return "\n".join([*shown, f"{message(asked)}[BEGIN]\n"])


def message(row: Row) -> str:
    """A task in the published words."""
    tests = "\n".join(row["test_list"])
    return (
        f"You are an expert Python programmer, and here is your task: {question(row)} "
        f"Your code should pass these tests:\n\n{tests}\n"
    )


def opencoder_shots(rows: Sequence[Row], asked: Row) -> str:
    """The same as OpenCoder's evaluator asks it: each program in a fenced block, the last one opened."""
    known = {row["task_id"]: row for row in rows}

    def task(row: Row) -> str:
        tests = "\n".join(row["test_list"])
        text = question(row).replace("\t", "    ").strip() + "\n"
        return (
            f"You are an expert Python programmer, and here is your task:\n{text}"
            f"Your code should pass these tests:\n{tests}\n\n```python\n"
        )

    shown = [f"{task(known[each])}{_spaced(known[each])}\n```\n" for each in OPENCODER_SHOTS if each in known]
    return "\n".join([*shown, task(asked)])


def _spaced(row: Row) -> str:
    return _code(row).replace("\t", "    ").strip() + "\n"


def _code(row: Row) -> str:
    return str(row["code"]).replace("\r\n", "\n")


def _problem(row: Row) -> FunctionProblem | ProgramProblem:
    task, code, tests = f"Mbpp/{row['task_id']}", _code(row), "\n".join(row["test_list"])
    # Tests were written to run behind the answer, and some use what it imports.
    setup = "\n".join([*_imports(code), *row.get("test_imports", []), row.get("test_setup_code", "")])
    prompt = '"""\n' + question(row) + "\n" + row["test_list"][0] + '\n"""\n'
    used = _tested(code, f"{setup}\n{tests}")
    if len(used) != 1:
        return ProgramProblem(task, prompt, code, tests=f"{setup}\n{tests}")
    ending = _TRUTH.format(used[0]) if _only_truth(tests) else ""
    # Tests stand alone rather than in a function: some of their strings have several lines.
    return FunctionProblem(
        task, prompt, used[0], f"{setup}\n{tests}\ndef check(candidate): pass\n", code, ending=ending
    )


# Where tests ask for no more than a value's truth, such as that of a match, that is all that crosses.
_TRUTH = """

_answer_itself = {0}
def {0}(*given, **named):
    return bool(_answer_itself(*given, **named))
"""


def _only_truth(tests: str) -> bool:
    asked = [node.test for node in ast.parse(tests).body if isinstance(node, ast.Assert)]
    values = [
        node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) else node for node in asked
    ]
    return bool(values) and all(isinstance(node, ast.Call) and isinstance(node.func, ast.Name) for node in values)


def _imports(code: str) -> list[str]:
    return [ast.unparse(node) for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]


def _tested(code: str, tests: str) -> list[str]:
    """What an answer defines and its tests use."""
    defined = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return sorted({node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)} & defined)


def plus(rows: Iterable[Row]) -> list[DifferentialProblem]:
    """MBPP+. JSON has no tuples, sets and complex numbers, so some tasks' inputs are turned into what they were."""
    return [
        DifferentialProblem(
            row["task_id"],
            row["prompt"],
            row["entry_point"],
            row["canonical_solution"],
            tuple(arguments(row["task_id"], given) for given in (*row["base_input"], *row["plus_input"])),
            len(row["base_input"]),
            row["atol"],
            _RULES.get(row["entry_point"], ""),
        )
        for row in rows
    ]


_RULES = {
    "are_equivalent": "truth",
    "sum_div": "or zero",
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "found"),
}


def _all_tuples(value: Any) -> Any:
    return tuple(map(_all_tuples, value)) if isinstance(value, list) else value


def _tuples(values: Iterable[Any]) -> list[Any]:
    return [tuple(value) for value in values]


# What the arguments of a call are made of their JSON, and the tasks of which (evalplus 0.3.1, data/mbpp.py).
_TYPES: tuple[tuple[str, Callable[[list[Any]], list[Any]]], ...] = (
    ("2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809", _tuples),
    ("63 64 70 94 120 237 272 299 400 409 417 438 473 614 780", lambda given: [_tuples(each) for each in given]),
    ("75 413 444 753", lambda given: [_tuples(given[0]), given[1]]),
    ("106 750", lambda given: [given[0], tuple(given[1])]),
    ("115", lambda given: [[set(each) if isinstance(each, list) and each else {} for each in given[0]]]),
    ("124", lambda given: [float(given[0]), complex(given[1])]),
    ("250 405 446 617 720 763 808", lambda given: [tuple(given[0]), given[1]]),
    ("259 401 445", lambda given: [tuple(_tuples(each)) for each in given]),
    ("278", lambda given: [tuple(tuple(each) if isinstance(each, list) else each for each in given[0])]),
    ("307", lambda given: [tuple(given[0]), given[1], given[2]]),
    ("722", lambda given: [{key: tuple(value) for key, value in given[0].items()}, *given[1:]]),
    ("252", lambda given: [complex(given[0])]),
    ("580 615 791", lambda given: list(map(_all_tuples, given))),
)
_TYPE_OF = {int(task): turn for tasks, turn in _TYPES for task in tasks.split()}


def arguments(task_id: str, given: list[Any]) -> list[Any]:
    """The arguments of a call, of the types that the task asks for."""
    number = re.search(r"\d+", task_id)
    turn = _TYPE_OF.get(int(number[0])) if number else None
    return turn(given) if turn else given
