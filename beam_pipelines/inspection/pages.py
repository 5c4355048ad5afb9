"""The pages of the inspection: an index, a page of examples for each rule, and one for a comparison."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from opencoder_jax.beam_pipelines.inspection import plots
from opencoder_jax.beam_pipelines.inspection.survey import (
    SAMPLE,
    Change,
    Comparison,
    Nearest,
    RuleSurvey,
    Survey,
    TableSurvey,
)
from opencoder_jax.reports.page import (
    Content,
    Html,
    Section,
    element,
    figure,
    fold,
    markup,
    megabytes,
    note,
    page,
    paragraph,
    section,
)
from opencoder_jax.reports.page import table as html_table

INDEX, COMPARISON = "index.html", "compare.html"


class Example(NamedTuple):
    """A document that a page shows: `head` is the beginning of its text, all of it unless `cut`."""

    path: str
    repository: str
    language: str
    bytes: int
    head: str
    cut: bool


Examples = Mapping[int, Example]  # by packed address
Pictures = dict[tuple[str, int], Html]  # by table and the rule's place in it


def pages(found: Survey, examples: Examples, profile: str, compare: str | None) -> Iterator[tuple[str, Html]]:
    """(name, page) of every file, the index last, so that what it links to is there."""
    pictures: Pictures = {}
    for table in found.tables:
        for number, rule in enumerate(table.rules):
            pictures[table.name, number] = picture = _picture(table, number)
            yield page_name(table, number), rule_page(table, rule, picture, examples, profile)
    if found.comparison is not None and compare is not None:
        yield COMPARISON, comparison_page(found.comparison, examples, profile, compare)
    yield INDEX, index_page(found, pictures, profile, compare)


def page_name(table: TableSurvey, number: int) -> str:
    """The file of a rule, by its place in its table."""
    return f"{table.name}-{number + 1:02d}-{table.rules[number].rule.signal}.html"


# --- the index


def index_page(found: Survey, pictures: Pictures, profile: str, compare: str | None) -> Html:
    """Counts and pictures of every table."""
    documents, kept = sum(table.documents for table in found.tables), sum(table.kept for table in found.tables)
    size, kept_size = sum(table.bytes for table in found.tables), sum(table.kept_bytes for table in found.tables)
    opening = markup(
        paragraph(
            f"The profile {profile} keeps {kept:,} of {documents:,} documents ({share(kept, documents)}) and "
            f"{megabytes(kept_size)} of {megabytes(size)} MB ({share(kept_size, size)}). A document is dropped when "
            "any rule of its table fires."
        ),
        html_table(
            "lrrrrrrr",
            ("table", "documents", "kept", "share", "MB", "MB kept", "share", "signal failed"),
            [
                (
                    element("a", table.name, href=f"#{quote(table.name)}"),
                    table.documents,
                    table.kept,
                    share(table.kept, table.documents),
                    megabytes(table.bytes),
                    megabytes(table.kept_bytes),
                    share(table.kept_bytes, table.bytes),
                    table.failed,
                )
                for table in found.tables
            ],
        ),
        *([_compared(found.comparison, compare)] if found.comparison is not None and compare is not None else []),
    )
    sections = [_table_section(table, pictures) for table in found.tables]
    return page(f"What the rules of {profile} drop", opening, sections)


def _compared(comparison: Comparison, compare: str) -> Html:
    dropped, kept = comparison.documents["dropped"], comparison.documents["kept"]
    link = element("a", "which, and by which rules", href=COMPARISON)
    return paragraph(f"The profile {compare} would drop {dropped:,} more, and keep {kept:,} of those dropped: ", link)


def _table_section(table: TableSurvey, pictures: Pictures) -> Section:
    order = sorted(range(len(table.rules)), key=lambda number: (-table.rules[number].hits, number))
    rows: list[tuple[Content, ...]] = [
        (
            element("a", str(rule.rule), href=quote(page_name(table, number))),
            rule.hits,
            share(rule.hits, table.documents),
            rule.only,
            megabytes(rule.only_bytes) if rule.only else None,
            rule.measured,
        )
        for number in order
        for rule in [table.rules[number]]
    ]
    heads = ("rule", "hits", "share", "hits by it alone", "MB by it alone", "documents measured")
    hitting = [number for number in order if table.rules[number].hits]
    names = [short(table.rules[number].rule.signal) for number in hitting]
    heat = [
        figure(
            plots.overlap(names, table.overlap[np.ix_(hitting, hitting)]),
            "Which rules catch the same documents: of those that the rule of a row catches, the percentage that the "
            "rule of a column catches too. Beside a row's name stand its hits.",
        )
    ]
    return section(
        quote(table.name),
        f"{table.name}: {table.kept:,} of {table.documents:,} documents kept",
        html_table("lrrrrr", heads, rows),
        *(heat if len(hitting) > 1 else [note("No two rules have hits: there is no overlap to draw.")]),
        element("h3", "The signals and their thresholds"),
        _sampled(table),
        *(
            fold(f"{table.rules[number].rule}: {table.rules[number].hits:,} hits", pictures[table.name, number])
            for number in order
        ),
    )


def _sampled(table: TableSurvey) -> Html:
    drawn = f"a sample of {SAMPLE:,} documents, drawn by hash" if table.documents > SAMPLE else "all documents"
    return note(f"Pictures show {drawn}; the counts in tables are of all. A spared hit counts as caught in pictures.")


def _picture(table: TableSurvey, number: int) -> Html:
    rule = table.rules[number]
    if not rule.measured:
        return note("No document of this table has the signal.")
    return figure(
        plots.signal(rule.rule, table.sample[:, number]),
        f"{rule.rule.signal}; dashed: the threshold. The right picture counts each side of the rule by itself.",
    )


# --- a rule


def rule_page(table: TableSurvey, rule: RuleSurvey, picture: Html, examples: Examples, profile: str) -> Html:
    """The picture of a rule and its examples."""
    spared = f" It spares {100 * rule.rule.spare:g} % of its hits, by hash." if rule.rule.spare else ""
    opening = markup(
        paragraph(
            f"In the table {table.name} of the profile {profile}, the rule catches {rule.hits:,} of "
            f"{table.documents:,} documents ({share(rule.hits, table.documents)}). {rule.only:,} of them "
            f"({megabytes(rule.only_bytes)} MB) are caught by it alone.{spared} ",
            element("a", "All rules", href=f"{INDEX}#{quote(table.name)}"),
        ),
        picture,
    )
    sections = [
        _examples(
            "only",
            "Caught by this rule alone",
            rule.alone,
            examples,
            rule.only,
            "Drawn by hash. Good documents here speak against the rule or its threshold.",
        )
    ]
    for bound, caught, passed, extreme in rule.sides():
        side = "high" if bound.sign > 0 else "low"
        sections += [
            _examples(f"{side}-caught", f"Just caught: nearest of those {bound}", caught, examples),
            _examples(f"{side}-passed", f"Just passing: nearest of those not {bound}", passed, examples),
            _examples(f"{side}-extreme", f"Most extreme of those {bound}", extreme, examples),
        ]
    return page(f"{table.name}: {rule.rule}", opening, sections)


def _examples(
    anchor: str, title: str, shown: Nearest, examples: Examples, of: int | None = None, remark: str = ""
) -> Section:
    listed = _list(shown, examples)
    count = len(listed)
    shown_of = f"{count} of {of:,}" if of is not None else str(count)
    words = f"{shown_of} shown. {remark}".strip() if count else "None."
    return section(anchor, title, note(words), *listed)


def _list(shown: Nearest, examples: Examples) -> list[Html]:
    return [_example(examples[address], value) for address, value in shown]


def _example(example: Example, value: float) -> Html:
    place = f" {example.repository} · {example.language} · {example.bytes:,} bytes"
    summary = element("summary", element("b", f"{value:.4g}"), example.path, element("span", place))
    cut = [note("The text goes on.")] if example.cut else []
    # A carriage return or a form feed is the document's, but would be no valid HTML or a line of its own.
    return element("details", summary, element("pre", visible(example.head)), *cut)


# --- two profiles


def comparison_page(comparison: Comparison, examples: Examples, profile: str, compare: str) -> Html:
    """The documents that change sides, by the rules that move them."""
    sections = []
    for direction, title, by in (
        ("dropped", f"Kept by {profile}, dropped by {compare}", compare),
        ("kept", f"Dropped by {profile}, kept by {compare}", profile),
    ):
        changes = [
            (table, rule, change)
            for (which, table, rule), change in sorted(comparison.changes.items(), key=_largest_first)
            if which == direction
        ]
        rows = [
            (table, rule, change.documents, change.only, megabytes(change.bytes)) for table, rule, change in changes
        ]
        heads = ("table", f"rule of {by}", "documents", "by it alone", "MB")
        count, size = comparison.documents[direction], comparison.bytes[direction]
        sections.append(
            section(
                direction,
                title,
                note(
                    f"{count:,} documents, {megabytes(size)} MB. A document that several rules catch counts with each."
                    if count
                    else "None."
                ),
                *([html_table("llrrr", heads, rows)] if rows else []),
                *(
                    markup(
                        element("h3", f"{table}: {rule}"),
                        note(f"{len(change.shown.addresses)} of {change.documents:,} shown, drawn by hash."),
                        *_list(change.shown, examples),
                    )
                    for table, rule, change in changes
                ),
            )
        )
    opening = paragraph(
        f"Documents that one of the profiles {profile} and {compare} keeps and the other drops. ",
        element("a", "All rules", href=INDEX),
    )
    return page(f"{profile} and {compare} compared", opening, sections)


def _largest_first(item: tuple[tuple[str, str, str], Change]) -> tuple[int, tuple[str, str, str]]:
    return -item[1].documents, item[0]


# --- words


def share(part: int, whole: int) -> str:
    """A share as per cent, with two digits, for rules that hit few documents matter too."""
    return f"{100 * part / whole:.2f} %" if whole else "–"


def short(signal: str) -> str:
    """The name of a signal without what all of a table begin with."""
    return signal.removeprefix("qsc_")


_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {0x7F: "␡"}


def visible(text: str) -> str:
    """Text with control characters as their pictures: HTML may not hold them, and a reviewer should see them."""
    return text.replace("\r\n", "\n").translate(_PICTURES)
