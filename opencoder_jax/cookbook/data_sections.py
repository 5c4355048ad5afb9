"""The chapters of the report about data: from collected files to the mixtures that the model reads."""

from collections.abc import Mapping, Sequence

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.cookbook import plots
from opencoder_jax.cookbook.results import Cluster, DropReason, Training
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

LANGUAGES = 15
CLUSTERS = 8
MEMBERS = 4  # of a cluster that are named
RULES = 12
REASONS = 4  # of a stage that are named in the table of stages


def words(name: str) -> str:
    """A stage's or a reason's name as words."""
    return name.replace("_", " ")


def funnel(stages: Mapping[str, Manifest], reasons: Mapping[str, Sequence[DropReason]]) -> Section:
    """Documents and bytes through every stage, from the first to the last of `stages`."""
    sizes: dict[str, list[tuple[int, int]]] = {"documents": [], "bytes": []}
    for number, manifest in enumerate(stages.values()):
        for unit, pairs in sizes.items():
            kept = manifest.total("out", unit)
            # What was found but not collected would dwarf all that follows: the picture begins with what was collected.
            pairs.append((kept, max(0, manifest.total("in", unit) - kept) if number else 0))
    picture = plots.funnel([words(name) for name in stages], sizes["documents"], sizes["bytes"])
    collected = sizes["documents"][0][0]
    rows: list[list[Content]] = []
    for (name, manifest), (kept, _), (size, _) in zip(stages.items(), sizes["documents"], sizes["bytes"], strict=True):
        before = manifest.total("in", "documents")
        why = [f"{reason.reason} {reason.documents:,}" for reason in reasons[name][:REASONS]]
        more = len(reasons[name]) - REASONS
        why += [f"{more} other reasons"] if more > 0 else []
        share = percent(kept / collected) if collected else None
        rows.append([words(name), before, before - kept, kept, share, megabytes(size), " · ".join(why) or None])
    heads = ["stage", "documents in", "dropped", "kept", "of collected", "MB kept", "most frequent reasons"]
    return section(
        "funnel",
        "The funnel",
        figure(
            picture,
            "What is left after each stage. Redaction also shortens documents; the filter works on signals that are "
            "measured between the two.",
        ),
        table("lrrrrrl", heads, rows),
        _all_reasons(reasons),
    )


def _all_reasons(reasons: Mapping[str, Sequence[DropReason]]) -> Html:
    rows = [
        [
            words(stage),
            element("code", reason.reason, class_="name"),
            reason.documents,
            megabytes(reason.bytes),
            markup(element("code", reason.example), element("span", shortened(reason.detail), class_="detail"))
            if reason.example
            else None,
        ]
        for stage, found in reasons.items()
        for reason in found
    ]
    if not rows:
        return note("No stage dropped anything.")
    heads = ["stage", "reason", "documents", "MB", "for example"]
    return fold("Every reason, with an example", table("llrrl", heads, rows))


def derived(stages: Mapping[str, Manifest]) -> Section:
    """What is made of the documents that are left."""
    rows: list[list[Content]] = []
    for name, manifest in stages.items():
        counts = " · ".join(f"{key} {count:,}" for key, count in _counts(manifest, "").items() if count)
        documents = [manifest.total(side, "documents") for side in ("in", "out")]
        rows.append([words(name), *documents, megabytes(manifest.total("out", "bytes")), counts or None])
    return section(
        "derived",
        "Data for annealing and tuning",
        paragraph(
            "No language model wrote these: the algorithmic corpus is chosen by keywords, snippets are functions whose "
            "doctests were run and passed, and instructions are built from those snippets."
        ),
        table("lrrrl", ["set", "documents in", "documents out", "MB", "counted"], rows),
    )


def languages(collected: Manifest, final: Manifest) -> Section:
    """The largest languages before the first and after the last stage."""
    before, after = collected.table("out", "bytes"), final.table("out", "bytes")
    documents = [manifest.table("out", "documents") for manifest in (collected, final)]
    names = sorted(before, key=lambda name: (-before[name], name))
    shown = names[:LANGUAGES]
    picture = plots.languages(shown, [before[name] for name in shown], [after.get(name, 0) for name in shown])
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
        figure(picture, f"{largest}, by bytes collected. A language without a dark bar has nothing left."),
        fold("All languages", table("lrrrrr", heads, rows)),
    )


