"""The page of a web recall: what each round did, sites and parts of them, pages from both sides of the threshold."""

import json
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from typing import Any, NamedTuple

import xxhash

from opencoder_jax.beam_pipelines.core.documents import read_shard
from opencoder_jax.beam_pipelines.core.manifest import Manifest, read_finished
from opencoder_jax.beam_pipelines.core.stage import input_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.web.discover import PATTERNS, SITES
from opencoder_jax.beam_pipelines.web.held_out import HELD_OUT, thresholds_for
from opencoder_jax.reports.page import (
    Content,
    Html,
    Section,
    element,
    fold,
    megabytes,
    note,
    page,
    percent,
    section,
    table,
)

REPORT = "report.html"
_SHOWN = 6  # pages of a kind
_LINES = 30  # of a table
_RECALLS = (0.9, 0.95, 0.99)  # that thresholds of categories are shown for
_BEGINNING = 240  # characters of a text


class _Shown(NamedTuple):
    """A page, by its distance from the threshold."""

    distance: float
    url: str
    score: float
    text: str


def report(documents: str, seeds: str, rounds: Sequence[str]) -> Html:
    """The page.

    Args:
        documents: the stage of the pages.
        seeds: that of the first labels.
        rounds: the directories of all rounds, in order; links are relative to the folder that holds them.
    """
    befores = [seeds, *(f"{place}/discovered" for place in rounds)]
    chapters = [
        _round(number, place, documents, before)
        for number, (place, before) in enumerate(zip(rounds, befores, strict=False), 1)
    ]
    opening = element("p", "Precision and recall are those of held-out pages, against the seeds of the round.")
    return page("Web recall", opening, [_summary(rounds), *chapters])


def write_page(output: str, rounds: int) -> None:
    """Writes the page of a finished chain (web_recall.py) into its directory."""
    places = [f"{output}/round_{number}" for number in range(1, rounds + 1)]
    found = report(f"{output}/near_duplicates", f"{output}/seeds", places)
    Directory(output).write_bytes(REPORT, found.encode())


def _summary(rounds: Sequence[str]) -> Section:
    rows = []
    for number, place in enumerate(rounds, 1):
        held, counts = _held_out(place), Manifest.read(f"{place}/discovered").table("count")
        chosen = held["chosen"]
        rows.append(
            [
                number,
                f"{chosen['threshold']:.2f}",
                percent(chosen["precision"]),
                percent(chosen["recall"]),
                *(counts.get(name, 0) for name in ("recalled", "gained", "lost again", "sites", "new seeds")),
                megabytes(counts.get("gained, bytes", 0)),
            ]
        )
    heads = ["round", "threshold", "precision", "recall", "pages recalled", "gained", "lost again", "sites"]
    return section("rounds", "Rounds", table("r" * 10, [*heads, "new seeds", "MB gained"], rows))


def _held_out(place: str) -> Any:
    """What training measured; "chosen" is what the pages were scored by, with figures of the nearest threshold."""
    held = json.loads(read_finished(Directory(f"{place}/classifier"), HELD_OUT))
    used = Manifest.read(f"{place}/scores").config["config"]["threshold"]
    if used is not None:
        held["chosen"] = min(held["curve"], key=lambda each: abs(each["threshold"] - used)) | {"threshold": used}
    return held


