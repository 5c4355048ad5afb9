"""Recipes: gin files bind frozen dataclasses, and a user's mistake is one line.

Gin stays at the edge. A configuration is a frozen dataclass that validates itself in `__post_init__` and can be read
and built without gin; `@configurable` lets a gin file, or a flag `--gin.Name.field=value`, give its fields other
defaults. Every command of the project parses its flags here, so that they are spelt the same everywhere.

This module knows neither JAX nor Beam: both halves of the house use it.
"""

import argparse
import ast
import difflib
import io
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from tokenize import TokenError
from typing import Any, NoReturn, TypeVar

import gin
from gin import config_parser

from opencoder_jax.configurables import Configurable, accepts, catalog, of_class

T = TypeVar("T")

PACKAGE = Path(__file__).parent  # holds gin_configs
ROOT = PACKAGE.resolve().parent  # of the checkout, where this is one
gin.add_config_file_search_path(str(PACKAGE))
# Gin's second reader takes a file for the data of an installed package, and breaks on folders without an __init__.py.
del gin.config._FILE_READERS[1:]


class UserError(Exception):
    """A mistake that the user can mend. Its message names what is wrong and what to do; no traceback is shown."""


class TryAgain(Exception):
    """The work stopped for a reason outside itself (preempted, a host lost); the same command goes on from there."""


FIELDS_HEADING = "fields of its recipe"  # in a command's help

# What a command that raises TryAgain exits with: sysexits.h's "temporary failure", which launchers answer by a restart.
TRY_AGAIN = 75


def configurable(cls: type[T]) -> type[T]:
    """Lets gin bind the fields of a dataclass by its class name.

    `python -m package.module` runs a second copy of the module under the name `__main__`; that copy stays unregistered,
    or the name would be ambiguous.
    """
    return cls if cls.__module__ == "__main__" else gin.configurable(cls)


def bind(gin_files: Sequence[str] = (), bindings: Sequence[str] = ()) -> None:
    """Replaces all bindings in force by those of `gin_files`, in order, then of `bindings` ("Name.field=value").

    A gin file, and an `include` in one, is looked up from the working directory and from the package.

    Raises:
        UserError: a file is missing, or a name or value is wrong; the message says which, and the nearest right name.
    """
    quoted = [_quoted(binding) for binding in bindings]
    check_bindings(gin_files, quoted)
    gin.clear_config(clear_constants=True)
    try:
        gin.parse_config_files_and_bindings(
            list(gin_files),
            quoted,
            skip_unknown=list(catalog()),
            finalize_config=False,  # a module that is imported later may still register its own
        )
    except Exception as error:  # gin raises ValueError, TypeError, SyntaxError, NameError and OSError for a bad recipe
        raise UserError(f"recipe: {' '.join(str(error).split())}") from None


def check_bindings(gin_files: Sequence[str], bindings: Sequence[str]) -> None:
    """Checks every binding of a recipe against the names and types of the fields, without importing what has them.

    Raises:
        UserError: naming the file and line, or the flag, and the nearest right name.
    """
    for statement in _statements(gin_files, bindings):
        place = f"{_file_of(statement)}{statement.selector}.{statement.arg_name}"
        if (known := _known(statement.selector)) is None:
            near = difflib.get_close_matches(statement.selector, catalog(), 1, 0.6)
            advice = f"Did you mean {near[0]}?" if near else f"There are {', '.join(catalog())}."
            raise UserError(f"recipe: {place}: no configuration is called {statement.selector}. {advice}")
        if (field := known.fields.get(statement.arg_name)) is None:
            near = difflib.get_close_matches(statement.arg_name, known.fields, 1)
            advice = f"Did you mean {near[0]}?" if near else f"It has {', '.join(known.fields)}."
            raise UserError(f"recipe: {place}: {known.name} has no field {statement.arg_name}. {advice}")
        if not _holds_reference(statement.value) and not accepts(field.type, statement.value):
            example = f", such as {field.default}" if field.default not in ("", "None") else ""
            raise UserError(f"recipe: {place}={statement.value!r}: must be {field.type}{example}")


