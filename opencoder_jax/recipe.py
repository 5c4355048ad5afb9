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
import operator
import os
import re
import select
import shlex
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple, NoReturn, TypeVar

import gin
from gin import config_parser

from opencoder_jax.configurables import Configurable, accepts, catalog, checks_types, of_class, wanted

T = TypeVar("T")

PACKAGE = Path(__file__).parent  # holds gin_configs
ROOT = PACKAGE.resolve().parent  # of the checkout, where this is one


class UserError(Exception):
    """A mistake that the user can mend. Its message names what is wrong and what to do; no traceback is shown."""


class TryAgain(Exception):
    """The work stopped for a reason outside itself (preempted, a host lost); the same command goes on from there."""


FIELDS_HEADING = "fields of its recipe"  # in a command's help

# What a command that raises TryAgain exits with: sysexits.h's "temporary failure", which launchers answer by a restart.
TRY_AGAIN = 75
BROKEN_PIPE = 141  # as a shell says of a program that SIGPIPE ended

OUTPUT = "standard output"  # in the place of a file's name
DEBUG = "--debug"  # a flag of every command
_SHOWN_BY_DEBUG = f"the same command with {DEBUG} shows where"


def configurable(cls: type[T]) -> type[T]:
    """Lets gin bind the fields of a dataclass by its class name; a value of another type than a field's is refused.

    `python -m package.module` runs a second copy of the module under the name `__main__`; that copy stays unregistered,
    or the name would be ambiguous.
    """
    checked = checks_types(cls)
    return checked if cls.__module__ == "__main__" else gin.configurable(checked)


def bind(gin_files: Sequence[str] = (), bindings: Sequence[str] = ()) -> None:
    """Replaces all bindings in force by those of `gin_files`, in order, then of `bindings` ("Name.field=value").

    A gin file is looked up from the working directory and from the package, an `include` also beside its file.

    Raises:
        UserError: a file is missing, or a name or value is wrong; the message says which, and the nearest right name.
    """
    bound = check_bindings(gin_files, [_quoted(binding) for binding in bindings])
    gin.clear_config(clear_constants=True)
    for (name, field), value in bound.items():
        with suppress(ValueError):  # its module isn't loaded: this process has no use for it
            gin.bind_parameter(f"{name}.{field}", value)


def check_bindings(gin_files: Sequence[str], bindings: Sequence[str]) -> dict[tuple[str, str], Any]:
    """Checks every binding of a recipe against the names and types of the fields, without importing what has them.

    Returns:
        The values by (name, field); the last binding of a field wins.

    Raises:
        UserError: naming the file and line, or the flag, and the nearest right name.
    """
    statements = list(_statements(gin_files, bindings))
    macros = {statement.selector: statement.value for statement in statements if not statement.arg_name}
    bound: dict[tuple[str, str], Any] = {}
    for statement in filter(operator.attrgetter("arg_name"), statements):
        place = f"{_file_of(statement)}{statement.selector}.{statement.arg_name}"
        if (known := _known(statement.selector)) is None:
            near = difflib.get_close_matches(statement.selector, catalog(), 1, 0.6)
            advice = f"Did you mean {near[0]}?" if near else f"There are {', '.join(catalog())}."
            raise UserError(f"recipe: {place}: no configuration is called {statement.selector}. {advice}")
        if (field := known.fields.get(statement.arg_name)) is None:
            near = difflib.get_close_matches(statement.arg_name, known.fields, 1)
            near = _ELSEWHERE.get((known.name, statement.arg_name), near)
            advice = f"Did you mean {' and '.join(near)}?" if near else f"It has {', '.join(known.fields)}."
            raise UserError(f"recipe: {place}: {known.name} has no field {statement.arg_name}. {advice}")
        try:
            value = _resolved(statement.value, macros)
        except ValueError as error:
            raise UserError(f"recipe: {place}: {error}") from None
        if not accepts(field.type, value):
            example = f", such as {field.default}" if field.default not in ("", "None") else ""
            raise UserError(f"recipe: {place}={value!r}: must be {wanted(field.type)}{example}")
        bound[known.name, field.name] = value
    return bound


# What other projects call otherwise, or keep elsewhere.
_ELSEWHERE = {
    ("NearDuplicatesConfig", "threshold"): ["bands", "rows, which make the similarity"],
    ("TrainConfig", "batch_size"): ["DataConfig.phases, whose third number is the rows of a batch"],
    ("DataConfig", "batch_size"): ["phases, whose third number is the rows of a batch"],
    ("DataConfig", "sequence_length"): ["phases, whose second number is the length of a row"],
    ("TrainConfig", "learning_rate"): ["OptimizerConfig.peak_learning_rate"],
    ("OptimizerConfig", "learning_rate"): ["peak_learning_rate"],
}


