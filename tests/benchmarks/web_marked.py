"""The text of real pages against marks that were made by hand, beside what resiliparse and trafilatura extract.

    python -m tests.benchmarks.web_marked --cache=/tmp/debian
    python -m tests.benchmarks.web_marked --cache=/tmp/debian --peer=PYTHON     # a Python that has trafilatura

web_marked.jsonl has a line a page: the Debian package that it's from, its path there, the elements that hold its
content and those among them that don't, as CSS selectors; never its text. Content is what a reader came for: headings,
prose, code, tables. It's neither navigation, nor line numbers, nor notices of copyright that stand below every page. A
list of contents counts where what it lists stands on other pages. Pages were chosen before anything was extracted: of
each package the first two by web_debian's hash, one of a translation, passing over those of less than 200 characters.

All extract from the same decoded HTML, ours as `pages` does it. Precision, recall and F1 of a page are of its words,
each as often as it occurs; intervals are the bootstrap's over packages.
"""

import argparse
import html
import json
import pickle
import re
import subprocess
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from resiliparse.parse.html import ElementNode, HTMLTree

from opencoder_jax.beam_pipelines.sources.formats.batches import guarded
from opencoder_jax.beam_pipelines.sources.formats.rows import TABLES
from opencoder_jax.beam_pipelines.sources.inputs import list_units
from opencoder_jax.beam_pipelines.web.pages import PagesConfig, read_pages
from opencoder_jax.statistics.bootstrap import Interval, mean
from tests.benchmarks.web_debian import downloaded

_MARKS = Path(__file__).with_suffix(".jsonl")
_OURS = "ours"
_WORST = 8
_MARK = "data-marked"
_INLINE = (
    "a|abbr|acronym|b|bdi|bdo|big|cite|code|data|del|dfn|em|font|i|ins|kbd|mark|q|s|samp|small|span|strike|strong|sub"
    "|sup|time|tt|u|var|wbr"
)
_WITHIN_WORDS = re.compile(rf"<!--.*?-->|</?(?:{_INLINE})(?=[\s>/])[^>]*>", re.S)
_TAG = re.compile(r"<[^>]*>")
_WORD = re.compile(r"\w+")
_UNSEEN = re.compile("[\u00ad\u200b\u200c\u200d\u2060\ufeff]")  # within words, where some extractors drop them
_PEER = """
import pickle, sys, trafilatura
pages = pickle.load(sys.stdin.buffer)
ways = {"trafilatura": {}, "trafilatura, for recall": {"favor_recall": True}}
found = {name: [trafilatura.extract(page, **way) or "" for page in pages] for name, way in ways.items()}
sys.stdout.buffer.write(pickle.dumps(found))
"""


class Mark(NamedTuple):
    """What of a page is content: what `include` selects, without what `exclude` does."""

    package: str
    path: str
    include: list[str]
    exclude: list[str]
    why: str = ""


class Score(NamedTuple):
    """How an extractor's words agree with a page's."""

    precision: float
    recall: float
    f1: float


def decoded(content: bytes) -> str:
    return str(bytes_to_str(content, detect_encoding(content, from_html_meta=True) or "utf-8"))


def marked_text(page: str, mark: Mark) -> str:
    """The text that is marked. Raises ValueError where a selector finds nothing."""
    tree = HTMLTree.parse(page)
    for selector in ("script, style, noscript, template", *mark.exclude):
        found = _select(tree, selector)
        if not found and selector in mark.exclude:
            raise ValueError(f"{mark.path}: there is no {selector}")
        for element in found:
            element.decompose()
    for selector in mark.include:
        found = _select(tree, selector)
        if not found:
            raise ValueError(f"{mark.path}: there is no {selector}")
        for element in found:
            element.set_attribute(_MARK, "")
    outermost = [each for each in _select(tree, f"[{_MARK}]") if not _is_within(each)]
    return "\n".join(_text(element) for element in outermost)


def _select(tree: HTMLTree, selector: str) -> list[ElementNode]:
    return list(tree.document.query_selector_all(selector)[:]) if tree.document else []


def _is_within(element: ElementNode) -> bool:
    parent = element.parent_element
    return parent is not None and parent.closest(f"[{_MARK}]") is not None


def _text(element: ElementNode) -> str:
    """Its text, where only tags that can't end a word leave no space."""
    return html.unescape(_TAG.sub(" ", _WITHIN_WORDS.sub("", element.html or "")))