def _known(name: str) -> Configurable | None:
    """A configuration by its name: the project's own, or one that a program has registered."""
    if name in catalog():
        return catalog()[name]
    try:
        return of_class(gin.get_configurable(name))
    except (ValueError, KeyError):
        return None


class _Reference(config_parser.ParserDelegate):
    """Stands for what a recipe names by `@` or `%`: its value isn't known here."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return self

    def macro(self, macro_name: str) -> Any:
        return self


def _holds_reference(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_reference, value.values()))
    return isinstance(value, _Reference) or (isinstance(value, (list, tuple)) and any(map(_holds_reference, value)))


def _statements(gin_files: Sequence[str], bindings: Sequence[str]) -> Iterator[config_parser.BindingStatement]:
    """The bindings of fields in a recipe, includes in their places. Raises UserError for what is no gin."""
    for number, source in enumerate([*gin_files, *bindings]):
        try:
            is_file = number < len(gin_files)
            with find_gin(source).open(encoding="utf-8") if is_file else io.StringIO(source) as text:
                for statement in config_parser.ConfigParser(text, _Reference()):
                    if isinstance(statement, config_parser.IncludeStatement):
                        yield from _statements([statement.filename], ())
                    elif isinstance(statement, config_parser.BindingStatement) and statement.arg_name:
                        yield statement
        except (SyntaxError, ValueError, TokenError) as error:
            message = error.msg if isinstance(error, SyntaxError) else str(error)
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            raise UserError(f"recipe: {source}{line}: {' '.join(str(message).split())}") from None


def _file_of(statement: config_parser.BindingStatement) -> str:
    place = statement.location
    return f"{place.filename}, line {place.line_num}: " if place.filename else ""


def find_gin(file: str) -> Path:
    """A gin file by its path from the working directory or from the package. Raises UserError."""
    for place in (Path(file), PACKAGE / file):
        if place.is_file():
            return place
    raise UserError(f"gin file {file}: no such file")


def gin_text(file: str) -> str:
    """A gin file with its includes in their places, without comments: two recipes that read the same are the same."""
    lines = []
    for line in find_gin(file).read_text(encoding="utf-8").splitlines():
        include = re.fullmatch(r"include\s+['\"](.+)['\"]", line.strip())
        if include:
            lines.append(gin_text(include.group(1)))
        elif line.strip() and not line.lstrip().startswith("#"):
            lines.append(line)
    return "\n".join(lines)


def operative(*configs: Any) -> str:
    """The configurations as gin text, one `Name.field = value` a line: what a checkpoint or a manifest stores."""
    lines = [
        f"{type(config).__name__}.{field.name} = {getattr(config, field.name)!r}"
        for config in configs
        for field in fields(config)
    ]
    return "\n".join(lines) + "\n"


def build(cls: type[T]) -> T:
    """Builds a configuration from its defaults and gin's bindings; a value that it refuses is a UserError."""
    try:
        return cls()
    except (ValueError, TypeError) as error:
        raise UserError(f"{cls.__name__}: {str(error).splitlines()[0]}") from None


def parse_flags(
    parser: argparse.ArgumentParser, argv: Sequence[str], *configs: type
) -> tuple[argparse.Namespace, list[str]]:
    """Parses `--gin_file=F` and `--gin.Name.field=value`, both repeatable, beside the parser's own flags; binds them.

    Args:
        parser: of the command; its help gets the fields of `configs`.
        configs: the configurations that the command reads, the telling one first. An override of another one is
            refused. None for a command that hands its flags on.

    Returns:
        The parsed flags, and the arguments that neither the parser nor gin knows.
    """
    parser.allow_abbrev = False
    parser.add_argument(
        "--gin_file", action="append", default=[], metavar="FILE", help="a recipe; repeat to derive one from another"
    )
    parser.epilog = "\n\n".join(filter(None, [(parser.epilog or "").strip("\n"), fields_help(*configs)]))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    bindings = recipe_flags(argv)[1]
    flags, rest = parse_known(parser, [argument for argument in argv if not argument.startswith("--gin.")])
    known = [cls.__name__ for cls in configs]
    for binding in bindings if configs else ():
        if (name := binding.split(".")[0]) in catalog() and name not in known:
            raise UserError(f"--gin.{binding}: this command doesn't read {name}; it reads {', '.join(known)}")
    bind(flags.gin_file, bindings)
    return flags, rest