def _round(number: int, place: str, documents: str, before: str) -> Section:
    name = place.rstrip("/").rsplit("/", 1)[-1]
    held = _held_out(place)
    above, below, gained = _samples(documents, f"{place}/scores", before, held["chosen"]["threshold"])
    lines = read_finished(Directory(f"{place}/discovered"), SITES).decode().splitlines()
    sites = [json.loads(line) for line in lines[:_LINES]]
    curve = [
        [f"{each['threshold']:.2f}", percent(each["precision"]), percent(each["recall"])] for each in held["curve"]
    ]
    return section(
        f"round-{number}",
        f"Round {number}",
        element("p", element("a", "Parts of sites, for review", href=f"{name}/discovered/{PATTERNS}")),
        _pages("Just above the threshold", above),
        _pages("Just below it", below),
        _pages("Of what the round gained", gained),
        fold(
            f"Sites with most recalled pages ({len(sites)} of {len(lines)})",
            table("lrr", ["site", "pages", "recalled"], [[s["site"], s["pages"], s["recalled"]] for s in sites]),
        ),
        fold("Precision and recall by threshold", table("rrr", ["threshold", "precision", "recall"], curve[4::5])),
        fold("Thresholds that recall a share of a category's seeds", _categories(held)),
        fold("Seeds among the held-out pages that have a label, by score", _calibration(held["calibration"])),
    )


def _categories(held: Any) -> Html:
    """The threshold of each category of pages for each recall that may be wanted."""
    found = [thresholds_for(held, wanted) for wanted in _RECALLS]
    rows = [
        [name, each["pages"], each["seeds"], *(f"{thresholds[name]:.3f}" for thresholds in found)]
        for name, each in held["categories"].items()
    ]
    return table("lrr" + "r" * len(found), ["category", "pages", "seeds", *map(percent, _RECALLS)], rows)


def _calibration(bins: Sequence[dict[str, float]]) -> Html:
    rows: list[list[Content]] = []
    for each in bins:
        known = each["seeds"] + each["graded as others"]
        share = percent(each["seeds"] / known) if known else ""
        score = f"{each['from']:.1f} to {each['from'] + 0.1:.1f}"
        rows.append([score, each["pages"], each["seeds"], each["graded as others"], share])
    return table("lrrrr", ["score", "pages", "seeds", "graded as others", "seeds among these two"], rows)


def _pages(title: str, shown: Sequence[_Shown]) -> Html:
    if not shown:
        return note(f"{title}: no page.")
    rows = [[f"{each.score:.3f}", _linked(each.url), each.text] for each in shown]
    return fold(title, table("rll", ["score", "page", "begins"], rows))


def _linked(url: str) -> Content:
    """A link. A document of another source than a crawl may have no address, or one that a click would run."""
    return element("a", url, href=url) if url.lower().startswith(("http://", "https://")) else url


def _samples(documents: str, scores: str, before: str, threshold: float) -> tuple[list[_Shown], ...]:
    """Pages just above and below the threshold, and some that weren't recalled before."""
    above: list[_Shown] = []
    below: list[_Shown] = []
    gained: list[_Shown] = []
    for url, text, score, recalled, was in _rows(documents, scores, before):
        shown = _Shown(abs(score - threshold), url, score, " ".join(text[: 2 * _BEGINNING].split())[:_BEGINNING])
        (above if recalled else below).append(shown)
        if recalled and not was:
            gained.append(shown._replace(distance=_drawn(url)))
        for kept in (above, below, gained):
            if len(kept) > 1000:
                kept[:] = nsmallest(_SHOWN, kept)
    return nsmallest(_SHOWN, above), nsmallest(_SHOWN, below), nsmallest(_SHOWN, gained)


def _drawn(url: str) -> float:
    """A number in 0 .. 1 by which pages are drawn."""
    return xxhash.xxh3_64_intdigest(url.encode()) / 2**64


def _rows(documents: str, scores: str, before: str) -> Iterator[tuple[str, str, float, bool, bool]]:
    names = zip(input_shards(documents), input_shards(scores, "scores"), input_shards(before, "labels"), strict=True)
    for one, two, three in names:
        for pages, scored, labels in zip(
            read_shard(Directory(documents), one, ["url", "text"]),
            read_shard(Directory(scores), two),
            read_shard(Directory(before), three, ["recalled"]),
            strict=True,
        ):
            columns = (*pages.columns, *scored.columns, *labels.columns)
            yield from zip(*(column.to_pylist() for column in columns), strict=True)
