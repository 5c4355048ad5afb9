"""Near duplicates: speed of signatures, whether bands follow theory, and the whole stage beside its peers.

Run: python -m tests.benchmarks.near_duplicates [--source=DIR …] [--megabytes=N]

Throughput is UTF-8 text over processor time (of all threads and worker processes), so it is that of one core.

- Speed and rates of edited files: on the standard library of this Python. Words of its files are replaced at random
  until a copy has about the wanted Jaccard similarity; expected is the mean of 1-(1-J^128)^16 over the exact J.
- Rates of independent pairs: fresh random sets of one exact J each.
- With --source, folders of source code (200 MB or more; --megabytes takes the first so many): they're collected, then
  the stage runs from Parquet to Parquet, once in this process, as the peers do, and once as a command, which starts
  Python and loads everything too. On a sample, survivors are compared with those of a comparison of all pairs; and
  datatrove (its four steps, one worker) and datasketch (a plain loop) do the same work, Parquet to Parquet: 2048
  permutations in 16 bands of 128 rows over the same words' 5-grams. Whose modules were loaded before doesn't count, for
  neither of the three. They are the extra `peers` of the package; without them a line says so.

Takes about five minutes and 1 GB.
"""

import argparse
import os
import random
import re
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.documents import BATCH_BYTES, SCHEMA, priorities, write_shard
from opencoder_jax.beam_pipelines.core.manifest import Manifest, digest, tally_documents
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.deduplication import near_duplicates
from opencoder_jax.beam_pipelines.deduplication.minhash import document_bands, grams
from opencoder_jax.beam_pipelines.deduplication.near_duplicates import NearDuplicatesConfig
from opencoder_jax.beam_pipelines.sources import collect
from tests.beam_pipelines.deduplication.shingle_sets import shingles

PAIRS = 400
INDEPENDENT_PAIRS = 5000
SEED = 0
SAMPLE = 3000  # documents whose survivors are compared with the oracle's
PEERS_SAMPLE = 1000
WORD = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")

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


def speed(config: NearDuplicatesConfig, texts: list[bytes]) -> None:
    size = sum(map(len, texts)) / 1e6
    print(f"{len(texts)} files, {size:.1f} MB; {config.bands} bands of {config.rows}, grams of {config.shingle} words")

    document_bands(*grams([b"compiled or loaded at the first call"], 1), config.bands, config.rows)
    shingling = signing = 0.0
    for batch in batches(texts):
        (hashes, offsets), seconds = timed(grams, batch, config.shingle)
        shingling += seconds
        signing += timed(document_bands, hashes, offsets, config.bands, config.rows)[1]
    print(f"grams       {size / shingling:6.1f} MB/s a core")
    print(f"signatures  {size / signing:6.1f} MB/s a core")
    print(f"both        {size / (shingling + signing):6.1f} MB/s a core")


def rates_of_edited_files(config: NearDuplicatesConfig, texts: list[bytes]) -> None:
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