def _known(name: str) -> Configurable | None:
    """A configuration by its name: the project's own, or one that a program has registered."""
    if name in catalog():
        return catalog()[name]
    try:
        return of_class(gin.get_configurable(name))
    except (ValueError, KeyError):
        return None


class _Name(NamedTuple):
    """What a recipe names: a macro, or with its `@` a reference."""

    name: str


class _Delegate(config_parser.ParserDelegate):
    """What gin's parser makes of names; a recipe holds values and no objects."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return _Name(f"@{scoped_configurable_name}")

    def macro(self, macro_name: str) -> Any:
        return _Name(macro_name)


def _resolved(value: Any, macros: Mapping[str, Any]) -> Any:
    """A value with its macros replaced by what they stand for. Raises ValueError for one that isn't bound."""
    match value:
        case _Name(name):
            if name.startswith("@"):
                raise ValueError(f"{name}: a field takes a value, no reference")
            if name not in macros:
                raise ValueError(f"%{name} isn't bound; write {name} = VALUE in the recipe")
            try:
                return _resolved(macros[name], macros)
            except RecursionError:
                raise ValueError(f"%{name} stands for itself") from None
        case dict():
            return {_resolved(key, macros): _resolved(item, macros) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_resolved(item, macros) for item in value)
    return value


def _statements(gin_files: Sequence[str], bindings: Sequence[str]) -> Iterator[config_parser.BindingStatement]:
    """The bindings of a recipe, includes in their places. Raises UserError for what is no gin, or more than values."""
    for file in gin_files:
        yield from _of_file(find_gin(file))
    for binding in bindings:
        yield from _parsed(binding, binding, ())


def _of_file(path: Path, within: tuple[Path, ...] = ()) -> Iterator[config_parser.BindingStatement]:
    if path in within:
        raise UserError(f"recipe: {path} includes itself; take that include out")
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"recipe: {path}: {error}") from None
    yield from _parsed(str(path), text, (*within, path))


def _parsed(source: str, text: str, within: tuple[Path, ...]) -> Iterator[config_parser.BindingStatement]:
    """The bindings of a text; `within` are the files that it stands in, the innermost last."""
    try:
        named = io.StringIO(text)
        named.name = source if within else None  # gin tells places by it
        for statement in config_parser.ConfigParser(named, _Delegate()):
            place = f"line {statement.location.line_num}: " if within else ""
            if isinstance(statement, config_parser.IncludeStatement):
                yield from _of_file(find_gin(statement.filename, within[-1].parent if within else None), within)
            elif isinstance(statement, config_parser.ImportStatement):
                raise ValueError(f"{place}import {statement.module}: a recipe imports nothing; take the line out")
            elif statement.scope:
                scope = statement.scope
                raise ValueError(f"{place}{scope}/{statement.selector}: a recipe has no scopes; take {scope}/ away")
            elif isinstance(statement, config_parser.BindingStatement):
                yield statement
    except (SyntaxError, ValueError, TokenError, RecursionError, MemoryError) as error:
        message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        if "malformed node" in message:
            message = (
                f"{message.partition('token ')[2] or message} is no value; write a number, True, False, None or 'text'"
            )
        raise UserError(f"recipe: {source}{line}: {message}") from None


def _file_of(statement: config_parser.BindingStatement) -> str:
    place = statement.location
    return f"{place.filename}, line {place.line_num}: " if place.filename else ""


def find_gin(file: str, beside: Path | None = None) -> Path:
    """A gin file by its path from the working directory, the package, or the folder `beside`. Raises UserError."""
    for place in (Path(file), PACKAGE / file, *([beside / file] if beside else [])):
        if place.is_file():
            return place
    raise UserError(f"gin file {file}: no such file")


