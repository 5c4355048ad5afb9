"""Web recall on a corpus that nobody generated: the HTML documentation of Debian's packages, each package a domain.

    python -m tests.benchmarks.web_debian --cache=/tmp/debian --pages=3000        # at most so many of a package

PACKAGES lists them with their labels. They are downloaded by `apt-get download` and read without being installed; a
package that Debian doesn't have (any more) is passed over and named. A label is the package's: of LibreOffice's help
the chapters on macros, which are about programming, are left out, and nothing else is.

As an LLM would that grades a few pages, a share of the pages of every other package (GRADED) has a score, 1 where it's
about programming and 0 where it isn't, and one score in fifty is wrong. Recall and precision are of all pages that
deduplication leaves, beside those of packages of which no page was graded, with the bootstrap's interval over packages.
"""

import argparse
import heapq
import json
import random
import re
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import xxhash

from opencoder_jax.beam_pipelines.web.addresses import one_spelling
from opencoder_jax.statistics.bootstrap import Interval, mean
from tests.beam_pipelines.web.crawls import members, response
from tests.benchmarks.web_recall import column, is_kept

# Of the bookworm release; whether they are about programming.
PACKAGES = {
    "openjdk-17-doc": True,
    "rust-doc": True,
    "erlang-doc": True,
    "python-scipy-doc": True,
    "qtbase5-doc-html": True,
    "python-django-doc": True,
    "python3.11-doc": True,
    "libstdc++-12-doc": True,
    "ghc-doc": True,
    "python-pandas-doc": True,
    "libgtk-3-doc": True,
    "libglib2.0-doc": True,
    "sqlite3-doc": True,
    "libeigen3-doc": True,
    "libboost1.74-doc": True,
    "nodejs-doc": True,
    "libjfreechart-java-doc": True,
    "libghc-lens-doc": True,
    "fp-docs-3.2.2": True,
    "octave-doc": True,
    "r-doc-html": True,
    "postgresql-doc-15": True,
    "qtdeclarative5-doc-html": True,
    "gnucash-docs": False,
    "lilypond-doc-html": False,
    "lilypond-doc-html-de": False,
    "gimp-help-en": False,
    "gimp-help-de": False,
    "libreoffice-help-en-us": False,
    "libreoffice-help-de": False,
    "libreoffice-help-es": False,
    "libreoffice-help-ru": False,
    "libreoffice-help-zh-cn": False,
    "libreoffice-help-fr": False,
    "libreoffice-help-ja": False,
    "lilypond-doc-html-fr": False,
    "gimp-help-fr": False,
    "debian-handbook": False,
    "installation-guide-amd64": False,
    "anarchism": False,
    "hugin-data": False,
    "debian-history": False,
}
GRADED = tuple(sorted(PACKAGES)[::2])
_WRONG = 0.02  # of the grades
_LEFT_OUT = re.compile(r"libreoffice/help/.*/(?:sbasic|python)/")
_HTML = re.compile(r"\.x?html?$")
_LARGEST = 2_000_000  # bytes of a page
_SHOWN = 12  # mistakes of a kind


class Page(NamedTuple):
    """A page of a package, by a number that the draw goes by."""

    number: int
    package: str
    path: str
    content: bytes

    @property
    def url(self) -> str:
        return one_spelling(f"https://{self.package}.debian/{quote(self.path, errors='surrogateescape')}")


def downloaded(package: str, cache: Path) -> Path | None:
    """The package's file."""
    if not list(cache.glob(f"{package}_*.deb")):
        subprocess.run(["apt-get", "download", package], cwd=cache, capture_output=True, check=False)
    return next(iter(cache.glob(f"{package}_*.deb")), None)


def pages(package: str, file: Path, most: int) -> list[Page]:
    """Pages of a package, at most so many, by the hash of their paths."""
    drawn: list[Page] = []
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE)
    with unpack, tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            if not member.isfile() or not _HTML.search(path) or _LEFT_OUT.search(path) or member.size > _LARGEST:
                continue
            number = -xxhash.xxh3_64_intdigest(f"{package} {path}".encode("utf-8", "surrogateescape"))
            content = archive.extractfile(member)
            if content is None or (len(drawn) >= most and number < drawn[0].number):
                continue
            page = Page(number, package, path, content.read())
            (heapq.heappush if len(drawn) < most else heapq.heappushpop)(drawn, page)
    return sorted(drawn)


