"""python -m opencoder_jax convert: takes a model to Hugging Face's format, or from it, or from llama.cpp's GGUF."""

import argparse
from pathlib import Path

from opencoder_jax.exchange.export_model import export_model
from opencoder_jax.exchange.import_model import import_model
from opencoder_jax.exchange.model_card import Story
from opencoder_jax.parallel.model_directory import CONFIG
from opencoder_jax.recipe import parse_flags, refuse_unknown


def main(argv: list[str]) -> None:
    """Converts a model, which way what lies in `--from` says. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax convert",
        description="Makes a Hugging Face folder of a run's newest checkpoint, or a model directory of such a folder or"
        " of a GGUF file: told apart by what lies there. What it makes is there whole or not at all.",
        epilog=(
            "examples:\n"
            "  python -m opencoder_jax convert --from=runs/sft --to=hugging_face/my-model --dtype=bfloat16"
            " --license=apache-2.0 --data=runs/data\n"
            "  python -m opencoder_jax convert --from=downloads/OpenCoder-1.5B-Instruct --to=runs/opencoder\n"
            "  python -m opencoder_jax convert --from=SmolLM2-135M-Instruct.Q8_0.gguf --to=runs/smollm2\n"
        ),
    )
    parser.add_argument("--from", dest="source", required=True, type=Path, metavar="DIR", help="or a GGUF file")
    parser.add_argument("--to", dest="target", required=True, type=Path, metavar="DIR", help="what is made: a new one")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="going out, of the tensors (what they came in, else float32); coming in, of the computation (bfloat16"
        " where the tensors are, else float32)",
    )
    out = parser.add_argument_group("going out")
    out.add_argument("--step", type=int, metavar="N", help="which checkpoint; the newest by default")
    out.add_argument("--base", action="store_true", help="the model knows no chats: texts end with </s>")
    out.add_argument("--license", metavar="NAME", help="of the model, as Hugging Face names it: apache-2.0, mit, …")
    out.add_argument("--data", type=Path, metavar="DIR", help="data stages, whose funnel the model card tells")
    out.add_argument(
        "--scores", type=Path, metavar="DIR", action="append", default=[], help="an output of eval, for the card"
    )
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    if (flags.source / CONFIG).exists():
        story = Story(flags.license, flags.data, tuple(flags.scores))
        print(export_model(flags.source, flags.target, flags.step, flags.dtype, flags.base, story))
    else:
        print(import_model(flags.source, flags.target, flags.dtype))