def rates_of_independent_pairs(config: NearDuplicatesConfig) -> None:
    chance = np.random.default_rng(SEED)
    print(
        f"members  Jaccard  a band  expected   error  candidates  expected   error  ({INDEPENDENT_PAIRS} pairs a line)"
    )
    for members in (200, 1000, 5000):
        for wanted in (0.97, 0.98, 0.99):
            changed = round(members * (1 - wanted) / (1 + wanted))
            similar = (members - changed) / (members + changed)
            equal = []
            for _ in range(INDEPENDENT_PAIRS // 100):
                one = chance.integers(0, 2**64, (100, members), np.uint64)
                other = one.copy()
                other[:, :changed] = chance.integers(0, 2**64, (100, changed), np.uint64)
                hashes = np.stack([one, other], axis=1).reshape(-1)
                bands = document_bands(hashes, np.arange(0, len(hashes) + 1, members), config.bands, config.rows)
                equal.append(bands[0::2] == bands[1::2])
            agree = np.concatenate(equal)
            line = f"{members:7d}  {similar:7.4f}"
            band = similar**config.rows
            for found, expected, draws in (
                (agree.mean(), band, agree.size),
                (agree.any(axis=1).mean(), 1 - (1 - band) ** config.bands, len(agree)),
            ):
                error = (found - expected) / np.sqrt(expected * (1 - expected) / draws)
                line += f"  {found:8.4f}  {expected:8.4f}  {error:+6.1f}"
            print(line, flush=True)


def processor_seconds() -> float:
    """Of this process and of all its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measured(name: str, size: float, work: Callable[[], object]) -> float:
    """Prints the speed of some work on so many megabytes, and returns it."""
    wall, processor = time.perf_counter(), processor_seconds()
    work()
    wall, processor = time.perf_counter() - wall, processor_seconds() - processor
    load = os.getloadavg()[0]
    print(
        f"{name:24} {size / processor:8.3f} MB/s a core  ({size:.1f} MB, {processor:.1f} s of processor, {wall:.1f} s "
        f"by the clock at a load of {load:.1f})",
        flush=True,
    )
    return size / processor


def whole_stage(sources: list[str], megabytes: int, place: str, config: NearDuplicatesConfig) -> tuple[float, pa.Table]:
    """Collects the sources and removes near duplicates; returns the speed, and a sample of the documents."""
    corpus = collect.CollectConfig(max_corpus_bytes=megabytes * 10**6)
    collect.run(folders=sources, output=f"{place}/collect", config=corpus, options=BeamOptions())
    size = Manifest.read(f"{place}/collect").total("out", "bytes") / 1e6
    command = [sys.executable, "-m", "beam_pipelines", "near_duplicates", f"--documents={place}/collect"]
    measured(
        "this project, a command",
        size,
        lambda: subprocess.run([*command, f"--output={place}/commanded"], check=True, capture_output=True),
    )
    speed = measured(
        "this project",
        size,
        lambda: near_duplicates.run(f"{place}/collect", f"{place}/out", config, BeamOptions()),
    )
    manifest = Manifest.read(f"{place}/out")
    assert manifest == Manifest.read(f"{place}/commanded")
    print(f"{manifest.total('in', 'documents')} documents in, {manifest.total('out', 'documents')} out")
    names = Manifest.read(f"{place}/collect").shards()
    tables = [pq.read_table(f"{place}/collect/{name}") for name in names]
    table = pa.concat_tables(tables)
    chosen = random.Random(SEED).sample(range(table.num_rows), min(SAMPLE, table.num_rows))
    return speed, table.take(sorted(chosen)).combine_chunks()


def against_all_pairs(sample: pa.Table, place: str, config: NearDuplicatesConfig) -> None:
    """Survivors of a sample, with a near copy of every tenth document, and those of a comparison of all pairs."""
    chance = random.Random(SEED)
    rows = sample.to_pylist()
    for row in rows[::10]:
        words = row["text"].split(" ")
        words[chance.randrange(len(words))] = "changed"
        identifier = f"{chance.getrandbits(128):032x}"
        text = " ".join(words)
        rows.append(row | {"id": identifier, "text": text, "bytes": len(text.encode()), "stars": chance.randrange(3)})
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)

    def work(directory: Directory) -> tuple[dict[str, Any], dict[str, str]]:
        name = "documents-00000-of-00001.parquet"
        write_shard(directory, name, [batch], SCHEMA)
        return tally_documents("out", batch), {name: digest(directory, name)}

    Stage("sample", "opencoder_jax.beam_pipelines.core.documents", config, (), f"{place}/sample").run(
        work, BeamOptions()
    )
    hashes, offsets = shingles([row["text"].encode() for row in rows], config.shingle)
    bands = document_bands(hashes, offsets, config.bands, config.rows)
    signed = np.diff(offsets) > 0
    order = [tuple(row) for row in priorities(batch).tolist()]
    parent = list(range(len(rows)))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    losers = set()
    for row in np.flatnonzero(signed).tolist():
        for other in np.flatnonzero((bands[row + 1 :] == bands[row]).any(axis=1) & signed[row + 1 :]).tolist():
            pair = sorted((row, row + 1 + other), key=order.__getitem__)
            losers.add(pair[1])
            best, worst = sorted((root(pair[0]), root(pair[1])), key=order.__getitem__)
            parent[worst] = best
    expected = {
        "components": {row["id"] for number, row in enumerate(rows) if parent[number] == number},
        "bucket_winner": {row["id"] for number, row in enumerate(rows) if number not in losers},
    }
    for rule, wanted in expected.items():
        output = f"{place}/sample_{rule}"
        chosen = NearDuplicatesConfig(rule=rule)
        manifest = near_duplicates.run(f"{place}/sample", output, chosen, BeamOptions())
        kept = {name for shard in manifest.shards() for name in pq.read_table(f"{output}/{shard}")["id"].to_pylist()}
        print(f"{rule}: {len(kept)} of {len(rows)} documents survive, by comparing all pairs {len(wanted)}: ", end="")
        print("the same" if kept == wanted else f"DIFFERENT IN {len(kept ^ wanted)}")


def datatrove(place: str, config: NearDuplicatesConfig) -> Callable[[], None]:
    """Signature, buckets, cluster, filter; words are ours, as its own splitting into words would load a model."""
    import_module("loguru").logger.remove()
    minhash: Any = import_module("datatrove.pipeline.dedup.minhash")
    executor = import_module("datatrove.executor").LocalPipelineExecutor
    write = import_module("datatrove.pipeline.writers").ParquetWriter
    read = import_module("datatrove.pipeline.readers").ParquetReader
    unused = import_module("datatrove.utils.word_tokenizers").WhitespaceTokenizer()  # the default one loads spaCy

    class Signature(minhash.MinhashDedupSignature):
        def get_shingles(self, text: str) -> np.ndarray:
            words = WORD.findall(text.encode())
            joined = (
                b" ".join(words[start : start + config.shingle]) for start in range(len(words) - config.shingle + 1)
            )
            return np.fromiter(map(self._hash_func, joined), np.uint64).reshape(-1, 1)

    settings = minhash.MinhashConfig(n_grams=config.shingle, num_buckets=config.bands, hashes_per_bucket=config.rows)
    reader = read(f"{place}/peer", glob_pattern="sample.parquet")
    steps = [
        [reader, Signature(f"{place}/signatures", settings, unused)],
        [minhash.MinhashDedupBuckets(f"{place}/signatures", f"{place}/buckets", config=settings)],
        [minhash.MinhashDedupCluster(f"{place}/buckets", f"{place}/remove", config=settings)],
        [reader, minhash.MinhashDedupFilter(f"{place}/remove"), write(f"{place}/kept")],
    ]

    def run() -> None:
        for number, step in enumerate(steps):
            tasks = config.bands if number == 1 else 1
            executor(step, tasks=tasks, workers=1, logging_dir=f"{place}/log{number}").run()

    return run


def datasketch(place: str, config: NearDuplicatesConfig) -> Callable[[], None]:
    library = import_module("datasketch")

    def run() -> None:
        index = library.MinHashLSH(num_perm=config.bands * config.rows, params=(config.bands, config.rows))
        documents = pq.read_table(f"{place}/peer/sample.parquet")
        kept = []
        for number, text in enumerate(documents.column("text").to_pylist()):
            words = WORD.findall(text.encode())
            signature = library.MinHash(config.bands * config.rows)
            signature.update_batch(
                {b" ".join(words[start : start + config.shingle]) for start in range(len(words) - config.shingle + 1)}
            )
            if not index.query(signature):
                kept.append(number)
            index.insert(number, signature)
        pq.write_table(documents.take(kept), f"{place}/datasketch.parquet")

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", metavar="DIR", help="a folder of source code; repeatable")
    parser.add_argument("--megabytes", type=int, default=0, help="take the first so many of the sources")
    flags = parser.parse_args()
    config = NearDuplicatesConfig()
    texts = library()
    speed(config, texts)
    rates_of_edited_files(config, texts)
    rates_of_independent_pairs(config)
    if not flags.source:
        return
    with tempfile.TemporaryDirectory() as place:
        ours, sample = whole_stage(flags.source, flags.megabytes, place, config)
        against_all_pairs(sample, place, config)
        few = sample.take(random.Random(SEED).sample(range(len(sample)), min(PEERS_SAMPLE, len(sample))))
        size = sum(few.column("bytes").to_pylist()) / 1e6
        os.makedirs(f"{place}/peer")
        pq.write_table(few.select(["id", "text"]), f"{place}/peer/sample.parquet")
        for name, peer, goal in (("datatrove", datatrove, 100), ("datasketch", datasketch, 20)):
            try:
                theirs = measured(name, size, peer(place, config))
            except ModuleNotFoundError as error:
                print(f"{name}: not measured, {error}; install the extra `peers` of this package", file=sys.stderr)
                continue
            print(f"{'':24} {ours / theirs:8.1f} times as fast is this project; the goal is {goal} times")


if __name__ == "__main__":
    main()
