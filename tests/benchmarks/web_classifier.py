"""The classifier of pages beside fastText itself, in one run: F1 on sites that training never saw, and time.

    python -m tests.benchmarks.web_classifier --peer=/path/to/python        # 8,000 generated pages

Both learn from the same lines (`Classifier.spelled`) with the same settings; fastText, where the other Python has it,
with `--threads`, for its wheels for numpy 2 begin with memory that nobody set when there are fewer than 11.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from opencoder_jax.beam_pipelines.tokens.train_tokenizer import TokenizerConfig, train, word_table
from opencoder_jax.beam_pipelines.web.fasttext.classifier import Classifier, ClassifierConfig
from opencoder_jax.beam_pipelines.web.text.html import page_text
from opencoder_jax.tokenization.pre_split import PRE_SPLIT
from opencoder_jax.tokenization.tokenizer import Tokenizer
from tests.generated_crawl import CrawlSize, pages

_PEER = """
import json, sys, time
import fasttext
folder, threads, config = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
began = time.perf_counter()
model = fasttext.train_supervised(
    f"{folder}/training.txt", dim=config["dim"], wordNgrams=config["word_ngrams"], bucket=config["buckets"],
    epoch=config["epochs"], lr=config["learning_rate"], minCount=1, loss="softmax", thread=threads, verbose=0)
took = time.perf_counter() - began
lines = open(f"{folder}/unseen.txt", encoding="utf-8").read().splitlines()
found = [model.f.predict(line + "\\n", 1, 0.0, "strict")[0][1] == "__label__wanted" for line in lines]
print(json.dumps([took, found]))
"""


def f1(found: Sequence[bool] | np.ndarray, wanted: np.ndarray) -> float:
    """Of the wanted kind."""
    hits = np.asarray(found, bool)
    return float(2 * (hits & wanted).sum() / max(1, hits.sum() + wanted.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=8_000)
    parser.add_argument("--sites", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", default="", help="a Python that has fastText")
    parser.add_argument("--threads", type=int, default=12, help="of the peer")
    flags = parser.parse_args()
    made = list(pages(CrawlSize(flags.pages, flags.sites), flags.seed))
    texts = [page_text(page.content, page.charset).text for page in made]
    wanted, training = (np.array([getattr(page, name) for page in made]) for name in ("wanted", "training"))
    words = Counter(
        word for text, mine in zip(texts, training, strict=True) if mine for word in PRE_SPLIT.findall(text)
    )
    tokenizer = Tokenizer(train(word_table(words), TokenizerConfig(vocab_size=8_000, reserved_ids=2)))
    parts = {
        name: [text for text, mine in zip(texts, training, strict=True) if bool(mine) == (name == "training")]
        for name in ("training", "unseen")
    }
    config = ClassifierConfig(threads=2, least_shown=1)
    began = time.perf_counter()
    classifier = Classifier.fit(parts["training"], wanted[training].tolist(), tokenizer, config)
    took = time.perf_counter() - began
    ours = f1(classifier.scores(parts["unseen"]) >= 0.5, wanted[~training])
    print(f"{training.sum()} pages to learn from, {wanted[training].sum()} of them wanted; {(~training).sum()} unseen")
    print(f"ours, 2 threads: F1 {ours:.4f}, {took:.1f} s with the cut into tokens")
    if not flags.peer:
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name, which in (("training", training), ("unseen", ~training)):
            lines = [
                f"__label__{'wanted' if mine else 'other'} {classifier.spelled(text)}"
                if name == "training"
                else classifier.spelled(text)
                for text, mine in zip(parts[name], wanted[which], strict=True)
            ]
            (Path(scratch) / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = json.dumps(
            {name: getattr(config, name) for name in ("dim", "word_ngrams", "buckets", "epochs", "learning_rate")}
        )
        command = [flags.peer, "-c", _PEER, scratch, str(flags.threads), settings]
        took, found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    print(f"fastText, {flags.threads} threads: F1 {f1(found, wanted[~training]):.4f}, {took:.1f} s without it")


if __name__ == "__main__":
    main()
