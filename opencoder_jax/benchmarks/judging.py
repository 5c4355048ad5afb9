"""How a program of a benchmark is judged in the sandbox: what is run, and what its end means.

What "passed" is worth: inputs and outputs are compared here, outside of the jail, so no program passes without the
right answer. Tests in the program's own process are only as good as the program is honest: that it reached their end
is told by a word that is drawn for each process of ours and said behind the last test, so a program that leaves early,
or ends well whatever its tests say, doesn't pass. One that reads its own source to find the word could.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.programs import ProgramProblem, same_output
from opencoder_jax.sandbox.languages.polyglot import Polyglot
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Candidate, Outcome, Program

Verdict = Literal["passed", "wrong_answer", "not_judged"] | str  # or how the program ended otherwise

_WORD = f"reached-{secrets.token_hex(8)}"
_LEAVES = re.compile(r"(return(\s+0|\s+EXIT_SUCCESS)?|exit\s*\(?\s*0?\s*\)?)\s*;\s*\Z")  # nothing is said behind it
_HEADS = dict.fromkeys(("C", "C++"), "#include <stdio.h>\n")  # what saying it takes
# Where the last test ends, as the number of braces that close behind it, and how to say the word there.
_SAID = {
    "C": (1, f'puts("{_WORD}");'),
    "C++": (1, f'::puts("{_WORD}");'),
    "Java": (2, f'System.out.println("{_WORD}");'),
    "C#": (2, f'System.Console.WriteLine("{_WORD}");'),
    "Rust": (1, f'println!("{_WORD}");'),
    "D": (1, f'import std.stdio : writeln; writeln("{_WORD}");'),
    "JavaScript": (0, f'console.log("{_WORD}");'),
    "TypeScript": (0, f'console.log("{_WORD}");'),
    "CoffeeScript": (0, f'console.log "{_WORD}"'),
    "PHP": (0, f'echo "{_WORD}";'),
    "Bash": (0, f"builtin echo {_WORD}"),
    "Perl": (0, f'print "{_WORD}\\n";'),
    "Ruby": (0, f'STDOUT.puts "{_WORD}"'),
    "Lua": (0, f'io.write("{_WORD}\\n")'),
    "R": (0, f'cat("{_WORD}\\n")'),
    "Tcl": (0, f"puts {_WORD}"),
    "Elixir": (0, f'IO.puts("{_WORD}")'),
    "Racket": (0, f'(displayln "{_WORD}")'),
    "Clojure": (0, f'(println "{_WORD}")'),
    "Common Lisp": (0, f'(format t "{_WORD}~%")'),
    "Scheme": (0, f'(display "{_WORD}") (newline)'),
    "Emacs Lisp": (0, f'(princ "{_WORD}")'),
    "Vim script": (0, f'call writefile(["{_WORD}"], "/dev/stdout", "a")'),
}


@dataclass(frozen=True)
class JudgedProgram:
    """How a program did.

    Attributes:
        verdict: "passed", "wrong_answer", "not_judged", or a status of the sandbox that isn't "ok" or "exited".
        outcome: of the run that decided.
        case: the number of the case that decided, from 0.
    """

    verdict: Verdict
    outcome: Outcome
    case: int = 0


def judge(problem: ProgramProblem, program: str, sandbox: Sandbox, polyglot: Polyglot) -> JudgedProgram:
    """Runs a program on all that a problem has, up to the first that it fails.

    Raises:
        ToolchainError, SandboxError: this machine cannot run the language.
    """
    if problem.cases:
        return _judge_cases(problem, program, sandbox, polyglot)
    if problem.language == "Python":
        outcome = sandbox.run(f"{program}\n\n{problem.tests}\n")
        return JudgedProgram("passed" if outcome.status == "ok" else _verdict(outcome), outcome)
    source, word = with_tests(problem, program)
    outcome = polyglot.build(problem.language, source).run()
    if outcome.status != "exited":
        return JudgedProgram(_verdict(outcome), outcome)
    # A program of a language without a row above is believed its exit code.
    reached = not word or word in outcome.stdout.split()
    return JudgedProgram("passed" if outcome.exit_code == 0 and reached else "wrong_answer", outcome)


def with_tests(problem: ProgramProblem, program: str) -> tuple[str, str]:
    """The program with its tests, and the word that is said behind the last of them; "" where none can be."""
    closing, statement = _SAID.get(problem.language, (0, ""))
    if not statement:
        return f"{program}\n{problem.tests}\n", ""
    tests = problem.tests.rstrip()
    if problem.language == "PHP":
        tests = re.sub(r"\?>\s*\Z", "", tests)
    end = len(tests)
    for _ in range(closing):
        end = tests.rfind("}", 0, end)
    if end < 0:
        return f"{program}\n{problem.tests}\n", ""
    if last := _LEAVES.search(tests, 0, end):
        end = last.start()
    head = _HEADS.get(problem.language, "")
    return f"{head}{program}\n{tests[:end]}\n{statement}\n{tests[end:]}\n", _WORD


def _judge_cases(problem: ProgramProblem, program: str, sandbox: Sandbox, polyglot: Polyglot) -> JudgedProgram:
    case = 0
    for case, (outcome, expected) in enumerate(_runs(problem, program, sandbox, polyglot)):
        ended = outcome.status == "ok" or (outcome.status == "exited" and not outcome.exit_code)
        if not ended:
            verdict = "runtime_error" if outcome.status == "exited" else _verdict(outcome)
            return JudgedProgram(verdict, outcome, case)
        if not same_output(outcome.stdout, expected, problem.tolerance):
            return JudgedProgram("wrong_answer", outcome, case)
    return JudgedProgram("passed", outcome, case)


def _runs(problem: ProgramProblem, program: str, sandbox: Sandbox, polyglot: Polyglot) -> Iterator[tuple[Outcome, str]]:
    for stdin, expected in problem.cases:
        if problem.language == "Python":
            yield sandbox.run(program, stdin), expected
        else:
            yield polyglot.build(problem.language, program).run(stdin), expected


def _verdict(outcome: Outcome) -> Verdict:
    if outcome.status == "exception":
        return "wrong_answer" if outcome.error == "AssertionError" else "runtime_error"
    return "not_judged" if outcome.status == "unjudged" else outcome.status


def call(problem: FunctionProblem, program: str) -> Program:
    """The judge of a function, which lives in a process of its own and which no statement of `program` reaches."""
    helpers = problem.prompt if _compiles(problem.prompt) else ""
    judge = f"{helpers}\n\n{problem.entry_point} = candidate\n\n{problem.test}\n\ncheck(candidate)\n"
    return Program(judge, candidate=Candidate(f"{program}{problem.ending}", problem.entry_point))


def _compiles(source: str) -> bool:
    try:
        compile(source, "<prompt>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
