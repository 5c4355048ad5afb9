"""Benchmarks in many languages: MultiPL-E, HumanEval-X and McEval, as their authors publish them."""

import re
from collections.abc import Iterable
from typing import Any

from opencoder_jax.benchmarks.programs import ProgramProblem

Row = dict[str, Any]

# The names that benchmarks have for languages, where the sandbox has others.
_NAMES = {
    "cpp": "C++",
    "cs": "C#",
    "d": "D",
    "go": "Go",
    "go_test.go": "Go",
    "hs": "Haskell",
    "java": "Java",
    "javascript": "JavaScript",
    "jl": "Julia",
    "js": "JavaScript",
    "lua": "Lua",
    "ml": "OCaml",
    "php": "PHP",
    "pl": "Perl",
    "py": "Python",
    "python": "Python",
    "r": "R",
    "rb": "Ruby",
    "rkt": "Racket",
    "rs": "Rust",
    "rust": "Rust",
    "scala": "Scala",
    "sh": "Bash",
    "swift": "Swift",
    "ts": "TypeScript",
    # McEval's
    "CPP": "C++",
    "Shell": "Bash",
    "VimScript": "Vim script",
}
_DIALECTS = {"Scheme": "Racket"}  # McEval's Scheme is written for Racket, with its libraries
# MultiPL-E's other languages than C++ and JavaScript that the sandbox has a row for.
OF_MULTIPL_E = (
    *(
        "cs",
        "d",
        "go",
        "hs",
        "java",
        "jl",
        "lua",
        "ml",
        "php",
        "pl",
        "r",
        "rb",
        "rkt",
        "rs",
        "scala",
        "sh",
        "swift",
        "ts",
    ),
)
# McEval's languages that are programs; its HTML, JSON, Markdown and AWK have no tests.
OF_MCEVAL = (
    *("C", "C#", "CPP", "CoffeeScript", "Common Lisp", "Dart", "Elixir", "Emacs Lisp", "Erlang", "F#", "Fortran", "Go"),
    *("Groovy", "Haskell", "Java", "JavaScript", "Julia", "Kotlin", "Lua", "PHP", "Pascal", "Perl", "PowerShell"),
    *("Python", "R", "Racket", "Ruby", "Rust", "Scala", "Scheme", "Shell", "Swift", "Tcl", "TypeScript", "VimScript"),
    "Visual Basic",
)


def multipl_e(rows: Iterable[Row]) -> list[ProgramProblem]:
    """MultiPL-E. Where `tests` begins by closing the function that a completion left open, `whole` knows it."""
    return [
        ProgramProblem(
            row["name"],
            row["prompt"],
            language=_NAMES[row["language"]],
            tests=row["tests"],
            stops=tuple(row["stop_tokens"]),
        )
        for row in rows
    ]


def whole(problem: ProgramProblem) -> ProgramProblem:
    """The problem for answers that are whole programs, rather than what goes on with the prompt."""
    tests = re.sub(r"\A\s*\}\s*\n", "", problem.tests)
    return ProgramProblem(problem.task_id, problem.prompt, language=problem.language, tests=tests, level=problem.level)


def humaneval_x(rows: Iterable[Row], language: str) -> list[ProgramProblem]:
    """HumanEval-X: a file a language."""
    found = []
    for row in rows:
        solution, test = row["declaration"] + row["canonical_solution"], row["test"]
        name = _NAMES.get(language, language)
        found.append(ProgramProblem(row["task_id"], row["prompt"], solution, name, tests=test))
    return found


def mceval(rows: Iterable[Row]) -> list[ProgramProblem]:
    """McEval's generation task."""
    found: list[ProgramProblem] = []
    for row in rows:
        name = row["task_id"].partition("/")[0]
        language = _DIALECTS.get(name) or _NAMES.get(name, name)
        solution = f"{row['prompt']}\n{row['canonical_solution']}"
        found.append(
            ProgramProblem(row["task_id"], row["instruction"], solution, language, row["test"], level=row["level"])
        )
    return found
