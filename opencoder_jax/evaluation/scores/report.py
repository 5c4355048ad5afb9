"""report.html and report.md of an evaluation: the scores beside published ones, and every problem to open.

A page holds what was asked, what the model said, the program that was found in it, the verdict and what differed. Of
more than `MOST` samples, the others stand in rows.jsonl alone, and the page says so.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opencoder_jax.evaluation.scores.published import beside
from opencoder_jax.evaluation.scores.results import Evaluated, by_task
from opencoder_jax.evaluation.scores.rows import Row
from opencoder_jax.files import write_whole
from opencoder_jax.reports.page import NONE, Content, Html, element, fold, markup, note, page, paragraph, section, table

MOST = 2_000  # samples on a page
_LONGEST = 20_000  # characters of an answer that are shown

Line = Sequence[Content]


def write_report(output: Path, directories: Sequence[Path]) -> None:
    """Writes both files into `output`, of the evaluations in these directories."""
    found = [Evaluated(directory) for directory in directories]
    write_whole(output / "report.html", _page(found).encode("utf-8", "replace"))
    write_whole(output / "report.md", _markdown(found))


_HEADS = (
    "benchmark",
    "model",
    "profile",
    "pass@k",
    "%",
    "95 % interval",
    "truncated",
    "no code",
    "timeout",
    "problems",
)


def _score_lines(found: Sequence[Evaluated]) -> Iterator[list[str]]:
    for one in found:
        for profile in one.profiles:
            score = one.score(profile)
            rates = [_rate(score["truncated"]), *(_share(score, outcome) for outcome in ("no_code", "timeout"))]
            shares = score["pass_at_k"] | ({"pass@1, older tests": score["older"]} if score.get("older") else {})
            for name, share in shares.items():
                interval = f"{100 * share['low']:.1f} to {100 * share['high']:.1f}"
                figure = f"{100 * share['estimate']:.1f}"
                yield [one.name, one.model, profile, name, figure, interval, *rates, str(score["tasks"])]
        for known in beside(one.name):
            yield [one.name, known.model, "published", "pass@1", f"{known.score:.1f}", *[NONE] * 5]


def _rate(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f} %"


def _share(score: dict[str, Any], outcome: str) -> str:
    return _rate(score["outcomes"].get(outcome, 0) / score["samples"])


def _group_lines(found: Sequence[Evaluated]) -> Iterator[list[str]]:
    for one in found:
        score = one.score("strict")
        for kind, groups in (("level", score["by_level"]), ("language", score.get("by_language", {}))):
            for name, (share, tasks) in groups.items():
                yield [one.name, f"{kind} {name}", f"{100 * share:.1f}", str(tasks)]


def _markdown(found: Sequence[Evaluated]) -> str:
    def lines(heads: Sequence[str], rows: Iterator[list[str]]) -> list[str]:
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *cells)] if cells else []

    text = ["# Evaluation", "", *lines(_HEADS, _score_lines(found))]
    if groups := lines(("benchmark", "of", "%", "problems"), _group_lines(found)):
        text += ["", *groups]
    return "\n".join([*text, "", *(f"- {name}: {value}" for name, value in _circumstances(found[0])), ""])


def _circumstances(one: Evaluated) -> Iterator[tuple[str, str]]:
    about = one.about
    for name, value in about.get("benchmark", {}).items():
        yield f"benchmark's {name}", str(value)
    for name, version in about.get("toolchains", {}).items():
        yield f"toolchain of {name}", version
    for name, state in about.get("sandbox", {}).items():
        yield f"sandbox, {name}", state
    yield "Python", str(about.get("python", NONE))
    yield "version of the code", str(about.get("code", NONE))


def _page(found: Sequence[Evaluated]) -> Html:
    numbers = "lllrrrrrrr"
    scores = section("scores", "Scores", table(numbers, _HEADS, _score_lines(found)), _PUBLISHED)
    sections = [scores]
    if groups := list(_group_lines(found)):
        body = table("llrr", ("benchmark", "of", "samples right, %", "problems"), groups)
        sections.append(section("groups", "Difficulty and language", body))
    sections += [section(f"of-{one.name}", f"Problems of {one.name}", *_problems(one)) for one in found]
    rows = ((one.name, name, value) for one in found for name, value in _circumstances(one))
    sections.append(section("circumstances", "How it was run", table("lll", ("benchmark", "what", ""), rows)))
    return page("Evaluation", paragraph(", ".join(dict.fromkeys(one.model for one in found))), sections)


_PUBLISHED = note(
    "Rows of the profile “published” are the paper's (arXiv 2411.04905v3): other prompts, other evaluators. One of 164 "
    "problems is 0.6 points; the intervals are the bootstrap's over problems."
)


def _problems(one: Evaluated) -> Iterator[Html]:
    others = {(row.task_id, row.sample): row for row in one.rows("opencoder")} if "opencoder" in one.profiles else {}
    rows = one.rows("strict")
    if len(rows) > MOST:
        yield note(f"The first {MOST:,} samples of {len(rows):,}; all stand in rows.jsonl and samples.jsonl.")
    for task, answers in by_task(rows[:MOST]):
        right = sum(row.outcome == "passed" for row in answers)
        problem = one.problems.get(task, {})
        told = ", ".join(dict.fromkeys(row.outcome.replace("_", " ") for row in answers))
        parts = [_code("Asked", problem.get("asked"))]
        for row in answers:
            parts += _sample(row, others.get((task, row.sample)), one.answers.get((task, row.sample), ""))
        if reference := problem.get("reference"):
            parts.append(fold("The benchmark's own answer", element("pre", str(reference))))
        yield fold(f"{task}: {right} of {len(answers)} right ({told})", *parts)


def _sample(row: Row, other: Row | None, answer: str) -> Iterator[Html]:
    verdict = f"Sample {row.sample}: {row.outcome.replace('_', ' ')}"
    if other and other.outcome != row.outcome:
        verdict += f"; profile opencoder: {other.outcome.replace('_', ' ')}"
    yield element("h4", verdict)
    if row.detail:
        yield _code("What differed", row.detail)
    yield _code("Answer", answer)
    yield _code(f"Program ({row.method})", row.code)
    if row.dropped:
        yield _code("Cut off behind it", row.dropped)
    cost = f"{row.cpu_seconds:.2f} s of processor time, {row.memory_bytes / 1e6:.0f} MB"
    if row.tokens is not None:
        cost += f", {row.tokens:,} tokens" + (f", ended by {row.finish_reason}" if row.finish_reason else "")
    yield note(cost)


def _code(title: str, text: object) -> Html:
    shown = str(text or "")
    cut = f"\n… {len(shown) - _LONGEST:,} more characters" if len(shown) > _LONGEST else ""
    return markup(note(title), element("pre", shown[:_LONGEST] + cut))
