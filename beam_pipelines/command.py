"""The command of a stage, made of the function that runs it.

A stage's module defines

    def run(documents: str, signals: str, output: str, config: FilterConfig, options: BeamOptions) -> Manifest

Every parameter but the last three is a flag of the command: `--documents=DIR --signals=DIR`. A `Sequence[str]` may be
given more than once, a parameter with a default may be left out; the docstring's `Args:` are the help. A configuration
is built by gin. So there is one place to read, to call from Python, and to type.
"""

import argparse
import difflib
import importlib
import inspect
import logging
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

from opencoder_jax.beam_pipelines.core.manifest import Manifest, describe
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.configurables import meanings
from opencoder_jax.recipe import UserError, build, parse_flags


def command(verb: str, module: str, example: str, argv: list[str]) -> None:
    """Runs a stage by its flags and prints a line of what it did.

    Args:
        verb: what the command is called.
        module: of the stage, by its full name.
        example: flags that work, for the help.
        argv: the flags.

    Raises:
        UserError: a flag or an input is wrong.
    """
    for library in ("apache_beam", "concurrent.futures", "grpc"):  # they log the traceback of every error they meet
        logging.getLogger(library).setLevel(logging.CRITICAL)
    stage = importlib.import_module(module)
    parameters = [
        parameter
        for parameter in inspect.signature(stage.run).parameters.values()
        if parameter.name not in ("output", "options")
    ]
    configs: dict[str, Any] = {each.name: each.annotation for each in parameters if is_dataclass(each.annotation)}
    inputs = [parameter for parameter in parameters if parameter.name not in configs]
    parser = _parser(verb, stage.__doc__ or "", example)
    _add_inputs(parser, inputs, meanings(stage.run.__doc__ or "", "Args"))
    flags, rest = parse_flags(parser, argv, *configs.values())
    options = beam_options(parser, rest, flags.accept)
    given = {parameter.name: getattr(flags, parameter.name) for parameter in inputs}
    built = {name: build(config) for name, config in configs.items()}
    manifest: Manifest = stage.run(**given, **built, output=flags.output, options=options)
    print(describe(manifest))


def _parser(verb: str, description: str, example: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m beam_pipelines {verb}",
        description=description.strip(),
        epilog=f"Example: python -m beam_pipelines {verb} {example}\nBeam's flags pass through: --runner=…",
    )


def _add_inputs(parser: argparse.ArgumentParser, inputs: Sequence[inspect.Parameter], told: dict[str, str]) -> None:
    """A flag for each input of a stage, then those that every stage has."""
    for each in inputs:
        optional = each.default is not inspect.Parameter.empty
        many = each.annotation is not str and "Sequence" in str(each.annotation)
        flag: dict[str, Any] = {"action": "append"} if many else {}
        parser.add_argument(
            f"--{each.name}",
            required=not optional,
            default=(list(each.default) if many else each.default) if optional else None,
            metavar="DIR",
            help=told.get(each.name, "") + ("; repeatable" if many else ""),
            **flag,
        )
    parser.add_argument("--output", required=True, metavar="DIR", help="the stage directory to write")
    add_accept(parser)


def add_accept(parser: argparse.ArgumentParser) -> None:
    """The flag by which a user keeps an older output."""
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="STAGE",
        help="keeps the older output of this stage, though its code, recipe or inputs have changed; repeatable",
    )


def beam_options(parser: argparse.ArgumentParser, rest: Sequence[str], accept: Sequence[str]) -> BeamOptions:
    """The options of what neither the command nor gin knows. Raises UserError for what Beam doesn't know either."""
    try:
        return BeamOptions(tuple(rest), tuple(accept))
    except UserError:
        known = [option for action in parser._actions for option in action.option_strings]
        for argument in rest:
            if near := difflib.get_close_matches(argument.split("=")[0], known, 1, 0.75):
                raise UserError(f"unknown argument {argument}; did you mean {near[0]}?") from None
        raise
