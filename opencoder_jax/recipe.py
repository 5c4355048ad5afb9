"""Recipes: gin files bind frozen dataclasses, and a user's mistake is one line.

Gin stays at the edge. A configuration is a frozen dataclass that validates itself in `__post_init__` and can be read
and built without gin; `@configurable` lets a gin file, or a flag `--gin.Name.field=value`, give its fields other
defaults. Every command of the project parses its flags here, so that they are spelt the same everywhere.

This module knows neither JAX nor Beam: both halves of the house use it.
"""

import argparse
import ast
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import gin

# Every configurable of the project. A command parses a whole recipe but imports only the rooms that it needs, so gin
# must know which unknown names belong to other rooms and which are misspelt. (tests/test_house.py holds it true.)
CONFIGURABLES = (
    "ArchivesConfig",
    "CollectConfig",
    "CompressionConfig",
    "ConversationsConfig",
    "CookbookConfig",
    "DataConfig",
    "DecontaminateConfig",
    "DoctestConfig",
    "EvaluateConfig",
    "ExactDuplicatesConfig",
    "FilterConfig",
    "GitConfig",
    "InspectConfig",
    "InstructionsConfig",
    "JoinMetadataConfig",
    "MeshConfig",
    "ModelConfig",
    "NearDuplicatesConfig",
    "OptimizerConfig",
    "RedactConfig",
    "SampleConfig",
    "SamplingConfig",
    "SelectConfig",
    "SignalsConfig",
    "TablesConfig",
    "TokenRecordsConfig",
    "TokenizerConfig",
    "TrainConfig",
)

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
gin.add_config_file_search_path(str(ROOT))
# Gin's second reader takes a file for the data of an installed package, and breaks on folders without an __init__.py.
del gin.config._FILE_READERS[1:]


class UserError(Exception):
    """A mistake that the user can mend. Its message names what is wrong and what to do; no traceback is shown."""


class TryAgain(Exception):
    """The work stopped for a reason outside itself (preempted, a host lost); the same command goes on from there."""


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

    An `include` in a gin file is looked up beside the working directory and beside the repository's root.

    Raises:
        UserError: a file is missing, or a name or value is wrong; the message says which, and the nearest right name.
    """
    gin.clear_config(clear_constants=True)
    for file in gin_files:
        if not Path(file).is_file() and not (ROOT / file).is_file():
            raise UserError(f"gin file {file}: no such file")
    try:
        gin.parse_config_files_and_bindings(
            list(gin_files),
            [_quoted(binding) for binding in bindings],
            skip_unknown=CONFIGURABLES,
            finalize_config=False,  # a module that is imported later may still register its own
        )
    except Exception as error:  # gin raises ValueError, TypeError, SyntaxError, NameError and OSError for a bad recipe
        raise UserError(_explain(str(error).strip(), gin_files)) from None


def find_gin(file: str) -> Path:
    """A gin file by its path from the working directory or from the repository's root. Raises UserError."""
    for place in (Path(file), ROOT / file):
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


def parse_flags(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parses `--gin_file=F` and `--gin.Name.field=value`, both repeatable, beside the parser's own flags; binds them.

    Returns:
        The parsed flags, and the arguments that neither the parser nor gin knows.
    """
    parser.add_argument(
        "--gin_file", action="append", default=[], metavar="FILE", help="a recipe; repeat to derive one from another"
    )
    parser.epilog = (parser.epilog or "") + "\nAny field of a recipe can be overridden: --gin.TrainConfig.steps=10"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    bindings = [argument[len("--gin.") :] for argument in argv if argument.startswith("--gin.")]
    for binding in bindings:
        if "=" not in binding or "." not in binding.split("=", 1)[0]:
            raise UserError(f"--gin.{binding}: write --gin.Name.field=value")
    flags, rest = parser.parse_known_args([argument for argument in argv if not argument.startswith("--gin.")])
    bind(flags.gin_file, bindings)
    return flags, rest


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


def _explain(message: str, gin_files: Sequence[str]) -> str:
    first = " ".join(line.strip() for line in message.splitlines() if line.strip())
    if misspelt := re.match(r"Configurable '(\w+)' doesn't have a parameter named '(\w+)'", first):
        names = [field.name for field in fields(gin.get_configurable(misspelt[1]))]
        near = difflib.get_close_matches(misspelt[2], names, 1)
        return f"recipe: {first} " + (f"Did you mean {near[0]}?" if near else f"It has {', '.join(names)}.")
    for word in first.replace("'", " ").replace('"', " ").replace("`", " ").split():
        near = difflib.get_close_matches(word.split(".")[0].rsplit("/", 1)[-1], CONFIGURABLES, 1, 0.75)
        if near and word.split(".")[0] not in CONFIGURABLES:
            return f"recipe: {first} Did you mean {near[0]}?"
    return f"recipe: {first}" + (f" (reading {', '.join(gin_files)})" if gin_files else "")
