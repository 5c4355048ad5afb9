"""How fast crawls become pages, and pages are scored, by processor time on one core, beside trafilatura if it's there.

The best of some passes counts, here and there.

    python -m tests.benchmarks.web_speed                        # 3,000 generated pages
    python -m tests.benchmarks.web_speed --warc=FILE.warc.gz --classifier=runs/web/round_3/classifier

trafilatura runs where another Python has it: --peer=/path/to/python.
"""

import argparse
import pickle
import random
import subprocess
import tempfile
import time
from pathlib import Path

from fastwarc.warc import WarcRecord

from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.formats.batches import guarded
from opencoder_jax.beam_pipelines.sources.inputs import list_units
from opencoder_jax.beam_pipelines.web.fasttext.classifier import Classifier
from opencoder_jax.beam_pipelines.web.pages import WARCS, PagesConfig, read_pages
from opencoder_jax.beam_pipelines.web.warc import Record, records
from tests.generated_crawl import CrawlSize, write_crawl

_PEER = """
import pickle, sys, time, trafilatura
pages = pickle.load(sys.stdin.buffer)
took = []
for _ in range(2):
    began = time.process_time()
    for page in pages:
        trafilatura.extract(page)
    took.append(time.process_time() - began)
print(sum(map(len, pages)) / 1e6 / min(took))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warc", default="")
    parser.add_argument("--classifier", default="")
    parser.add_argument("--peer", default="", help="a Python that has trafilatura")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if not flags.warc:
            write_crawl(Path(scratch) / "crawl", CrawlSize(pages=3_000, sites=60, files=1, broken=0))
        unit = list_units([flags.warc or f"{scratch}/crawl/training"], WARCS)[0]
        bodies = []
        began = time.process_time()
        with Directory(unit.directory).read(unit.name) as stream:
            found = [each for each in records(stream) if isinstance(each, Record)]
        took = time.process_time() - began
        for each in found:
            record = WarcRecord.from_bytes(each.content)
            if record.is_http:
                record.parse_http(auto_decode="all")
            bodies.append(record.reader.read())
        size = sum(map(len, bodies)) / 1e6
        print(f"{len(found)} records, {size:.1f} MB of HTML; cut into records: {size / took:.1f} MB/s")
        times = []
        for _ in range(3):  # the first reads and compiles what is made once
            began = time.process_time()
            texts = [row["text"] for row in guarded(unit, read_pages(unit, PagesConfig())) if "text" in row]
            times.append(time.process_time() - began)
        took = min(times)
        print(f"WARC to documents: {size / took:.1f} MB/s of HTML, {len(texts) / took:.0f} pages/s")
        if flags.classifier:
            classifier = Classifier.of_stage(flags.classifier)
            classifier.scores(texts[:20])
            began = time.process_time()
            classifier.scores(texts)
            took = time.process_time() - began
            written = sum(len(text.encode()) for text in texts) / 1e6
            print(f"scored: {len(texts) / took:.0f} pages/s, {written / took:.1f} MB/s of text")
        if flags.peer:
            sample = random.Random(0).sample(bodies, min(len(bodies), 300))
            peer = subprocess.run(
                [flags.peer, "-c", _PEER], input=pickle.dumps(sample), capture_output=True, check=True
            )
            print(f"trafilatura, text alone: {float(peer.stdout):.2f} MB/s of HTML")


if __name__ == "__main__":
    main()
