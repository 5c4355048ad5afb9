"""python -m opencoder_jax convert: takes a model over from Hugging Face or llama.cpp."""

import argparse
from pathlib import Path

from opencoder_jax.exchange.import_model import import_model
from opencoder_jax.recipe import parse_flags, refuse_unknown


def main(argv: list[str]) -> None:
    """Converts a model. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m opencoder_jax convert", description=__doc__)
    parser.add_argument("--from", dest="source", required=True, type=Path, metavar="DIR", help="the model, as it is")
    parser.add_argument("--to", dest="target", required=True, type=Path, metavar="DIR", help="a new directory")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="of the computation")
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    print(import_model(flags.source, flags.target, flags.dtype))
