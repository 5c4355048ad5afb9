"""How much memory web recall takes of one file of a crawl, and of ten such files: it should be the same.

    python -m tests.benchmarks.web_memory                                   # generated, 1,000 pages a file
    python -m tests.benchmarks.web_memory --crawl=DIR --urls=SEEDS.jsonl    # of DIR/*.warc.gz the ten largest

Printed is the largest resident memory of any process: of reading pages, and of all stages of one round.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.generated_crawl import CrawlSize, write_crawl

FILES = 10


def peak(verb: str, files: Sequence[Path], *flags: str) -> float:
    """Megabytes, of all that ran so far; so what takes less comes first."""
    crawl = [f"--crawl={file}" for file in files]
    subprocess.run([sys.executable, "-m", "beam_pipelines", verb, *crawl, *flags], check=True, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crawl", default="")
    parser.add_argument("--urls", default="")
    flags, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        place, urls = Path(flags.crawl), flags.urls
        if not flags.crawl:
            write_crawl(Path(scratch), CrawlSize(pages=13_000, sites=200, files=FILES, broken=0))
            place, urls = Path(scratch) / "training", f"{scratch}/seeds.jsonl"
        files = sorted(place.glob("*.warc.gz"), key=lambda file: file.stat().st_size)[-FILES:]
        for verb, given in (("pages", ()), ("web", (f"--urls={urls}", "--rounds=1"))):
            for some in (files[-1:], files):
                size = sum(file.stat().st_size for file in some) / 1e6
                found = peak(verb, some, *given, f"--output={scratch}/{verb}_{len(some)}", *more)
                print(f"{verb}: {len(some)} files, {size:.1f} MB packed: {found:.0f} MB at the peak", flush=True)


if __name__ == "__main__":
    main()
