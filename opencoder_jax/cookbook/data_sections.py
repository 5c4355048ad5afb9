"""The chapters of the report about data: from collected files to the mixtures that the model reads."""

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.cookbook import plots
from opencoder_jax.cookbook.results import FUNNEL, MADE, DropReason, Results
from opencoder_jax.reports.page import (
    Content,
    Html,
    Section,
    compact,
    element,
    figure,
    fold,
    markup,
    megabytes,
    note,
    paragraph,
    percent,
    section,
    table,
)

DUPLICATES = ("exact_duplicates", "near_duplicates")
LANGUAGES = 15
CLUSTERS = 8
MEMBERS = 4  # of a cluster that are named
RULES = 12
REASONS = 4  # of a stage that are named in the table of stages
DETAIL = 160  # letters of the evidence that are shown


def words(name: str) -> str:
    """A stage's or a reason's name as words."""
    return name.replace("_", " ")


def funnel(results: Results) -> Section:
    """Documents and bytes through every stage."""
    collected = results.stages["collect"].total("out", "documents")
    reasons = {name: results.drop_reasons(name) for name in FUNNEL}
    rows: list[list[Content]] = []
    for name in FUNNEL:
        stage = results.stages[name]
        before, kept = (stage.total(side, "documents") for side in ("in", "out"))
        why = [f"{reason.reason} {reason.documents:,}" for reason in reasons[name][:REASONS]]
        if (more := len(reasons[name]) - REASONS) > 0:
            why.append(f"{more} other reasons")
        share, size = percent(kept / collected) if collected else None, megabytes(stage.total("out", "bytes"))
        rows.append([words(name), before, before - kept, kept, share, size, " · ".join(why) or None])
    heads = ["stage", "documents in", "dropped", "kept", "of collected", "MB kept", "most frequent reasons"]
    return section(
        "funnel",
        "The funnel",
        figure(
            plots.funnel({words(name): results.stages[name] for name in FUNNEL}),
            "What is left after each stage. Redaction also shortens documents; the filter works on signals that are "
            "measured between the two.",
        ),
        table("lrrrrrl", heads, rows),
        _all_reasons(reasons),
    )


def _all_reasons(reasons: dict[str, list[DropReason]]) -> Html:
    rows: list[list[Content]] = []
    for stage, found in reasons.items():
        for name, documents, size, example, detail in found:
            short = detail if len(detail) <= DETAIL else detail[: DETAIL - 1] + "…"
            shown = markup(element("code", example), element("span", short, class_="detail"))
            code = element("code", name, class_="name")
            rows.append([words(stage), code, documents, megabytes(size), shown if example else None])
    if not rows:
        return note("No stage dropped anything.")
    heads = ["stage", "reason", "documents", "MB", "for example"]
    return fold("Every reason, with an example", table("llrrl", heads, rows))


def derived(results: Results) -> Section:
    """What is made of the documents that are left."""
    rows: list[list[Content]] = []
    for name in MADE:
        stage = results.stages[name]
        counts = " · ".join(f"{key} {count:,}" for key, count in _counts(stage, "").items() if count)
        documents = [stage.total(side, "documents") for side in ("in", "out")]
        rows.append([words(name), *documents, megabytes(stage.total("out", "bytes")), counts or None])
    return section(
        "derived",
        "Data for annealing and tuning",
        paragraph(
            "No language model wrote these: the algorithmic corpus is chosen by keywords, snippets are functions whose "
            "doctests were run and passed, and instructions are built from those snippets. The task grammar puts "
            "operations together, and says and programs each in several ways; all programs of a task were run and "
            "agree. Pairs of operations that follow each other are held out by a hash of their names: one in eight is "
            "in no training text, and every held-out problem has one. No function has the name of a problem."
        ),
        table("lrrrl", ["set", "documents in", "documents out", "MB", "counted"], rows),
    )


def recalled(results: Results) -> Section:
    """What web recall found in the miniature of a crawl."""
    rows: list[list[Content]] = []
    for number, (chosen, counts) in enumerate(results.rounds, 1):
        shares = [percent(chosen[name]) for name in ("precision", "recall")]
        did = (counts.get(name, 0) for name in ("recalled", "gained", "lost again", "sites", "new seeds"))
        rows.append([number, f"{chosen['threshold']:.2f}", *shares, *did])
    heads = ["round", "threshold", "precision", "recall", "pages recalled", "gained", "lost again", "sites"]
    wanted, kept, right = results.recalled()
    return section(
        "recalled",
        "Pages recalled from a crawl",
        paragraph(
            "Python's library, a page a function or class, among the licences of the installed packages. A classifier "
            "learns from a few pages that are marked, scores all of them, and the sites that it finds teach the next "
            "round. Precision and recall of a round are those of held-out pages, against its seeds."
        ),
        table("rrrrrrrrr", [*heads, "new seeds"], rows),
        paragraph(
            f"By the labels that nobody told it, {wanted:,} pages are about code: {right:,} of them were recalled "
            f"({percent(right / max(1, wanted))}). Recalled pages of other kinds: {kept - right:,}."
        ),
    )


