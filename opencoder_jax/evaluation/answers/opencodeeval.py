"""What OpenCodeEval, the evaluator that OpenCoder was released with, makes of an answer: the profile `opencoder`.

Its quirks, one by one (OpenCoder-llm at 2a8581a, OpenCodeEval/src):

1. tabs become four spaces, also in strings; a base model's answer is looked for in prompt and answer together
2. only the first 100 lines are looked at; the span of them with most lines that parses is the program
3. of that stay imports, plain assignments to a name, classes, and functions that hold a `return`: helpers without one,
   generators, `async def`, annotated and augmented assignments, `try`, `if` and calls at the module's level are dropped
4. of those stay what the entry point reaches by name: a name used only as `name.attribute` doesn't count
5. it runs behind fifteen imports (numpy among them) and the prompt with `pass` behind it
6. 3 seconds by the clock (here of processor time), 10 for BigCodeBench
7. HumanEval+ is read from a file whose task 32 has its arguments swapped: nothing passes it
8. MBPP's test split is 10 to 509, with 1 to 3 shown in fenced blocks (where `EvaluateConfig.prompts` is "opencoder")

Greedy answers, one a problem. Not reproduced: a path that holds "ckpt" changing the prompt.
"""

import ast
import re

from opencoder_jax.evaluation.answers.extract import Extracted
from opencoder_jax.evaluation.answers.syntax import parse

_LINES = 100
_IMPORTS = (
    "import math\nimport re\nimport sys\nimport copy\nimport datetime\nimport itertools\nimport collections\n"
    "import heapq\nimport functools\nimport hashlib\nimport string\nfrom typing import *\nfrom collections import *\n"
)
_NUMPY = "import numpy\nimport numpy as np\n"  # costs a tenth of a second, and only who names it can tell

IMPOSSIBLE = frozenset({"HumanEval/32"})  # of HumanEval+


def solution(before: str, answer: str, entry_point: str) -> Extracted:
    """What it takes for the program.

    Args:
        before: the prompt, where the answer goes on with it.
        entry_point: of which the definitions are kept that it reaches; "" keeps all.
    """
    text = f"{_refined(before)}\n\n{answer}" if before else answer
    code = _longest_span(_refined(text))
    module = parse(code)
    if module is None or not module.body:
        return Extracted("", "none")
    imports = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    named = dict[str, ast.stmt]()
    for node in module.body:
        match node:
            case ast.ClassDef(name=name) | ast.Assign(targets=[ast.Name(id=name), *_]):
                named[name] = node
            case ast.FunctionDef(name=name) if any(isinstance(inner, ast.Return) for inner in ast.walk(node)):
                named[name] = node
    kept = _reached(entry_point, named) if entry_point else named.keys()
    lines = [ast.unparse(node) for node in (*imports, *(node for name, node in named.items() if name in kept))]
    return Extracted("\n".join(lines), "longest span") if lines else Extracted("", "none")


def program(begun: str, code: str, pass_behind: bool) -> str:
    """What it runs."""
    body = f"{begun}\n    pass\n\n" if pass_behind else begun
    numpy = _NUMPY if re.search(r"\b(?:np|numpy)\b", body + code) else ""
    return f"{numpy}{_IMPORTS}{body}{code}\n"


def _refined(text: str) -> str:
    return text.replace("\t", "    ").replace("\r\n", "\n").replace("\r", "\n").strip() + "\n"


def _longest_span(text: str) -> str:
    """The span with the most lines that aren't blank, of those that parse; the first of several."""
    lines = text.splitlines()[:_LINES]
    before = [0]
    for line in lines:
        before.append(before[-1] + bool(line.strip()))
    spans = [
        (before[start] - before[end], start, end)
        for start in range(len(lines))
        for end in range(start + 1, len(lines) + 1)
    ]
    for count, start, end in sorted(spans):
        if not count:
            break
        if parse(code := "\n".join(lines[start:end])) is not None:
            return code
    return ""


def _reached(entry_point: str, named: dict[str, ast.stmt]) -> set[str]:
    found, waiting = set[str](), [entry_point]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _names(named[name]) if name in named else ()
    return found


def _names(statement: ast.stmt) -> set[str]:
    """The names that a statement uses as its evaluator sees them: of `a.b` it sees `b`."""
    found, waiting = set[str](), [statement]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            match child:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    found.add(name)
                case _:
                    waiting.append(child)  # type: ignore[arg-type]
    return found