def words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(_UNSEEN.sub("", text)))


def scored(found: Counter[str], wanted: Counter[str]) -> Score:
    """Of an extractor's words, against those that are marked."""
    right = (found & wanted).total()
    precision, recall = (right / max(1, each.total()) for each in (found, wanted))
    return Score(precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0)


def read_marked(cache: Path) -> tuple[list[Mark], list[str]]:
    """Marks whose page is there, and the pages, decoded; the others are named."""
    marks, texts = [], []
    wanted: dict[str, list[Mark]] = {}
    for line in _MARKS.read_text("utf-8").splitlines():
        mark = Mark(**json.loads(line))
        wanted.setdefault(mark.package, []).append(mark)
    for package, mine in wanted.items():
        file = downloaded(package, cache)
        contents = _members(file, {mark.path for mark in mine}) if file else {}
        for mark in mine:
            if mark.path in contents:
                marks.append(mark)
                texts.append(decoded(contents[mark.path]))
            else:
                print(f"left out, for it isn't there: {package} {mark.path}")
    return marks, texts


def _members(file: Path, paths: set[str]) -> dict[str, bytes]:
    found = {}
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE)
    with unpack, tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            content = archive.extractfile(member) if path in paths and member.isfile() else None
            if content is not None:
                found[path] = content.read()
    return found


def ours(pages: list[str]) -> list[str]:
    """The texts of the documents that `pages` makes of a table of HTML; of a dropped one none."""
    with tempfile.TemporaryDirectory() as scratch:
        with (Path(scratch) / "pages.jsonl").open("w", encoding="utf-8") as file:
            for number, page in enumerate(pages):
                file.write(json.dumps({"url": f"https://example.org/{number}", "html": page}) + "\n")
        unit = list_units([scratch], TABLES)[0]
        rows = guarded(unit, read_pages(unit, PagesConfig(html="html")))
        texts = {row["url"]: row.get("text") or "" for row in rows if "url" in row}
    return [texts.get(f"https://example.org/{number}", "") for number in range(len(pages))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", default="/tmp/debian", help="where packages are kept")
    parser.add_argument("--peer", default="", help="a Python that has trafilatura")
    flags = parser.parse_args()
    marks, pages = read_marked(Path(flags.cache))
    wanted = [words(marked_text(page, mark)) for page, mark in zip(pages, marks, strict=True)]
    extracted = {
        _OURS: ours(pages),
        "resiliparse": [extract_plain_text(page, main_content=True) for page in pages],
        "everything": [extract_plain_text(page, main_content=False) for page in pages],
    }
    if flags.peer:
        made = subprocess.run([flags.peer, "-c", _PEER], input=pickle.dumps(pages), stdout=subprocess.PIPE, check=True)
        extracted |= pickle.loads(made.stdout)
    scores = {
        name: [scored(words(t), w) for t, w in zip(each, wanted, strict=True)] for name, each in extracted.items()
    }
    packages = [mark.package for mark in marks]
    print(f"{len(marks)} pages of {len(set(packages))} packages, {sum(each.total() for each in wanted)} words marked")
    for name, mine in scores.items():
        parts = [f"{part} {_told(mean([getattr(s, part) for s in mine], packages))}" for part in Score._fields[::-1]]
        print(f"{name:24} {', '.join(parts)}")
    for name, theirs in scores.items():
        if name != _OURS:
            ahead = [a.f1 - b.f1 for a, b in zip(scores[_OURS], theirs, strict=True)]
            print(
                f"F1, ours minus {name:24} {_told(mean(ahead, packages))}; behind on {sum(d < 0 for d in ahead)} pages"
            )
    print(f"the worst of ours: F1, precision, recall; F1 of {', '.join(list(scores)[1:])}")
    for number in sorted(range(len(marks)), key=lambda number: scores[_OURS][number].f1)[:_WORST]:
        own = scores[_OURS][number]
        others = " ".join(f"{each[number].f1:.3f}" for name, each in scores.items() if name != _OURS)
        place = f"{marks[number].package} {marks[number].path.rpartition('/')[2]}"
        print(f"  {own.f1:.3f} {own.precision:.3f} {own.recall:.3f}; {others}  {place}")


def _told(found: Interval) -> str:
    return f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    main()
