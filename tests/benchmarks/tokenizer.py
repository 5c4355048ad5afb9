"""The tokenizer: how fast a core encodes, beside Hugging Face's library with the same vocabulary, and are ids the same.

Run: python -m tests.benchmarks.tokenizer --tokenizer=DIR/tokenizer.model --source=DIR [--source=DIR …] [--megabytes=40]

The sample is the files of the sources with the smallest hashes of their paths, so it's always the same. Speeds are
UTF-8 text over processor time, the better of two rounds: those of one core. "cold" begins with an empty table of words,
as a worker does; "warm" has seen the same text. `tokenizers` works on one thread, file by file, and in batches without
offsets, its faster call.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import tokenizers
import xxhash

from opencoder_jax.exchange.tokenizer_export import hugging_face_files
from opencoder_jax.tokenization.pre_split import PRE_SPLIT
from opencoder_jax.tokenization.tokenizer import Tokenizer

BATCH = 64


def sample(sources: list[str], megabytes: float) -> list[str]:
    """Files that are UTF-8, by the hash of their path, up to a size."""
    found = [(file, str(file.relative_to(source))) for source in sources for file in Path(source).rglob("*.*")]
    found.sort(key=lambda item: xxhash.xxh3_64_intdigest(item[1].encode(errors="surrogateescape")))
    texts, left = [], megabytes * 1e6
    for file, _ in found:
        if left <= 0:
            break
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 1_000_000:
            try:
                texts.append(file.read_bytes().decode())
            except UnicodeDecodeError:
                continue
            left -= len(texts[-1].encode())
    return texts


def measure(name: str, size: int, work: Callable[[], object]) -> None:
    """Prints megabytes a second of processor time."""
    seconds = []
    for _ in range(2):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    print(f"{name:<58}{size / 1e6 / min(seconds):8.1f} MB/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, metavar="FILE")
    parser.add_argument("--source", action="append", required=True, metavar="DIR", help="source code; repeatable")
    parser.add_argument("--megabytes", type=float, default=40)
    flags = parser.parse_args()

    tokenizer = Tokenizer.load(flags.tokenizer)
    theirs = tokenizers.Tokenizer.from_str(hugging_face_files(tokenizer)["tokenizer.json"])
    theirs.encode_special_tokens = True
    texts = sample(flags.source, flags.megabytes)
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts)} files, {size / 1e6:.1f} MB; {tokenizer.vocab_size} ids; tokenizers {tokenizers.__version__}")

    def cold() -> None:
        fresh = Tokenizer(tokenizer.model)
        for text in texts:
            fresh.encode_array(text)

    measure("the split into words alone: the limit", size, lambda: [PRE_SPLIT.findall(text) for text in texts])
    measure("encode, cold", size, cold)
    measure("encode, warm", size, lambda: [tokenizer.encode_array(text) for text in texts])
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    measure("tokenizers, file by file", size, lambda: [theirs.encode(text).ids for text in texts])
    measure("tokenizers, in batches without offsets", size, lambda: [theirs.encode_batch_fast(one) for one in batches])

    ids = [tokenizer.encode(text) for text in texts]
    print(f"bytes a token: {size / sum(map(len, ids)):.3f}")
    print(f"files with other ids: {sum(theirs.encode(text).ids != one for text, one in zip(texts, ids, strict=True))}")
    wrong = sum(tokenizer.decode(one) != text for text, one in zip(texts, ids, strict=True))
    print(f"files that don't come back: {wrong}")


if __name__ == "__main__":
    main()
