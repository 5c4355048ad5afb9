"""python -m opencoder_jax doctor: the sandbox's walls and the languages that this machine can run, with versions."""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from opencoder_jax.files import write_whole
from opencoder_jax.recipe import UserError, parse_flags, refuse_unknown
from opencoder_jax.sandbox.languages import toolchains
from opencoder_jax.sandbox.pool import Sandbox, SandboxError


def main(argv: list[str]) -> None:
    """Prints what it finds, and writes it as JSON where it's told to."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax doctor",
        description="Tells which walls stand around untrusted programs here, and which languages they may be in.",
        epilog="Example: python -m opencoder_jax doctor --output=machine.json",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="the same as JSON")
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="make now what Go and C++ programs share, rather than when the first is compiled (Go: a minute)",
    )
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    found = examine()
    print(told(found))
    if flags.output:
        write_whole(flags.output, json.dumps(found, indent=1) + "\n")
    if flags.prepare:
        for name in found["toolchains"]:
            try:
                toolchains.find(name).prepare()
            except toolchains.ToolchainError as error:
                raise UserError(str(error)) from None


def examine() -> dict[str, Any]:
    """The walls, the languages that can be run with their toolchains' versions, and why others can't."""
    try:
        with Sandbox() as sandbox:
            layers = sandbox.layers
    except SandboxError as error:
        layers = {"sandbox": f"missing: {error}"}
    languages = dict(toolchains.found())
    return {
        "sandbox": layers,
        "python": platform.python_version(),
        "toolchains": {name: found.version for name, found in languages.items() if not isinstance(found, str)},
        "missing": {name: why.removeprefix(f"{name}: ") for name, why in languages.items() if isinstance(why, str)},
    }


def told(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = ["Walls around untrusted programs:", *_table(found["sandbox"])]
    lines += ["", "Languages that can be run:", *_table({"Python": found["python"]} | found["toolchains"])]
    if found["missing"]:
        lines += ["", "Languages that can't:", *_table(found["missing"])]
    return "\n".join(lines)


def _table(rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows), default=0)
    return [f"  {name:{width}}  {value}" for name, value in rows.items()]
