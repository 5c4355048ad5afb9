"""Whether a teacher's distributions help a small student that shares its tokenizer, and what keeping them costs.

Run: python -m tests.benchmarks.distillation --teacher=DIR --output=DIR [--source=DIR] [--megabytes=1] [--seeds=5]

The teacher is a model directory with a tokenizer of its own (python -m opencoder_jax convert makes one of SmolLM2).
Code of the running Python's own library becomes token records with that tokenizer, 15 % of it held out; the teacher
writes its distributions of the rest. Then, for each seed, a student of 3.4 million parameters is pretrained on the
text and annealed twice on the same tokens in the same order, from the text alone and with the teacher. What counts is
the difference of the two in bits per byte of the held-out code, paired by seed, with its 95 % interval by Student's t.
Killed, it goes on where it was: every step is a command of the project.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.distillation.distributions import TEACHER
from opencoder_jax.files import read_json
from opencoder_jax.statistics.claims import over_seeds
from opencoder_jax.training.metrics import read_metrics

# The cookbook's recipes, for a student that is small beside its vocabulary.
STUDENT = [
    "--gin.ModelConfig.layers=4",
    "--gin.ModelConfig.width=64",
    "--gin.ModelConfig.head_size=16",
    "--gin.ModelConfig.ffn_width=176",
    "--gin.ModelConfig.tied_head=True",
    '--gin.DataConfig.mixture={"text":1.0}',
    "--gin.DataConfig.phases=((0,256,4),)",
    '--gin.TrainConfig.held_out=("text_heldout",)',
    "--gin.TrainConfig.evaluate_batches=32",
]
WAYS = {"text": [], "teacher": ['--gin.DataConfig.teacher="_teacher"', "--gin.TrainConfig.teacher_weight=(0.5,0.0)"]}


def command(package: str, verb: str, *arguments: str) -> float:
    """Runs a command of the project; the seconds it took."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", package, verb, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def make_records(flags: argparse.Namespace, tokens: Path) -> None:
    """Token records of the source's files, in the teacher's tokens."""
    documents, tokenizer = flags.output / "documents", flags.output / "tokenizer"
    size = f"--gin.CollectConfig.max_corpus_bytes={int(flags.megabytes * 1e6)}"
    command("beam_pipelines", "collect", *flags.source, f"--output={documents}", size)
    command("beam_pipelines", "released_tokenizer", f"--released={flags.teacher}", f"--output={tokenizer}")
    for part, name in (("train", "text"), ("heldout", "text_heldout")):
        options = [f"--documents={documents}", f"--tokenizer={tokenizer}", f"--output={tokens / name}"]
        options += ["--gin.TokenRecordsConfig.heldout=0.15", "--gin.TokenRecordsConfig.shards=4"]
        command("beam_pipelines", "records", *options, f'--gin.TokenRecordsConfig.part="{part}"')


def student(flags: argparse.Namespace, seed: int, tokens: Path, vocabulary: int) -> dict[str, float]:
    """Bits per byte of the held-out code after annealing in each way."""
    bits = {}

    def train(name: str, recipe: str, steps: int, *options: str) -> float:
        recipe = f"--gin_file=gin_configs/{recipe}/cookbook.gin"
        counts = [f"--gin.TrainConfig.steps={steps}", f"--gin.TrainConfig.evaluate_every={steps}"]
        where = [f"--data={tokens}", f"--output={flags.output / name}", f"--gin.ModelConfig.vocab_size={vocabulary}"]
        seeds = [f"--gin.TrainConfig.seed={seed}", f"--gin.DataConfig.seed={seed}"]
        command("opencoder_jax", "train", recipe, *where, *STUDENT, *counts, *seeds, *options)
        last = read_metrics(flags.output / name / "metrics.jsonl")[-1]
        return float(last["held_out"]["text_heldout"]["bits_per_byte"])

    base = f"pretrain_{seed}"
    bits["pretrained"] = train(base, "pretrain", flags.pretrain_steps)
    for way, options in WAYS.items():
        start = f"--init_from={flags.output / base}"
        bits[way] = train(f"anneal_{way}_{seed}", "anneal", flags.anneal_steps, *options, start)
    return bits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--source", nargs="*", default=[], metavar="DIR", help="of code; nothing: Python's own library")
    parser.add_argument("--megabytes", type=float, default=1.0, help="of source code")
    parser.add_argument("--pretrain_steps", type=int, default=200, help="of 1,024 tokens")
    parser.add_argument("--anneal_steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    flags = parser.parse_args()
    if flags.seeds < 2:
        parser.error("--seeds: an interval takes two or more")
    tokens = flags.output / "tokens"
    make_records(flags, tokens)
    records = TokenRecords.open(tokens / "text")
    taught = tokens / "text_teacher"
    known = (taught / TEACHER).exists()
    # Rows of a few documents: each of the four shards ends in a batch that is filled up.
    options = [f"--checkpoint={flags.teacher}", f"--records={tokens / 'text'}", "--gin.TeachConfig.rows=1"]
    seconds = command("opencoder_jax", "teach", *options, f"--output={taught}")
    size = sum(file.stat().st_size for file in taught.iterdir())
    print(f"{records.tokens:,} tokens, {size / records.tokens:.1f} bytes a token for 16 distributions", flush=True)
    if not known:
        print(f"asked in {seconds:,.0f} s, {records.tokens / seconds:,.0f} tokens/s", flush=True)
    vocabulary = read_json(flags.teacher / "model.json")["vocab_size"]
    differences = []
    for seed in range(flags.seeds):
        bits = student(flags, seed, tokens, vocabulary)
        differences.append(bits["teacher"] - bits["text"])
        print(f"seed {seed}: " + ", ".join(f"{way} {value:.4f}" for way, value in bits.items()), flush=True)
    mean, low, high = over_seeds(differences)
    print(f"bits per byte with the teacher less those without, paired: {mean:+.4f} ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()