def parse_known(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What argparse's `parse_known_args` does; its complaint is a UserError of one line instead of the whole usage."""

    def complain(message: str) -> NoReturn:
        raise UserError(f"{parser.prog}: {message}; see --help")

    parser.error = complain  # type: ignore[method-assign]
    return parser.parse_known_args(argv)


def recipe_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The gin files and the bindings ("Name.field=value") of a command line. Raises UserError for a malformed one."""
    bindings = [argument[len("--gin.") :] for argument in argv if argument.startswith("--gin.")]
    for binding in bindings:
        if "=" not in binding or "." not in binding.split("=", 1)[0]:
            raise UserError(f"--gin.{binding}: write --gin.Name.field=value")
    files = [after for flag, after in pairwise([*argv, ""]) if flag == "--gin_file"]
    return files + [flag.split("=", 1)[1] for flag in argv if flag.startswith("--gin_file=")], bindings


def check_recipe(argv: Sequence[str]) -> None:
    """Checks the recipe of a command line before anything is imported for the command. Raises UserError."""
    files, bindings = recipe_flags(argv)
    check_bindings(files, [_quoted(binding) for binding in bindings])


def fields_help(*configs: type) -> str:
    """The fields of some configurations with type, default and meaning, for a command's help."""
    entries = [of_class(cls) for cls in configs]
    if not entries:
        return "Any field of a recipe (python -m opencoder_jax reference lists them) can be set: --gin.Name.field=value"
    lines = [f"{FIELDS_HEADING}, for a gin file or a flag such as {_example(entries[0])}:"]
    for field, name in [(field, entry.name) for entry in entries for field in entry.fields.values()]:
        head = f"  {name}.{field.name}: {field.type} = {textwrap.shorten(field.default, 60, placeholder=' …')}"
        lines += [head, *textwrap.wrap(field.meaning, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines)


def _example(entry: Configurable) -> str:
    """A flag that sets a field of a configuration to its default."""
    field = next((field for field in entry.fields.values() if field.type in ("int", "float", "bool")), None)
    field = field or next(iter(entry.fields.values()))
    return f"--gin.{entry.name}.{field.name}={shlex.quote(field.default)}"


def refuse_unknown(parser: argparse.ArgumentParser, rest: Sequence[str]) -> None:
    """Raises UserError when a command got arguments that it doesn't know."""
    if rest:
        known = [option for action in parser._actions for option in action.option_strings]
        near = difflib.get_close_matches(rest[0].split("=")[0], known, 1)
        raise UserError(f"unknown argument {rest[0]}" + (f"; did you mean {near[0]}?" if near else "; see --help"))


def run_command(main: Callable[[list[str]], None]) -> NoReturn:
    """Runs `main(argv)` as a command: exit 0, 2 with one line for a user's error, 75 to try again, 130 interrupted."""
    try:
        main(sys.argv[1:])
    except TryAgain as reason:
        print(f"stopped: {reason}", file=sys.stderr)
        sys.exit(TRY_AGAIN)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # A full disk, a directory without permission: the file and the system's words say it all.
        print(f"error: {error.filename or 'input/output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on from here", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _quoted(binding: str) -> str:
    """Shells strip quotes: a value that is no Python literal, reference or macro is taken as a string."""
    name, value = binding.split("=", 1)
    try:
        ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        if not value.strip().startswith(("@", "%")):
            return f"{name}={value!r}"
    return binding
