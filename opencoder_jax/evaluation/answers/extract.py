"""From what a model said to the program that a person would take from it, changing as little as possible.

The usual extractors break correct answers: they prune helpers without `return`, module-level statements, or everything
behind line 100. Here the last piece of code that parses *and* defines the entry point is taken as it is, and no
definition is ever removed. What it uses and doesn't define (an import, a helper) is taken from the answer's other
pieces. Only if no piece does is one repaired. Cut off at the end are only the things a script does when it is run
(script.py).

The method is stored with every answer, so that a score can be traced to how its programs were found.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.configurables import lines_of, segment
from opencoder_jax.evaluation.answers.pieces import code_in, fenced, in_json, in_long_string, indented, untagged
from opencoder_jax.evaluation.answers.samples import Sample
from opencoder_jax.evaluation.answers.script import acts, script_start
from opencoder_jax.evaluation.answers.syntax import bound, is_stub, longest_prefix, parse, unbound

Method = Literal[
    "completion",  # the prompt and all of the completion
    "completion, cut at a stop",
    "completion, longest prefix",
    "text",  # all of it
    "fence",  # a block in fences, the last that defines the entry point
    "fence, with others",  # and what it uses of other blocks
    "code in text",  # lines among prose, or among others in a block
    "json",  # a string of a JSON object
    "body",  # a block, or all, behind the prompt
    "longest span",  # OpenCoder's evaluator (opencodeeval.py)
    "none",
]


class Extracted(NamedTuple):
    """The program of an answer: `code` defines the entry point, unless the method is "none" (then it is empty)."""

    code: str
    method: Method
    dropped: str = ""  # what was cut off at the end


# A thought ends where its closing mark begins or ends a line; within a line it may be a string of a program.
_THOUGHT = r"(?:think(?:ing)?|thought|reasoning)"
_OPENED = re.compile(rf"\s*<{_THOUGHT}>|\s*<\|begin_of_thought\|>")
_CLOSED = re.compile(rf"^[ \t]*</{_THOUGHT}>|</{_THOUGHT}>[ \t]*$|<\|end_of_thought\|>", re.MULTILINE)
_CLOSED_ANYWHERE = re.compile(rf"</{_THOUGHT}>")
# Where a turn ends for a model whose tokens aren't ours: at the end of a line, elsewhere it may be a string's.
_TURN_ENDS = re.compile(
    r"(?:<\|(?:im_end|endoftext|end_of_text|eot_id|eom_id|EOT|return)\|>|<\uff5cend\u2581of\u2581sentence\uff5c>"
    r"|<end_of_turn>|</s>)[ \t]*$|^\[(?:DONE|/PYTHON)\]",
    re.MULTILINE,
)
_LABEL = re.compile(
    r"\s*[#*]*[ ]?(?:Assistant|AI|Answer|Response|Solution|Code)[*]*:[*]*[ \t]*(?=(?:def|class|import|from)[ ]|@)"
)


def extract(problem: FunctionProblem, sample: Sample, stops: Sequence[str]) -> Extracted:
    """Finds the program in an answer.

    Args:
        stops: cut a completion that isn't Python as it is. An answer in a conversation is never cut by them.
    """
    text = sample.text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    stub = None
    for code, method in _candidates(problem, sample, answer_of(text), stops):
        module = parse(code)
        if module is None or not any(problem.entry_point in bound(statement) for statement in module.body):
            continue
        found = _without_script(code, module, method, problem.entry_point)
        if not is_stub(module, problem.entry_point):
            return found
        stub = stub or found
    return stub or Extracted("", "none")


def standalone(problem: FunctionProblem, code: str) -> str:
    """The code behind the prompt's own imports and helpers, where both can stand in one program.

    A chat answer often leaves out what its question showed. The entry point of the answer replaces the prompt's empty
    one.
    """
    together = f"{problem.prompt}\n\n{code}"
    module = parse(code)
    from_future = module and any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in module.body
    )
    return code if code.startswith(problem.prompt) or from_future or not parses(together) else together


def parses(code: str) -> bool:
    """Whether Python can read it."""
    return parse(code) is not None


def answer_of(text: str) -> str:
    """What follows the thoughts, up to where the turn ends; nothing where thoughts never end."""
    text = _behind_thoughts(text)
    for end in _TURN_ENDS.finditer(text):
        if text[: end.start()].strip() and not in_long_string(text[: end.start()]):
            text = text[: end.start()]
            break
    return text[label.end() :] if (label := _LABEL.match(text)) else text


def _behind_thoughts(text: str) -> str:
    if opened := _OPENED.match(text):
        closed = _CLOSED.search(text, opened.end()) or _CLOSED_ANYWHERE.search(text, opened.end())
        text = text[closed.end() :] if closed else ""
    for closed in reversed(list(_CLOSED.finditer(text))):  # a second thought, or one that the prompt opened
        if not in_long_string(text[: closed.start()]):
            return text[closed.end() :]
    return text


def _candidates(
    problem: FunctionProblem, sample: Sample, text: str, stops: Sequence[str]
) -> Iterator[tuple[str, Method]]:
    """Programs that may be meant, the likeliest first."""
    # The prompt ends in a newline; a completion may begin with its own.
    prompt = problem.prompt.rstrip() + "\n"
    body = text.removeprefix("\n")
    if sample.kind == "completion":
        yield prompt + body, "completion"
        yield prompt + _cut(body, stops), "completion, cut at a stop"
    yield text, "text"
    blocks = fenced(text)
    yield from _chosen(problem, blocks, "fence", "fence, with others")
    yield from _chosen(problem, [string for piece in (*blocks, text) for string in in_json(piece)], "json", "json")
    if sample.kind == "completion" and len((prefix := longest_prefix(prompt + body)).rstrip()) > len(prompt.rstrip()):
        yield prefix, "completion, longest prefix"
    yield from _chosen(problem, [piece for block in blocks for piece in code_in(block)], "code in text", "code in text")
    yield from _chosen(problem, code_in(untagged(text)), "code in text", "code in text")
    for block in [*reversed(blocks), body, *reversed(indented(text))]:
        for lines in _bodies(block):
            yield prompt + lines, "body"


def _chosen(
    problem: FunctionProblem, pieces: Sequence[str], alone: Method, joined: Method
) -> Iterator[tuple[str, Method]]:
    """The pieces that define the entry point, the last first, with what they use of the others."""
    modules = [parse(piece) for piece in pieces]
    defining = [
        index
        for index, module in enumerate(modules)
        if module and any(problem.entry_point in bound(statement) for statement in module.body)
    ]
    # One that only imports the function, or sets its name to a constant, is a test of it.
    defining.sort(key=lambda index: (not _uses(modules[index], problem.entry_point), index))
    known = parse(problem.prompt)
    given = {name for statement in known.body for name in bound(statement)} if known else set()
    for index in reversed(defining):
        parts, module = [pieces[index]], modules[index]
        assert module
        needed = unbound(module) - given
        # The nearest before it first, then those behind it.
        for other in (*range(index - 1, -1, -1), *range(index + 1, len(pieces))):
            if (there := modules[other]) is None or not needed:
                continue
            taken, needed = _needed(pieces[other], there, needed, problem.entry_point)
            if taken:
                parts.insert(0, taken)
        code = "\n".join(parts)
        yield (code, joined) if len(parts) > 1 and parses(code) else (pieces[index], alone)


def _uses(module: ast.Module | None, name: str) -> bool:
    assert module
    binding = [statement for statement in module.body if name in bound(statement)]
    return all(
        isinstance(each, ast.Import | ast.ImportFrom) or isinstance(getattr(each, "value", None), ast.Constant)
        for each in binding
    )


def _needed(piece: str, module: ast.Module, needed: set[str], entry_point: str) -> tuple[str, set[str]]:
    """What binds the needed names in a piece, and which are needed then.

    All of it without its script, or, of a piece with another version of the entry point, the statements alone.
    """
    names = {name for statement in module.body for name in bound(statement)}
    if not names & needed and "*" not in names:
        return "", needed
    if entry_point not in names:
        left = (needed - names) | unbound(module)
        shown = next((n for n, node in enumerate(module.body) if not _shows(node)), 0)
        last = max((n for n, node in enumerate(module.body) if not _shows(node)), default=-1)
        lines = piece.splitlines(keepends=True)
        kept = module.body[shown : last + 1]
        return "".join(lines[: kept[-1].end_lineno]), left
    taken: list[str] = []
    needed, source = set(needed), lines_of(piece)
    for statement in reversed(module.body):
        here = set(bound(statement))
        if here & needed and entry_point not in here:
            taken.append(f"{segment(source, statement)}\n")
            needed -= here
            needed |= unbound(ast.Module([statement], []))
    return "".join(reversed(taken)), needed


def _shows(statement: ast.stmt) -> bool:
    """Whether a statement only prints or tests."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            return True
        case ast.Expr(value=ast.Call()):
            return False
    return acts(statement)