def gin_text(file: str, beside: Path | None = None) -> str:
    """A gin file with its includes in their places, without comments: two recipes that read the same are the same."""
    lines, path = [], find_gin(file, beside)
    for line in path.read_text(encoding="utf-8").splitlines():
        include = re.fullmatch(r"include\s+['\"](.+)['\"]", line.strip())
        if include:
            lines.append(gin_text(include.group(1), path.parent))
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
    if not {"-h", "--help"}.isdisjoint(argv):  # else the sources of all configurations needn't be read for it
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
    """Runs `main(argv)` as a command, which ends in one line and never in a traceback, unless `--debug` asks for it.

    Exit codes: 0; 2 for what the user can mend; 1 for a fault of the program; 75 to try again; 130 interrupted; 141
    where nobody reads the output any more.
    """
    argv = sys.argv[1:]
    own = argv[: argv.index("--")] if "--" in argv else argv  # behind that, another command's
    debug = DEBUG in own
    if debug:
        argv.remove(DEBUG)
    else:
        # Libraries' threads, and what Python cleans up in the end, would print tracebacks of their own.
        threading.excepthook = lambda thread: print(f"warning: {_told(thread.exc_value)}", file=sys.stderr)
        sys.unraisablehook = lambda unraisable: None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold what no encoding has
    code, line = 0, ""
    try:
        try:
            main(argv)
        finally:
            flush_output()
    except BaseException as error:
        code, line = ending(error)
        if debug and code not in (0, BROKEN_PIPE):
            traceback.print_exc()
    if line:
        with suppress(OSError):
            print(line.replace("\n", "\\n"), file=sys.stderr, flush=True)  # names of files may hold such a thing
    sys.exit(code)


def ending(error: BaseException) -> tuple[int, str]:
    """The exit code of a command that an error ends, and what is said of it in one line."""
    match error:
        case SystemExit():
            return (error.code, "") if isinstance(error.code, int) else (int(bool(error.code)), str(error.code or ""))
        case TryAgain():
            return TRY_AGAIN, f"stopped: {error}"
        case UserError():
            return 2, f"error: {error}"
        case KeyboardInterrupt():
            return 130, "interrupted: run the same command again to go on from here"
        case BrokenPipeError() if error.filename == OUTPUT or not (error.filename or _is_read()):
            return BROKEN_PIPE, ""
        case OSError():
            # A full disk, a directory without permission: the file and the system's words say it all.
            place, why = error.filename, error.strerror or _last_line(str(error))
            if not place and (arrows := re.search(r"'(.+)'\. Detail: (?:\[errno \d+\] )?(.+)", why)):
                place, why = arrows.groups()
            return 2, f"error: {place or 'input/output'}: {why}"
        case ModuleNotFoundError() if error.name and error.name.split(".")[0] != PACKAGE.name:
            return 2, f"error: the package {error.name} isn't installed; README says which requirements take it along"
        case MemoryError():
            return 1, f"error: out of memory; {_SHOWN_BY_DEBUG}"
    return 1, f"error: {_told(error)} (a fault of this program; {_SHOWN_BY_DEBUG})"


def _told(error: BaseException | None) -> str:
    told = _last_line(str(error))
    return told if re.match(r"(\w+\.)*\w*(Error|Exception): ", told) else f"{type(error).__name__}: {told}"


def _last_line(text: str) -> str:
    """What a message says in the end: that of a worker is its whole traceback."""
    last = text.rsplit("Traceback (most recent call last):\n", 1)[-1]
    lines = [line for line in last.splitlines() if line.strip() and not line.startswith(" ")] or [
        " ".join(text.split())
    ]
    return lines[0].split(" [while running")[0]


def flush_output() -> None:
    """Writes out what was printed. Raises OSError, with OUTPUT as its file, where that can't be done."""
    if sys.stdout is None:  # it was closed before the program began
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        # Nothing can be printed any more, and Python would complain of that once again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise type(error)(error.errno, error.strerror, OUTPUT) from None


def _is_read() -> bool:
    """Whether the standard output still has a reader, if it's a pipe."""
    poll = select.poll()
    poll.register(1, 0)
    return not any(event & select.POLLERR for _, event in poll.poll(0))


_WORDS = {"true": True, "false": False, "none": None}  # as other tools spell them


def _quoted(binding: str) -> str:
    """Shells strip quotes: a value that is no Python literal or macro is taken as a string.

    `true`, `false` and `none` are what they say where the field takes that.
    """
    name, value = binding.split("=", 1)
    try:
        ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        word = value.strip().lower()
        owner, _, field = name.strip().rpartition(".")
        known = _known(owner) if word in _WORDS else None
        if known and field in known.fields and accepts(known.fields[field].type, _WORDS[word]):
            return f"{name}={_WORDS[word]}"
        if not value.strip().startswith(("@", "%")):
            return f"{name}={value!r}"
    return binding
