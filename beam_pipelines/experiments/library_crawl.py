"""Writes the running Python's library as a small crawl with known labels: pages of documentation, and licences.

    python -m beam_pipelines library_crawl --output=runs/library_crawl

A miniature for web recall, out of what every machine has. Each module is a site; a function or class with a docstring
is a page of it, laid out as generators of documentation do. The others are the licences and lists of authors that came
with the installed packages, each package a site, a few paragraphs a page. Some pages of every third module are seeds.

Writes `library.warc.gz`, `seeds.jsonl` (`url`) and `labels.jsonl` (`url`, `wanted`).
"""

import ast
import gzip
import html
import json
import platform
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import xxhash

from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.checks import at_least, between, check
from opencoder_jax.recipe import configurable

CRAWL, SEEDS, LABELS = "library.warc.gz", "seeds.jsonl", "labels.jsonl"
_LEGAL = re.compile(r"(?:licen[cs]e|copying|notice|authors)[^/]*", re.I)
_LEAST = 60  # characters of a docstring, or of a paragraph
_PARAGRAPHS = 4  # of a licence on a page
_SEEDED = 3  # of so many modules one has seeds


@configurable
@dataclass(frozen=True)
class LibraryCrawlConfig:
    """How large the crawl is.

    Attributes:
        sites: of each kind, at most.
        per_site: pages of a site, at most.
        seeds: the share of the pages of every third module that are seeds.
    """

    sites: int = 40
    per_site: int = 12
    seeds: float = 0.7

    def __post_init__(self) -> None:
        check(self, sites=at_least(10), per_site=at_least(5), seeds=between(0, 1))


@dataclass(frozen=True)
class LibraryCrawlPlan:
    """What the crawl depends on: the configuration, and whose library it is."""

    config: LibraryCrawlConfig
    python: str


class Page(NamedTuple):
    """A page with its label."""

    url: str
    markup: str
    wanted: bool


def documentation(path: Path) -> Iterator[Page]:
    """The functions and classes of a module that have a docstring."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and len(told := ast.get_docstring(node) or "") >= _LEAST:
            code = html.escape("\n".join(lines[node.lineno - 1 : node.end_lineno]), quote=False)
            paragraphs = "".join(f"<p>{html.escape(part)}</p>" for part in re.split(r"\n\s*\n", told))
            body = f"<h1>{path.stem}.{node.name}</h1>{paragraphs}<div class=highlight><pre>{code}</pre></div>"
            yield Page(f"https://{path.stem}.docs.example/{node.name}.html", _page(node.name, body), True)


def licences(package: str, files: Sequence[Path]) -> Iterator[Page]:
    """What a package's files of licences say, a few paragraphs a page."""
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        parts = [html.escape(part) for part in re.split(r"\n\s*\n", text) if len(part) >= _LEAST]
        for first in range(0, len(parts), _PARAGRAPHS):
            body = "".join(f"<p>{part}</p>" for part in parts[first : first + _PARAGRAPHS])
            yield Page(f"https://{package}.terms.example/{path.name}/{first}", _page("Terms", body), False)


def _page(title: str, body: str) -> str:
    menu = "<nav><a href=/>home</a> <a href=/about>about</a></nav>"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><body>{menu}<main>{body}</main></body>"


def _drawn(sites: Iterator[list[Page]], config: LibraryCrawlConfig) -> list[list[Page]]:
    """The first sites that have enough pages, and some of the pages of each."""
    large = (sorted(site, key=lambda page: _number(page.url)) for site in sites if len(site) >= 5)
    return [site[: config.per_site] for site in islice(large, config.sites)]


def _number(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def _record(page: Page) -> bytes:
    """The WARC record of a server's answer."""
    content = page.markup.encode("utf-8", "replace")
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {page.url}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{_number(page.url):032x}>\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(answer)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + answer + b"\r\n\r\n", mtime=0)


def crawl(config: LibraryCrawlConfig) -> list[list[Page]]:
    """The sites of both kinds, each its pages."""
    paths = sysconfig.get_paths()
    modules = sorted(Path(paths["stdlib"]).glob("[a-z]*.py"), key=lambda path: _number(path.name))
    packages: dict[str, list[Path]] = {}
    for path in sorted(Path(paths["purelib"]).glob("*.dist-info/**/*")):
        if _LEGAL.fullmatch(path.name) and path.is_file():
            name = next(part for part in path.parts if part.endswith(".dist-info")).split("-")[0].lower()
            packages.setdefault(name.replace("_", "-"), []).append(path)
    named = sorted(packages.items(), key=lambda item: _number(item[0]))
    return [
        *_drawn((list(documentation(path)) for path in modules), config),
        *_drawn((list(licences(name, files)) for name, files in named), config),
    ]


def run(*, output: str, config: LibraryCrawlConfig, options: BeamOptions) -> Manifest:
    """Writes the crawl, its seeds and its labels."""

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        sites = crawl(config)
        pages = [page for site in sites for page in site]
        labels = [{"url": page.url, "wanted": page.wanted} for page in pages]
        seeds = [
            {"url": page.url}
            for number, site in enumerate(sites)
            if number % _SEEDED == 0
            for page in site[: round(config.seeds * len(site))]
            if page.wanted
        ]
        directory.write_bytes(CRAWL, b"".join(map(_record, pages)))
        for name, rows in ((SEEDS, seeds), (LABELS, labels)):
            directory.write_bytes(name, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        wanted = sum(page.wanted for page in pages)
        counts = {"sites": len(sites), "pages": len(pages), "wanted": wanted, "seeds": len(seeds)}
        return {"count": counts}, {name: digest(directory, name) for name in (CRAWL, SEEDS, LABELS)}

    plan = LibraryCrawlPlan(config, platform.python_version())
    return Stage("library_crawl", __name__, plan, (), output).run(work, options)