def write_corpus(folder: Path, cache: Path, most: int, share: float) -> dict[str, int]:
    """Writes `crawl/*.warc.gz`, a file a package, `seeds.jsonl` and `labels.jsonl`; how many pages each package has."""
    rng = random.Random(0)
    counts = {}
    (folder / "crawl").mkdir(parents=True)
    cache.mkdir(parents=True, exist_ok=True)
    with (folder / "seeds.jsonl").open("w") as seeds, (folder / "labels.jsonl").open("w") as labels:
        for package, wanted in PACKAGES.items():
            file = downloaded(package, cache)
            if file is None:
                print(f"{package}: Debian doesn't have it")
                continue
            found = pages(package, file, most)
            counts[package] = len(found)
            content = members([response(page.url, page.content) for page in found])
            (folder / "crawl" / f"{package}.warc.gz").write_bytes(content)
            for page in found:
                labels.write(json.dumps({"url": page.url, "package": package, "wanted": wanted}) + "\n")
                drawn, right = rng.random() < share, rng.random() >= _WRONG
                if drawn and package in GRADED:
                    seeds.write(json.dumps({"url": page.url, "score": float(wanted == right)}) + "\n")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", default="/tmp/debian", help="where packages are kept")
    parser.add_argument("--pages", type=int, default=3000, help="of a package, at most")
    parser.add_argument("--seeds", type=float, default=0.03, help="the share of the pages that is graded")
    parser.add_argument("--output", required=True)
    flags, more = parser.parse_known_args()
    folder = Path(flags.output)
    if not (folder / "labels.jsonl").exists():
        counts = write_corpus(folder, Path(flags.cache), flags.pages, flags.seeds)
        print(json.dumps(counts))
    labels = {row["url"]: row for row in map(json.loads, (folder / "labels.jsonl").open())}
    began = time.perf_counter()
    command = [sys.executable, "-m", "beam_pipelines", "web", f"--crawl={folder / 'crawl'}"]
    command += [f"--urls={folder / 'seeds.jsonl'}", f"--output={folder / 'web'}", *more]
    subprocess.run(command, check=True)
    print(f"{len(labels)} pages; three rounds: {time.perf_counter() - began:.0f} s")
    for place in sorted((folder / "web").glob("round_*")):
        show(folder / "web" / "near_duplicates", place, labels)


def show(documents: Path, place: Path, labels: dict[str, dict[str, Any]]) -> None:
    """Prints what a round kept, by package where it's wrong."""
    pages = list(zip(column(str(documents), "documents", "url"), is_kept(place), strict=True))
    rows = [(labels[url]["package"], labels[url]["wanted"], hit) for url, hit in pages]
    print(f"{place.name}: {len(rows)} pages of {len({package for package, *_ in rows})} packages")
    for name, seeded in (("all packages", ()), ("none graded", GRADED)):
        mine = [row for row in rows if row[0] not in seeded]
        recall = _share((package, hit) for package, wanted, hit in mine if wanted)
        precision = _share((package, wanted) for package, wanted, hit in mine if hit)
        print(f"  {name:14} recall {_told(recall)} precision {_told(precision)}")
    found, wrong = [], []
    for package in sorted({package for package, *_ in rows}):
        hits = [hit for mine, _, hit in rows if mine == package]
        share = sum(hits) / len(hits)
        if (share > 0.1) != PACKAGES[package]:
            wrong.append(f"{package} {share:.3f}")
        found.append(f"{package} {share:.3f} of {len(hits)}")
    print("  kept: " + ", ".join(found))
    print(f"  domains that are wrong: {', '.join(wrong) or 'none'}")
    for name, mistaken in (("missed", True), ("false", False)):
        urls = [url for url, hit in pages if labels[url]["wanted"] is mistaken and hit is not mistaken]
        packages = Counter(labels[url]["package"] for url in urls)
        print(f"  {name}: {', '.join(f'{count} of {package}' for package, count in packages.most_common(8))}")
        for url in sorted(urls, key=lambda url: xxhash.xxh3_64_intdigest(url.encode()))[:_SHOWN]:
            print(f"    {url}")


def _share(rows: Iterator[tuple[str, bool]]) -> Interval:
    packages, values = zip(*rows, strict=True)
    return mean(values, packages)


def _told(found: Interval) -> str:
    return f"{found.estimate:.4f} ({found.low:.4f} to {found.high:.4f})"


if __name__ == "__main__":
    main()
