"""Programs that solve a task, in several styles: one expression, step by step, a loop.

Expressions are put together as syntax trees, so that Python itself sets the parentheses.
"""

import ast
import re
from typing import NamedTuple

from opencoder_jax.beam_pipelines.synthesis.grammar.operations import VARIABLE, Operation
from opencoder_jax.beam_pipelines.synthesis.grammar.tasks import Composition, Parameter
from opencoder_jax.beam_pipelines.synthesis.grammar.types import TYPES

WIDTH = 88  # a line of a program, at most


class Solution(NamedTuple):
    """A function's body, line by line and not indented, and its style."""

    style: str
    lines: tuple[str, ...]


def programs(task: Composition, plain: bool = False) -> list[Solution]:
    """Equivalent programs, the shortest style first; each differs from the others.

    Args:
        plain: step by step comes first, and what a step gives is always called "result".
    """
    filled = {
        letter: value.name if isinstance(value, Parameter) else repr(value) for letter, value in task.constants.items()
    }
    names = [parameter.name for parameter in task.parameters]
    if task.choice:
        found = _choices(task.choice, names[0], filled)
    elif task.operations[0].body:
        lines = (_fill(line, names, filled) for line in task.operations[0].body)
        found = [Solution("statements", tuple(lines))]
    else:
        variants = max(len(each.code) for each in task.operations)
        found = [
            program
            for variant in range(max(1, variants))
            for program in (
                _expression(task.operations, names, filled, variant),
                _steps(task.operations, names, filled, variant, plain),
            )
            if program
        ]
        if loop := _loop(task.operations, names[0], filled):
            found.append(loop)
    if plain:
        found.sort(key=lambda program: program.style != "steps")
    return list({program.lines: program for program in found}.values())


def _choices(parts: tuple[Operation, Operation, Operation], name: str, filled: dict[str, str]) -> list[Solution]:
    test, yes, no = (_apply(each, 0, [name], filled) for each in parts)
    return [
        Solution("statements", (f"if {test}:", f"    return {yes}", f"return {no}")),
        Solution("expression", (f"return {yes} if {test} else {no}",)),
        Solution("branches", (f"if {test}:", f"    result = {yes}", "else:", f"    result = {no}", "return result")),
    ]


def _expression(
    operations: tuple[Operation, ...], names: list[str], filled: dict[str, str], variant: int
) -> Solution | None:
    """All in one expression, where nothing must be computed twice."""
    operands = names
    for number, operation in enumerate(operations):
        if not operation.code or (number and operation.code[variant % len(operation.code)].count("{0}") > 1):
            return None
        operands = [_apply(operation, variant, operands, filled)]
    line = f"return {operands[0]}"
    return Solution("expression", (line,)) if len(line) <= WIDTH else None


def _steps(
    operations: tuple[Operation, ...], names: list[str], filled: dict[str, str], variant: int, plain: bool
) -> Solution | None:
    """A line for each operation, or a loop for the last where no expression says it."""
    *before, last = operations
    if not before or not all(each.code for each in before):
        return None
    lines, operands = [], names
    for number, operation in enumerate(before):
        name = "result" if plain else _result(operation, number, {*names, *filled.values()})
        lines.append(f"{name} = {_apply(operation, variant, operands, filled)}")
        operands = [name]
    if last.code:
        return Solution("steps", (*lines, f"return {_apply(last, variant, operands, filled)}"))
    loop = _loop((last,), operands[0], filled)
    return Solution("steps", (*lines, *loop.lines)) if loop else None


def _result(operation: Operation, number: int, taken: set[str]) -> str:
    wanted = (
        "kept"
        if operation.keep
        else "changed"
        if operation.each
        else "ordered"
        if "sort" in operation.name
        else "result"
    )
    return next(name for name in (wanted, "found", "result", f"value{number}") if name not in taken)


def _loop(operations: tuple[Operation, ...], name: str, filled: dict[str, str]) -> Solution | None:
    """A loop over the list, where every operation takes its elements one by one."""
    *before, last = operations
    if not last.fold[1]:
        before = list(operations)
    element = TYPES[operations[0].takes[0]].element
    if not element or not all((each.keep or each.each) and len(each.takes) == 1 for each in before) or not operations:
        return None
    item, depth, kind = VARIABLE[element], 1, element
    lines = [f"for {item} in {name}:"]
    value = item
    for operation in (*before, *((last,) if last.keep and last.fold[1] else ())):
        own = VARIABLE[kind]
        if operation.keep:
            lines.append("    " * depth + f"if {_fill(_substitute(operation.keep, {own: value}), [], filled)}:")
            depth += 1
        else:
            value = _substitute(_fill(operation.each, [], filled), {own: value})
            kind = TYPES[operation.gives].element
    if last.fold[1]:
        start, statement = last.fold
        total = "count" if last.keep else "total"
        lines.append("    " * depth + statement.format(total=total, x=value))
        found = Solution("loop", (f"{total} = {start}", *lines, f"return {total}"))
    elif before and last is before[-1]:
        lines.append("    " * depth + f"result.append({value})")
        found = Solution("loop", ("result = []", *lines, "return result"))
    else:
        return None
    return found if max(map(len, found.lines)) <= WIDTH else None


def _apply(operation: Operation, variant: int, operands: list[str], filled: dict[str, str]) -> str:
    """The expression of an operation on expressions."""
    code = _names(operation.code[variant % len(operation.code)])
    places = {f"_{number}": operand for number, operand in enumerate(operands)}
    return _substitute(code, places | {f"_{letter}": value for letter, value in filled.items()})


def _fill(code: str, operands: list[str], filled: dict[str, str]) -> str:
    """The same in statements: operands are names, constants are literals."""
    code = _names(code)
    for name, value in (
        {f"_{number}": each for number, each in enumerate(operands)} | {f"_{key}": each for key, each in filled.items()}
    ).items():
        code = code.replace(name, value)
    return code


def _names(code: str) -> str:
    """Places as names: `{0}` becomes `_0`. Double braces are the program's own, single ones inside of them places."""
    for place in "012khct":
        code = code.replace(f"{{{{{{{place}}}}}}}", f"{{_{place}}}").replace(f"{{{place}}}", f"_{place}")
    return code.replace("{{", "{").replace("}}", "}")


def _substitute(code: str, values: dict[str, str]) -> str:
    tree = ast.parse(code, mode="eval")
    put = {name: ast.parse(value, mode="eval").body for name, value in values.items()}
    return _bare_generators(ast.unparse(_Substitute(put).visit(tree)))


def _bare_generators(code: str) -> str:
    """`sum((x for …))` as people write it."""
    for start in reversed([match.end() for match in re.finditer(r"\w\((?=\()", code)]):
        depth = 0
        for end in range(start, len(code)):
            depth += (code[end] == "(") - (code[end] == ")")
            if not depth:
                break
        if code[end + 1 : end + 2] == ")" and " for " in code[start:end]:
            code = code[:start] + code[start + 1 : end] + code[end + 1 :]
    return code


class _Substitute(ast.NodeTransformer):
    def __init__(self, values: dict[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node)