def _bodies(block: str) -> Iterator[str]:
    """A block as the body of a function, unless it only defines others; models also strip the first line alone."""
    plain = textwrap.dedent(block).strip("\n")
    module = parse(plain)
    others = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    if plain.strip() and not (module and all(isinstance(statement, others) for statement in module.body)):
        yield textwrap.indent(plain, "    ") + "\n"
        first, _, rest = plain.partition("\n")
        yield f"    {first}\n{textwrap.indent(textwrap.dedent(rest), '    ')}\n"


def _cut(text: str, stops: Sequence[str]) -> str:
    return text[: min((start for stop in stops if (start := text.find(stop)) >= 0), default=len(text))]


def _without_script(code: str, module: ast.Module, method: Method, entry_point: str) -> Extracted:
    """Cuts off what a script does at the end, and a label at the start ("python", "a.py", "[BEGIN]")."""
    match module.body[0]:
        case ast.Expr(value=ast.Name() | ast.Attribute() | ast.List(elts=[ast.Name()]), end_lineno=int(end)):
            below = "".join(code.splitlines(keepends=True)[end:])
            if (rest := parse(below)) and rest.body:
                return _without_script(below, rest, method, entry_point)
    kept = script_start(module, code, entry_point)
    if kept == len(module.body):
        return Extracted(code, method)
    first = module.body[kept]
    # Columns count bytes of UTF-8.
    lines = code.encode(errors="surrogatepass").splitlines(keepends=True)
    offset = sum(map(len, lines[: first.lineno - 1])) + first.col_offset
    data = b"".join(lines)
    head, tail = (part.decode(errors="surrogatepass") for part in (data[:offset], data[offset:]))
    return Extracted(head, method, tail)
