"""From an answer to the program that is judged, for every form in which a benchmark asks."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.programs import ProgramProblem
from opencoder_jax.benchmarks.readers import cruxeval
from opencoder_jax.evaluation.answers import opencodeeval
from opencoder_jax.evaluation.answers.extract import Extracted, answer_of, extract, standalone
from opencoder_jax.evaluation.answers.other_languages import extract_program
from opencoder_jax.evaluation.answers.pieces import code_in, fenced
from opencoder_jax.evaluation.answers.samples import Sample
from opencoder_jax.evaluation.answers.syntax import longest_prefix, parse
from opencoder_jax.evaluation.scores.rows import Profile

Form = Literal[
    "function",  # goes on with a function that is begun, or is the function
    "whole",  # a program by itself
    "continues",  # goes on with a program that is begun; in a conversation, the program
    "middle",  # what belongs between a beginning and an end
    "expression",  # a value
]


@dataclass(frozen=True)
class AnswerForm:
    """What must be known of a problem to find the program in an answer to it.

    Attributes:
        suffix: what stands behind a gap.
        opening: what stands in front of every program.
    """

    problem: FunctionProblem | ProgramProblem
    form: Form = "function"
    suffix: str = ""
    opening: str = ""

    @property
    def task_id(self) -> str:
        return self.problem.task_id

    @property
    def language(self) -> str:
        return self.problem.language if isinstance(self.problem, ProgramProblem) else "Python"


def find_program(asked: AnswerForm, sample: Sample, stops: Sequence[str], text: str, profile: Profile) -> Extracted:
    """The program of an answer.

    Args:
        stops: end a completion, where the model did not stop at them.
        text: what was asked; OpenCoder's evaluator looks for the program in that, too.
    """
    if profile == "opencoder":
        entry_point = asked.problem.entry_point if isinstance(asked.problem, FunctionProblem) else ""
        if asked.form == "whole":
            entry_point = ""  # it prunes MBPP's answers of what isn't a definition, and of nothing else
        begun = asked.form != "whole" or text.endswith("```python\n")
        before = text if sample.kind == "completion" and begun else ""
        return opencodeeval.solution(before, cut(sample, stops).text, entry_point)
    match asked.form, asked.problem:
        case "function", FunctionProblem() as problem:
            return extract(problem, sample, stops)
        case "whole", FunctionProblem() as problem:
            whole = cut(sample, stops)._replace(kind="solution")
            found = extract(problem, whole, ())
            return extract(problem._replace(entry_point="Solution"), whole, ()) if found.method == "none" else found
        case "middle", FunctionProblem() as problem:
            return _middle(asked, problem, sample, stops)
        case "expression", FunctionProblem() as problem:
            return _expression(problem, cut(sample, stops))
        case form, ProgramProblem() as problem if problem.language == "Python":
            return _python(problem, form, sample, stops)
        case form, ProgramProblem() as problem:
            prompt = problem.prompt if form == "continues" else ""
            return extract_program(problem.language, prompt, cut(sample, stops))
    raise AssertionError(asked.form)


def source(asked: AnswerForm, code: str, profile: Profile) -> str:
    """The whole source of an answer's program."""
    problem = asked.problem
    if profile == "opencoder":
        begun = problem.prompt if asked.form == "function" else ""
        return opencodeeval.program(begun or asked.opening, code, pass_behind=bool(begun))
    if isinstance(problem, FunctionProblem):
        return asked.opening + (standalone(problem, code) if asked.form == "function" else code)
    return asked.opening + code


def cut(sample: Sample, stops: Sequence[str]) -> Sample:
    """A completion up to the first of the strings that end it."""
    if sample.kind != "completion":
        return sample
    text = sample.text
    return sample._replace(text=text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))])


def _python(problem: ProgramProblem, form: Form, sample: Sample, stops: Sequence[str]) -> Extracted:
    """A program that reads and prints, or one with tests behind it: nothing says which name it must define."""
    begun = form == "continues" and sample.kind == "completion"
    text = answer_of(cut(sample, stops).text)
    if begun:
        whole = problem.prompt.rstrip() + "\n" + text.removeprefix("\n")
        if parse(whole) is not None:
            return Extracted(whole, "completion")
        prefix = longest_prefix(whole)
        if len(prefix.rstrip()) > len(problem.prompt.rstrip()):
            return Extracted(prefix, "completion, longest prefix", whole[len(prefix) :])
    for block in reversed(fenced(text)):
        if _acts(block):
            return Extracted(block, "fence")
    if _acts(text):
        return Extracted(text, "text")
    pieces = [piece for piece in code_in(text) if _acts(piece)]
    return Extracted(max(pieces, key=len), "code in text") if pieces else Extracted("", "none")


def _acts(code: str) -> bool:
    """Whether it is a program: Python that does more than name a value."""
    module = parse(code)
    return module is not None and any(
        not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in module.body
    )


def _middle(asked: AnswerForm, problem: FunctionProblem, sample: Sample, stops: Sequence[str]) -> Extracted:
    text = cut(sample, stops).text
    if sample.kind == "completion":
        for ending in ("", "\n"):  # of a single line, the model stops at its end
            whole = problem.prompt + text + ending + asked.suffix
            if parse(whole) is not None:
                return Extracted(whole, "completion")
    else:
        text = answer_of(text)
    for piece in (*reversed(fenced(text)), text):
        for middle in _middles(problem, piece):
            if parse(whole := problem.prompt + middle + asked.suffix) is not None:
                return Extracted(whole, "fence" if piece is not text else "completion, longest prefix")
        module = parse(piece)
        if module and any(
            isinstance(node, ast.FunctionDef) and node.name == problem.entry_point for node in module.body
        ):
            return Extracted(piece, "fence" if piece is not text else "text")  # it wrote all
    return Extracted("", "none")


def _middles(problem: FunctionProblem, piece: str) -> Iterator[str]:
    """A piece, and what is left of it without its last lines; its first line may lack what stands before the gap."""
    lines = piece.splitlines(keepends=True)
    for count in range(len(lines), 0, -1):
        middle = "".join(lines[:count])
        yield middle
        yield middle.rstrip("\n")


_ANSWER = re.compile(r"\[ANSWER\](.*?)\[/ANSWER\]", re.DOTALL)


def _expression(problem: FunctionProblem, sample: Sample) -> Extracted:
    text = answer_of(sample.text)
    marked = _ANSWER.findall(text)
    for piece in (*reversed(marked), *reversed(fenced(text)), text):
        for expression in _expressions(piece.strip(), problem.task_id.endswith("/input")):
            if program := cruxeval.answer(problem, expression):
                return Extracted(program, "text" if piece is text else "fence")
    return Extracted("", "none")


def _expressions(piece: str, arguments: bool) -> Iterator[str]:
    """The value that a piece names: as it is, or a side of its last assertion."""
    if match := re.search(r"assert\s+f\((.*)\)\s*==\s*(.*)\Z", piece, re.DOTALL):
        yield match[1] if arguments else match[2]
    if arguments and (match := re.fullmatch(r"f\((.*)\)", piece, re.DOTALL)):
        yield match[1]
    yield piece
    if arguments and piece.endswith(")"):
        yield piece[:-1]
