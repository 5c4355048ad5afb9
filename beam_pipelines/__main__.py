"""`python -m beam_pipelines VERB …`: chains of stages. A single stage is `python -m beam_pipelines.ROOM.STAGE`."""

import difflib
import importlib

from opencoder_jax.recipe import UserError, run_command

# The module of a verb defines `main(argv)`; its docstring begins with what it does.
VERBS = {
    "refinecode": ("opencoder_jax.beam_pipelines.refinecode", "--input=/path/to/repositories --output=runs/refinecode"),
    "inspect": (
        "opencoder_jax.beam_pipelines.inspection.inspect_rules",
        "--input=runs/refinecode/redact --input=runs/refinecode/signals --output=runs/inspect",
    ),
}


def main(argv: list[str]) -> None:
    """Hands the arguments after the verb to its module.

    Raises:
        UserError: there is no such verb.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
    elif name in VERBS:
        importlib.import_module(VERBS[name][0]).main(rest)
    else:
        near = difflib.get_close_matches(name, VERBS, 1, 0.5)
        raise UserError(
            f"unknown verb {name}; " + (f"did you mean {near[0]}?" if near else f"verbs: {', '.join(VERBS)}")
        )


def usage() -> str:
    """Every verb with an example."""
    lines = [f"  python -m beam_pipelines {name} {example}" for name, (_, example) in VERBS.items()]
    return "\n".join(["usage: python -m beam_pipelines VERB [flags]", "", *lines, "", "Each has a --help of its own."])


if __name__ == "__main__":
    run_command(main)
