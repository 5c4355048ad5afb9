"""Wrong versions of a program, to see whether its tests notice.

`hollow` ones keep nothing of a function but its name: tests that pass one of them don't look at what it returns.
`small` ones differ in one place, as in DeMillo, Lipton and Sayward (1978): an operator, a constant, a condition, a
value that isn't returned.
"""

import ast
import copy
import random
from collections.abc import Callable, Iterator
from itertools import count

from opencoder_jax.beam_pipelines.synthesis.execution.programs import parsed

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


def hollow(source: str, name: str) -> list[str]:
    """The program with nothing in its function `name`, and with its first argument as what it returns."""
    function = _function(parsed(source, "solution"), name)
    first = [*function.args.posonlyargs, *function.args.args][:1]
    return [constant(source, name, value) for value in ("None", *(argument.arg for argument in first))]


def constant(source: str, name: str, value: str) -> str:
    """The program whose function `name` returns this, an expression, whatever it's given."""
    module = parsed(source, "solution")
    _function(module, name).body = [ast.Return(ast.parse(value, mode="eval").body)]
    return ast.unparse(ast.fix_missing_locations(module))


def _function(module: ast.Module, name: str) -> ast.FunctionDef:
    """The definition of a name that counts, the last one."""
    return next(node for node in reversed(module.body) if isinstance(node, ast.FunctionDef) and node.name == name)


def small(source: str, most: int) -> list[str]:
    """Up to `most` programs that each differ from this one in one place inside a function; the same ones every time."""
    module = parsed(source, "solution")
    places = sum(1 for _ in _edits(module))
    chosen = random.Random(len(source)).sample(range(places), min(most, places))
    found = []
    for number in sorted(chosen):
        changed = copy.deepcopy(module)
        next(edit for place, edit in zip(count(), _edits(changed), strict=False) if place == number)()
        found.append(ast.unparse(ast.fix_missing_locations(changed)))
    return found


def _edits(module: ast.Module) -> Iterator[Callable[[], object]]:
    """What can be changed, each as a function that does it to this very tree."""
    for function in module.body:
        if isinstance(function, ast.FunctionDef | ast.ClassDef):
            skipped = _skipped(function)
            for node in ast.walk(function):
                if node not in skipped:
                    yield from _of(node)


def _skipped(function: ast.stmt) -> set[ast.AST]:
    """What changes nothing, or only how long it takes: docstrings, annotations, the conditions of endless loops."""
    found: set[ast.AST] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(node.value)
        idle: ast.AST | None = None
        match node:
            case ast.arg(annotation=idle) | ast.AnnAssign(annotation=idle) | ast.FunctionDef(returns=idle):
                pass
            case ast.Raise(exc=idle) | ast.While(test=idle):
                pass
        found |= set(ast.walk(idle)) if idle else set()
    return found


def _of(node: ast.AST) -> Iterator[Callable[[], object]]:
    def change(name: str, value: object) -> Callable[[], object]:
        return lambda: setattr(node, name, value)

    match node:
        case ast.Compare(ops=[operator, *others]) if type(operator) in _COMPARISONS:
            yield change("ops", [_COMPARISONS[type(operator)](), *others])
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            yield change("op", _OPERATORS[type(operator)]())
        case ast.AugAssign(op=operator) if type(operator) in _OPERATORS:
            yield change("op", _OPERATORS[type(operator)]())
        case ast.BoolOp(op=ast.And()):
            yield change("op", ast.Or())
        case ast.BoolOp(op=ast.Or()):
            yield change("op", ast.And())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield (
                change("op", ast.UAdd()) if isinstance(operand, ast.Compare) else change("operand", ast.Constant(None))
            )
        case ast.Constant(value=bool() as value):
            yield change("value", not value)
        case ast.Constant(value=int() | float() as value):
            yield change("value", value + 1)
        case ast.Constant(value=str() as value):
            yield change("value", f"{value}x")
        case ast.If(test=test) | ast.IfExp(test=test):
            yield change("test", ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=ast.expr()):
            yield change("value", ast.Constant(None))
