"""Tables of verbs: the commands of both halves of the house, told and found the same way.

A verb's module is imported only when the verb is called, after the recipe on its command line was checked.
"""

import ast
import difflib
import importlib
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import NamedTuple

from opencoder_jax.configurables import catalog, meanings, source_file
from opencoder_jax.recipe import UserError, check_recipe


class Verb(NamedTuple):
    """A command.

    Attributes:
        module: by its full name; the first line of its docstring says what the command does.
        example: flags that work.
    """

    module: str
    example: str

    @property
    def help(self) -> str:
        """What it does."""
        line = (ast.get_docstring(_tree(self.module)) or "").splitlines()[0]
        return line.partition(": ")[2] if line.startswith("python -m") else line

    @property
    def inputs(self) -> dict[str, str]:
        """Of a stage: what its `run` reads, by the names of the flags, with what the docstring says of each."""
        functions = (node for node in _tree(self.module).body if isinstance(node, ast.FunctionDef))
        if (run := next((node for node in functions if node.name == "run"), None)) is None:
            return {}  # a tool reads its flags itself
        told = meanings(ast.get_docstring(run) or "", "Args")
        return {
            each.arg: told.get(each.arg, "")
            for each in _arguments(run)
            if each.annotation
            and each.arg != "output"
            and re.match(r"str|Sequence\[str\]", ast.unparse(each.annotation))
        }

    @property
    def reads(self) -> frozenset[str]:
        """The configurations that it reads: those of a stage's `run`, or those that are handed to `parse_flags`."""
        named: set[str] = set()
        for node in ast.walk(_tree(self.module)):
            if isinstance(node, ast.FunctionDef) and node.name == "run":
                named |= {ast.unparse(each.annotation) for each in _arguments(node) if each.annotation}
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "parse_flags":
                named |= {ast.unparse(argument) for argument in node.args}
        return frozenset(named & catalog().keys())

    def load(self) -> ModuleType:
        return importlib.import_module(self.module)


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    return [*function.args.args, *function.args.kwonlyargs]


@cache
def _tree(module: str) -> ast.Module:
    """The source of a module of ours, which isn't imported for it."""
    return ast.parse(source_file(module).read_text(encoding="utf-8"))


def find(program: str, verbs: Mapping[str, Verb], argv: list[str]) -> tuple[str, list[str]] | None:
    """The verb that a command line names and its flags, with a recipe that is known to be right; None: show the usage.

    Raises:
        UserError: there is no such verb, or a binding of the recipe is wrong.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        return None
    if name not in verbs:
        near = difflib.get_close_matches(name, verbs, 1, 0.5)
        advice = f"did you mean {near[0]}?" if near else f"the verbs are {', '.join(verbs)}"
        raise UserError(f"unknown verb {name}; {advice} ({program} --help tells what they do)")
    check_recipe(rest)
    return name, rest


def usage(program: str, verbs: Mapping[str, Verb]) -> str:
    """Every verb with what it does and an example."""
    width = max(map(len, verbs))
    lines = [f"usage: {program} VERB [flags]", ""]
    for name, verb in verbs.items():
        lines += [f"  {name:{width}}  {verb.help}", f"  {'':{width}}  {program} {name} {verb.example}"]
    return "\n".join(
        [
            *lines,
            "",
            "Each verb has a --help of its own, with the fields of its recipe. --debug shows where an error came from.",
        ]
    )