def duplicates(clusters: Mapping[str, Sequence[Cluster]]) -> Section:
    """The largest clusters of each stage of deduplication."""
    parts: list[Html] = []
    for stage, found in clusters.items():
        parts.append(element("h3", words(stage).capitalize()))
        if not found:
            parts.append(note(f"No {words(stage)} were found."))
            continue
        copies, size = sum(len(cluster.others) for cluster in found), sum(cluster.bytes for cluster in found)
        parts.append(paragraph(f"Clusters: {len(found):,}. Copies dropped: {copies:,} ({megabytes(size)} MB)."))
        rows: list[list[Content]] = [
            [len(cluster.others) + 1, megabytes(cluster.bytes), element("code", cluster.kept), _members(cluster)]
            for cluster in found[:CLUSTERS]
        ]
        parts.append(table("rrll", ["files", "MB dropped", "kept", "dropped"], rows))
    return section("duplicates", "The largest clusters of duplicates", *parts)


def _members(cluster: Cluster) -> Html:
    named = [element("code", other) for other in cluster.others[:MEMBERS]]
    more = len(cluster.others) - MEMBERS
    return markup(*named, *([element("span", f"and {more:,} more", class_="detail")] if more > 0 else []))


def rules(filtered: Manifest) -> Section:
    """How many documents each rule of the filter hit, and how many no other rule hit."""
    hits = _counts(filtered, "hit ")
    if not hits:
        return section("rules", "Rules of the filter", note("No rule of the filter hit a document."))
    alone = _counts(filtered, "only ")
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
            f"{len(hits)} rules hit a document. Thresholds are tuned by reading what a rule catches alone (dark): "
            "what it shares with other rules is lost whether or not the rule exists."
        ),
        table("lrrl", heads, rows[:RULES]),
        *([fold(f"The other {len(rows) - RULES} rules", table("lrrl", heads, rows[RULES:]))] if rows[RULES:] else []),
    )


def redacted(stage: Manifest) -> Section:
    """What redaction removed or replaced."""
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


def mixture(records: Mapping[str, Manifest], trainings: Sequence[Training]) -> Section:
    """Tokens of each record set, and how often each training stage reads them."""
    tokens = {name: manifest.total("tokens") for name, manifest in records.items()}
    read: dict[str, list[Content]] = {name: [] for name in tokens}
    for training in trainings:
        total = training.rows[-1]["tokens"]
        for name, cells in read.items():
            share = training.mixture.get(name, 0.0)
            cells.append(f"{share * total / max(tokens[name], 1):.2f}" if share else None)
    rows: list[list[Content]] = []
    for name, manifest in records.items():
        documents, size = manifest.total("out", "documents"), manifest.total("out", "bytes")
        per_token = f"{size / tokens[name]:.2f}" if tokens[name] else None
        rows.append([words(name), documents, tokens[name], per_token, *read[name]])
    epochs = [f"epochs in {training.name}" for training in trainings]
    heads = ["record set", "records", "tokens", "bytes a token", *epochs]
    named = {words(name): count for name, count in tokens.items()}
    shares = {training.name: {words(name): part for name, part in training.mixture.items()} for training in trainings}
    return section(
        "mixture",
        "The data mixture",
        figure(plots.mixture(named, shares), "One colour a record set, the same on both sides."),
        table("lrrr" + "r" * len(epochs), heads, rows),
        note(
            f"{compact(sum(tokens.values()))} tokens in all. An epoch is one pass over a record set; below 1, part of "
            "it is never read. Padding counts as read."
        ),
    )


def shortened(text: str, length: int = 160) -> str:
    """A text's beginning, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _counts(manifest: Manifest, prefix: str) -> dict[str, int]:
    """The counters of a prefix, the largest first."""
    found = {
        key.removeprefix(prefix): count for key, count in manifest.table("count").items() if key.startswith(prefix)
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _bar(count: int, dark: int, most: int) -> Html:
    """A bar as long as a count, the first part of it dark."""
    parts = ((dark, "dark"), (count - dark, "pale"))
    bars = [element("i", class_=name, style=f"width:{100 * part / most:.2f}%") for part, name in parts if part > 0]
    return element("span", *bars, class_="bar")
