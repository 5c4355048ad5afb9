"""Near duplicates on the standard library of this Python: how fast signatures are, and whether bands follow theory.

Run: python -m tests.benchmarks.near_duplicates

Throughput is UTF-8 text over processor time (of all threads), so it is that of one core. For the rates, words of the
library's files are replaced at random until a copy has about the wanted Jaccard similarity; the expected rate is the
mean of 1-(1-J^128)^16 over the exact similarities J of the pairs. Takes about a minute and 1 GB.
"""

import random
import re
import sysconfig
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from beam_pipelines.code.minhash import document_bands, shingles
from beam_pipelines.code.near_duplicates import NearDuplicatesConfig
from beam_pipelines.documents import BATCH_BYTES

PAIRS = 400
SEED = 0

T = TypeVar("T")


def library() -> list[bytes]:
    """The files of the standard library, in order."""
    root = Path(sysconfig.get_path("stdlib"))
    return [file.read_bytes() for file in sorted(root.rglob("*.py")) if "site-packages" not in file.parts]


def batches(texts: list[bytes]) -> Iterator[list[bytes]]:
    """Batches as the pipeline cuts them."""
    batch: list[bytes] = []
    for text in texts:
        batch.append(text)
        if sum(map(len, batch)) > BATCH_BYTES:
            yield batch
            batch = []
    yield batch


def timed(work: Callable[..., T], *arguments: object) -> tuple[T, float]:
    """The result of a call, and the processor seconds that it took."""
    start = time.process_time()
    return work(*arguments), time.process_time() - start


def edited(text: bytes, edits: int, chance: random.Random) -> bytes:
    """The text with some of its words replaced by new ones."""
    words = re.split(rb"(\W+)", text)
    for place in chance.sample(range(0, len(words), 2), edits):
        words[place] = b"%x" % chance.getrandbits(64)
    return b"".join(words)


def main() -> None:
    config = NearDuplicatesConfig()
    texts = library()
    size = sum(map(len, texts)) / 1e6
    print(f"{len(texts)} files, {size:.1f} MB; {config.bands} bands of {config.rows}, grams of {config.shingle} words")

    shingling = signing = 0.0
    for batch in batches(texts):
        (hashes, offsets), seconds = timed(shingles, batch, config.shingle)
        shingling += seconds
        signing += timed(document_bands, hashes, offsets, config.bands, config.rows)[1]
    print(f"shingles    {size / shingling:6.1f} MB/s a core")
    print(f"signatures  {size / signing:6.1f} MB/s a core")
    print(f"both        {size / (shingling + signing):6.1f} MB/s a core")

    chance = random.Random(SEED)
    suited = [text for text in texts if 5_000 < len(text) < 50_000]
    print(f"Jaccard  candidates  expected   error  (rates over {PAIRS} pairs; error in standard deviations)")
    for wanted in (0.90, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995):
        originals = [chance.choice(suited) for _ in range(PAIRS)]
        grams = np.diff(shingles(originals, config.shingle)[1])
        edits = np.maximum(1, grams * (1 - wanted) / (1 + wanted) / config.shingle).round().astype(int).tolist()
        copies = [edited(text, count, chance) for text, count in zip(originals, edits, strict=True)]
        hashes, offsets = shingles(
            [text for pair in zip(originals, copies, strict=True) for text in pair], config.shingle
        )
        bands = document_bands(hashes, offsets, config.bands, config.rows)
        sets = [set(hashes[start:stop].tolist()) for start, stop in pairwise(offsets)]
        similar = np.array([len(a & b) / len(a | b) for a, b in zip(sets[0::2], sets[1::2], strict=True)])
        chances = 1 - (1 - similar**config.rows) ** config.bands
        found = (bands[0::2] == bands[1::2]).any(axis=1).mean()
        error = (found - chances.mean()) / (np.sqrt((chances * (1 - chances)).sum()) / PAIRS)
        print(f"{similar.mean():7.3f}  {found:10.3f}  {chances.mean():8.3f}  {error:+6.1f}")


if __name__ == "__main__":
    main()
