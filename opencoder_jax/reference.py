"""python -m opencoder_jax reference: writes docs/reference.md, every verb with its flags and every field there is."""

import argparse
import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path

from opencoder_jax.configurables import Configurable, catalog
from opencoder_jax.files import write_whole
from opencoder_jax.recipe import FIELDS_HEADING, parse_flags, refuse_unknown
from opencoder_jax.verbs import Verb

PROGRAMS = ("opencoder_jax.__main__", "opencoder_jax.beam_pipelines.__main__")


def main(argv: list[str]) -> None:
    """Writes the page. It takes both halves of the project installed."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax reference",
        description="Writes the page of all verbs, flags and fields, from the commands' own help and the sources.",
        epilog="Example: python -m opencoder_jax reference --output=docs/reference.md",
    )
    parser.add_argument("--output", type=Path, default=Path("docs/reference.md"), metavar="FILE", help="the page")
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    write_whole(flags.output, page())


def page() -> str:
    """The whole page as Markdown."""
    parts = ["# Reference", "Made by `python -m opencoder_jax reference`: don't edit it.", "## Commands"]
    for program in map(import_module, PROGRAMS):
        verbs: Mapping[str, Verb] = program.VERBS
        for name in verbs:
            parts += [f"### {program.PROGRAM} {name}", f"```text\n{help_of(program.main, name)}\n```"]
    parts += [
        "## Fields of recipes",
        "A gin file, or a flag `--gin.Name.field=value`, gives a field another value than its default.",
        *(
            f"### {entry.name}\n\n{entry.meaning} (`{entry.module}`)\n\n{fields_table(entry)}"
            for entry in catalog().values()
        ),
    ]
    return "\n\n".join(parts) + "\n"


def help_of(main: object, verb: str) -> str:
    """What `VERB --help` prints before the fields of its recipe, which have tables of their own."""
    printed = io.StringIO()
    os.environ["COLUMNS"] = "110"  # argparse fits its lines to the terminal, or to this
    with redirect_stdout(printed), suppress(SystemExit):
        main([verb, "--help"])  # type: ignore[operator]
    return printed.getvalue().partition(FIELDS_HEADING)[0].strip()


def fields_table(entry: Configurable) -> str:
    """A row for each field: name, type, default, meaning."""
    rows = [(field.name, field.type, field.default, field.meaning) for field in entry.fields.values()]
    lines = [[f"`{cell}`" for cell in row[:3]] + [row[3]] for row in rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    table = [["field", "type", "default", "meaning"], ["---"] * 4, *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)
