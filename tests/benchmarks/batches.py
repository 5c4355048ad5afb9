"""The reader of batches: tokens a second of one core beside what memory allows, and seeking in an index of any size.

Run: python -m tests.benchmarks.batches [--documents=100000000] [--tokens=20000000] [--directory=DIR]

1. The limit. A batch is 16 bytes a token that are written, from 5 that are read: no reader of these batches is faster
   than memory copies that much.
2. Reading. Made-up documents, as long as source code's (log-normal, about 1,300 tokens) and very short ones (about
   110), read at lengths of 4096 and 8192; processor time, so it's the speed of one core whatever else the machine does.
   Beside it, in the same run, SeqIO's reading and packing of the same records. What the checks cost is what CRC-32C
   takes for the bytes that were checked.
3. Packing whole examples: seconds to open, and how full the rows are.
4. Seeking. An index of `--documents` documents (16 bytes each) over sparse files, so that only their sizes are real:
   how long it takes a new process to open it and to give a host's rows of step 1,000,000, and its memory (what it
   holds, and what it has mapped), with the index driven out of the page cache and with it there. Beside it a corpus of
   a hundredth of that.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import google_crc32c
import numpy as np

from opencoder_jax.data import token_records
from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.data.token_records import BLOCK, TokenRecords, metadata_files, shard_names, summarise, write_records

SHARDS = 64
KINDS = {"source code": (6.2, 1.4), "very short": (4.0, 1.2)}  # of the logarithm of a document's tokens
STEP = 1_000_000
VALUE = google_crc32c.value


def lengths_of(kind: str, documents: int, seed: int) -> np.ndarray:
    """Tokens of made-up documents, at most 500,000."""
    mean, deviation = KINDS[kind]
    normal = np.random.default_rng(seed).normal(mean, deviation, documents)
    return np.minimum(np.exp(normal).astype(np.int64) + 2, 500_000)


def write_corpus(directory: Path, kind: str, tokens: int) -> None:
    rng = np.random.default_rng(1)
    mean = lengths_of(kind, 100_000, 0).mean()
    shards = [
        [(np.append(rng.integers(260, 90_000, length - 1), 2), None) for length in lengths_of(kind, count, seed)]
        for seed, count in enumerate([int(tokens / mean / 4)] * 4)
    ]
    write_records(directory, shards, b"a tokenizer", 2**31)


def write_sparse(directory: Path, documents: int) -> None:
    """An index and checksums as they'd be, over files of the right size in which every byte is zero."""
    directory.mkdir()
    sizes = np.array([token_records._parts(0, count)[1] + count + 4 for count in range(500_001)])
    of_zeros = google_crc32c.value(bytes(BLOCK))
    summaries = []
    for shard in range(SHARDS):
        lengths = lengths_of("source code", documents // SHARDS, shard)
        places = np.zeros((2, len(lengths) + 1), np.int64)
        np.cumsum(sizes[lengths], out=places[0, 1:])
        np.cumsum(lengths, out=places[1, 1:])
        names = shard_names(shard, SHARDS)
        np.save(directory / names.places, places)
        checksums = token_records._Checksums()
        checksums.extend((directory / names.places).read_bytes())
        full, rest = divmod(int(places[0, -1]), BLOCK)
        of_records = np.full(full, of_zeros, "<u4").tobytes()
        if rest:
            of_records += google_crc32c.value(bytes(rest)).to_bytes(4, "little")
        (directory / names.checksums).write_bytes(checksums.content() + of_records)
        with open(directory / names.tokens, "wb") as stream:
            stream.truncate(int(places[0, -1]))
        with open(directory / names.places, "rb") as stream:
            summaries.append(summarise(stream, checksums.content() + of_records))
    for name, content in metadata_files(summaries, b"a tokenizer").items():
        (directory / name).write_bytes(content)


def per_core(work: Callable[[], int], seconds: float = 2.0) -> float:
    """What `work` counts, in a second of processor time."""
    work()
    began, count = time.process_time(), 0
    while time.process_time() - began < seconds:
        count += work()
    return count / (time.process_time() - began)


def copy_speed() -> float:
    """Bytes a second that one core reads and writes, in copies of 64 MB."""
    source, target = np.zeros(1 << 26, np.uint8), np.zeros(1 << 26, np.uint8)

    def copy() -> int:
        np.copyto(target, source)
        return 2 * len(source)

    return per_core(copy)


def check_speed() -> float:
    """Bytes a second of CRC-32C, block by block."""
    block = np.zeros(BLOCK, np.uint8)

    def check() -> int:
        VALUE(block)
        return BLOCK

    return per_core(check)


def report_reading(root: Path, tokens: int) -> None:
    bandwidth, checks = copy_speed(), check_speed()
    print(f"memory: copies {bandwidth / 1e9:.1f} GB/s (read and written), so at most {bandwidth / 21e6:.0f} M tokens/s")
    print(f"CRC-32C: {checks / 1e9:.1f} GB/s")
    for kind in KINDS:
        name = kind.replace(" ", "_")
        write_corpus(root / name, kind, tokens)
        records = TokenRecords.open(root / name)
        print(f"{kind}: {len(records):,} documents, {records.tokens / len(records):.0f} tokens each")
        for length in (4096, 8192):
            for packing, across in (("cut", True), ("cut", False), ("pack", False)):
                config = DataConfig({name: 1.0}, ((0, length, 64),), packing, across)
                batches = Batches(config, root, 3, 2)
                steps = iter(range(10**9))
                checked = [0]

                def counting(content: np.ndarray, checked: list[int] = checked) -> int:
                    checked[0] += len(content)
                    return VALUE(content)

                def read(batches: Batches = batches, steps: Iterator[int] = steps) -> int:
                    return batches(next(steps)).tokens.size

                speed = per_core(read)
                token_records.google_crc32c.value = counting
                counted = read()
                token_records.google_crc32c.value = VALUE
                share = checked[0] / counted / checks * speed
                documents = "see each other" if across else "apart"
                print(
                    f"  {packing} at {length}, documents {documents}: {speed / 1e6:.1f} M tokens/s;"
                    f" {checked[0] / counted:.1f} bytes checked a token, {100 * share:.1f} % of the time"
                )
    print("SeqIO on the same records (processor time of all its threads):")
    for kind in KINDS:
        print(f"  {kind}: {seqio_speed(root / kind.replace(' ', '_')) / 1e6:.2f} M tokens/s, packed at 4096")


def seqio_speed(directory: Path) -> float:
    """Tokens a second of processor time that SeqIO reads, trims and packs."""
    program = f"""
import time, seqio
from opencoder_jax.data import tasks
from opencoder_jax.data.token_records import TokenRecords
tasks.RecordVocabulary = lambda tokenizer: seqio.PassThroughVocabulary(96640)
tasks.fim_tokens = lambda controls: None
class Nothing: controls = {{}}
tasks.Tokenizer.load = staticmethod(lambda path: Nothing())
rows = seqio.get_dataset(
    tasks.task("a", {str(directory)!r}), {{"targets": 4096}}, dataset_split="train", shuffle=False,
    feature_converter=seqio.LMFeatureConverter(pack=True), num_epochs=None,
).as_numpy_iterator()
next(rows)
began, count = time.process_time(), 0
while time.process_time() - began < 10:
    count += int((next(rows)["decoder_segment_ids"] > 0).sum())
print(count / (time.process_time() - began))
"""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout)