def languages(results: Results) -> Section:
    """The largest languages before the first and after the last stage."""
    ends = [results.stages[name] for name in (FUNNEL[0], FUNNEL[-1])]
    before, after = (stage.table("out", "bytes") for stage in ends)
    documents = [stage.table("out", "documents") for stage in ends]
    names = sorted(before, key=lambda name: (-before[name], name))
    shown = names[:LANGUAGES]
    rows: list[list[Content]] = []
    for name in names:
        kept = after.get(name, 0)
        counts = [side.get(name, 0) for side in documents]
        rows.append([name, *counts, megabytes(before[name]), megabytes(kept), percent(kept / max(before[name], 1))])
    heads = ["language", "documents collected", "left", "MB collected", "MB left", "of its bytes"]
    largest = f"The {len(shown)} largest of {len(names)} languages" if len(names) > LANGUAGES else "All languages"
    return section(
        "languages",
        "Languages before and after",
        figure(
            plots.languages(shown, [before[name] for name in shown], [after.get(name, 0) for name in shown]),
            f"{largest}, by bytes collected. A language without a second bar has nothing left.",
        ),
        fold("All languages", table("lrrrrr", heads, rows)),
    )


def duplicates(results: Results) -> Section:
    """The largest clusters of each stage of deduplication."""
    parts: list[Html] = []
    for stage in DUPLICATES:
        found = results.duplicates(stage)
        parts.append(element("h3", words(stage).capitalize()))
        if not found:
            parts.append(note(f"No {words(stage)} were found."))
            continue
        copies, size = sum(len(cluster.others) for cluster in found), sum(cluster.bytes for cluster in found)
        parts.append(paragraph(f"Clusters: {len(found):,}. Copies dropped: {copies:,} ({megabytes(size)} MB)."))
        rows: list[list[Content]] = []
        for kept, others, size in found[:CLUSTERS]:
            named = [element("code", other) for other in others[:MEMBERS]]
            if (more := len(others) - MEMBERS) > 0:
                named.append(element("span", f"and {more:,} more", class_="detail"))
            rows.append([len(others) + 1, megabytes(size), element("code", kept), markup(*named)])
        parts.append(table("rrll", ["files", "MB dropped", "kept", "dropped"], rows))
    return section("duplicates", "The largest clusters of duplicates", *parts)


def rules(results: Results) -> Section:
    """How many documents each rule of the filter hit, and how many no other rule hit."""
    hits, alone = (_counts(results.stages["filter"], prefix) for prefix in ("hit ", "only "))
    if not hits:
        return section("rules", "Rules of the filter", note("No rule of the filter hit a document."))
    most = max(hits.values())
    rows: list[list[Content]] = [
        [element("code", rule), count, alone.get(rule, 0), _bar(count, alone.get(rule, 0), most)]
        for rule, count in hits.items()
    ]
    heads = ["signal", "documents hit", "by this rule only", ""]
    return section(
        "rules",
        "Rules of the filter",
        paragraph(
            f"{len(hits)} rules hit a document. Thresholds are tuned by reading what a rule catches alone (strong "
            "colour): what it shares with other rules is lost whether or not the rule exists."
        ),
        table("lrrl", heads, rows[:RULES]),
        *([fold(f"The other {len(rows) - RULES} rules", table("lrrl", heads, rows[RULES:]))] if rows[RULES:] else []),
    )


def redacted(results: Results) -> Section:
    """What redaction removed or replaced."""
    stage = results.stages["redact"]
    counts = _counts(stage, "redacted ")
    if not counts:
        return section("redacted", "What redaction replaced", note("Nothing had to be redacted."))
    most = max(counts.values())
    rows: list[list[Content]] = [[words(kind), count, _bar(count, count, most)] for kind, count in counts.items()]
    saved = stage.total("in", "bytes") - stage.total("out", "bytes")
    return section(
        "redacted",
        "What redaction replaced",
        paragraph(
            "Copyright notices are cut from the head of a file; everything else becomes a placeholder such as ",
            element("code", "<email>"),
            f". The text is {megabytes(saved)} MB shorter." if saved > 0 else ".",
        ),
        table("lrl", ["kind", "times", ""], rows),
    )


def mixture(results: Results) -> Section:
    """Tokens of each record set, and how often each training stage reads them."""
    tokens = {name: manifest.total("tokens") for name, manifest in results.records.items()}
    rows: list[list[Content]] = []
    for name, manifest in results.records.items():
        size = manifest.total("out", "bytes")
        row: list[Content] = [words(name), manifest.total("out", "documents"), tokens[name]]
        row.append(f"{size / tokens[name]:.2f}" if tokens[name] else None)
        for stage in results.trainings:
            read = stage.mixture.get(name, 0.0) * stage.rows[-1]["tokens"]
            row.append(f"{read / max(tokens[name], 1):.2f}" if read else None)
        rows.append(row)
    epochs = [f"epochs in {stage.name}" for stage in results.trainings]
    named = {words(name): count for name, count in tokens.items()}
    shares = {stage.name: {words(name): part for name, part in stage.mixture.items()} for stage in results.trainings}
    return section(
        "mixture",
        "The data mixture",
        figure(plots.mixture(named, shares), "One colour a record set, the same on both sides."),
        table("lrrr" + "r" * len(epochs), ["record set", "records", "tokens", "bytes a token", *epochs], rows),
        note(
            f"{compact(sum(tokens.values()))} tokens in all. An epoch is one pass over a record set; below 1, part of "
            "it is never read. Padding counts as read."
        ),
    )


def _counts(manifest: Manifest, prefix: str) -> dict[str, int]:
    """The counters of a prefix, the largest first."""
    found = manifest.table("count").items()
    counts = {key.removeprefix(prefix): count for key, count in found if key.startswith(prefix)}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _bar(count: int, strong: int, most: int) -> Html:
    """A bar as long as a count, the first part of it in the stronger colour."""
    parts = ((strong, "strong"), (count - strong, "pale"))
    bars = [element("i", class_=name, style=f"width:{100 * part / most:.2f}%") for part, name in parts if part > 0]
    return element("span", *bars, class_="bar")
