"""The whole raw-code chain at growing sizes: throughput of each stage, and whether memory grows with the corpus.

Run: python -m tests.benchmarks.refinecode --source=DIR [--megabytes=250,500,1000] [--output=DIR]

Each size takes the first so many megabytes of the source (CollectConfig.max_corpus_bytes) and runs
`python -m beam_pipelines refinecode` on it. Memory is the proportional set size of the command and its workers, every
quarter of a second. The limits: a stage
reads and writes Parquet (zstd) at about 100 MB/s a core, so what is slower than that is the kernel of the stage.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

# Of a column of text in a shard, a row group of 4 MB is held at a time: the number of shards doesn't matter.
SHARDS = 16


def processes(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def proportional_megabytes(root: int) -> float:
    """The memory of a process and its descendants, shared pages counted once."""
    total = 0
    for process in processes(root):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        if found := re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE):
            total += int(found[1])
    return total / 1024


class Watch:
    """The largest memory of a process and its descendants, a stage: the stages are told by the lines that it prints."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.stage = ""
        self.peaks: dict[str, float] = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        while not self.ended.wait(0.25):
            now = proportional_megabytes(self.process.pid)
            self.peaks[self.stage] = max(now, self.peaks.get(self.stage, 0.0))

    def end(self) -> dict[str, float]:
        self.ended.set()
        self.thread.join()
        return self.peaks


def chain(source: str, megabytes: int, output: Path) -> tuple[str, dict[str, float]]:
    """Runs the chain on the first megabytes of a source: its table, and the peak memory of each stage."""
    flags = [
        f"--input={source}",
        f"--output={output}",
        f"--gin.CollectConfig.max_corpus_bytes={megabytes * 1_000_000}",
        f"--gin.CollectConfig.shards={SHARDS}",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "beam_pipelines", "refinecode", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = Watch(process)
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if named := re.search(r"python -m beam_pipelines\.\S+ .*--output=\S*/(\w+)", line):
                watch.stage = named[1]

    listener = threading.Thread(target=listen)
    listener.start()
    table = process.stdout.read()
    listener.join()
    peaks = watch.end()
    if process.wait():
        sys.exit("".join(said[-20:]))
    return table[table.index("stage ") :], peaks


def main() -> None:
    """Prints a table a size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--source", required=True, metavar="DIR", help="a folder of repositories, a gigabyte or more")
    parser.add_argument("--megabytes", default="250,500,1000", metavar="N,N,…")
    parser.add_argument("--output", metavar="DIR", help="where to keep the runs; a temporary folder by default")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for megabytes in map(int, flags.megabytes.split(",")):
            table, peaks = chain(flags.source, megabytes, Path(flags.output or temporary) / f"{megabytes}")
            print(f"\n{megabytes} MB: peak memory {max(peaks.values()):.0f} MB")
            for line in table.rstrip().splitlines():
                peak = peaks.get(line.split()[0])
                print(line + (f"{peak:12.0f} MB" if peak else f"{'peak':>15}"), flush=True)


if __name__ == "__main__":
    main()