def seek(directory: str, rows: str) -> None:
    """In a process of its own: opens the corpus, reads the first rows of a far step, and prints what that took."""
    before = memory()
    moments = [(time.perf_counter(), time.process_time())]
    batches = Batches(DataConfig({Path(directory).name: 1.0}), Path(directory).parent, 3, 0)
    moments.append((time.perf_counter(), time.process_time()))
    for step in (STEP, STEP + 1):
        batches(step, 0, int(rows))
        moments.append((time.perf_counter(), time.process_time()))
    after = memory()
    took = {
        what: [1e3 * (late - early) for early, late in zip(one, other, strict=True)]
        for what, (one, other) in zip(("open", "first", "next"), pairwise(moments), strict=True)
    }
    print(json.dumps(took | {name: after[name] - before[name] for name in after}))


def memory() -> dict[str, float]:
    """MB that this process holds (RssAnon) and that it has mapped of files (RssFile)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[name].split()[0]) / 1e3 for name in ("RssAnon", "RssFile")}


def forget(directory: Path) -> None:
    """Drives the files of a directory out of the page cache."""
    os.sync()
    for file in directory.iterdir():
        with open(file, "rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def report_seeking(root: Path, documents: int) -> None:
    print(
        f"seeking to step {STEP:,} of 1024 rows of 4096, in a new process; milliseconds (of them processor time),"
        " and MB more than before"
    )
    for count in (documents // 100, documents):
        directory = root / f"sparse_{count}"
        write_sparse(directory, count)
        records = TokenRecords.open(directory)
        index = sum((directory / shard_names(shard, SHARDS).places).stat().st_size for shard in range(SHARDS))
        print(f"{len(records):,} documents, {records.tokens / 1e9:.1f} B tokens, index {index / 1e6:.0f} MB")
        for rows in (1, 8, 1024):
            for cached in (False, True):
                if not cached:
                    forget(directory)
                command = [sys.executable, "-m", "tests.benchmarks.batches", "--seek", str(directory), str(rows)]
                took = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                times = [f"{what} {took[what][0]:.1f} ({took[what][1]:.1f})" for what in ("open", "first", "next")]
                print(
                    f"  {rows:4} rows, files {'    cached' if cached else 'not cached'}: {', '.join(times)};"
                    f" holds {took['RssAnon']:.1f} MB, mapped {took['RssFile']:.1f} MB"
                )
        shutil.rmtree(directory)


def report_packing(root: Path) -> None:
    for kind in KINDS:
        name = kind.replace(" ", "_")
        for length in (1536, 4096):
            began = time.process_time()
            batches = Batches(DataConfig({name: 1.0}, ((0, length, 64),), "pack", False), root, 3, 2)
            opened = time.process_time() - began
            documents = len(batches.sources[name])
            rows = int(batches.rows[0].epochs(1) ** -1)
            used = sum(int((batches(step).tokens != 3).sum()) for step in range(10)) / (10 * 64 * length)
            print(
                f"  {kind} at {length}: {documents:,} documents in {rows:,} rows, {100 * used:.1f} % full,"
                f" {batches.dropped:,} too long; {1e6 * opened / documents:.2f} s a million to open"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--documents", type=int, default=100_000_000)
    parser.add_argument("--tokens", type=int, default=20_000_000, help="of the corpora that are read")
    parser.add_argument("--directory", help="where to write them; a temporary one by default")
    parser.add_argument("--seek", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.seek:
        seek(*flags.seek)
        return
    with tempfile.TemporaryDirectory(dir=flags.directory) as root:
        report_reading(Path(root), flags.tokens)
        print("packing whole documents:")
        report_packing(Path(root))
        report_seeking(Path(root), flags.documents)


if __name__ == "__main__":
    main()
