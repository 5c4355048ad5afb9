"""The report of a court: one page, every claim with its picture, its verdict, its limits and its command.

What is written is a function of the files that the steps wrote and of the command, so a run that was killed ends with
the same bytes.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from opencoder_jax.ablations import plots
from opencoder_jax.ablations.arms import Made
from opencoder_jax.ablations.config import NO_TRAINING, AblationConfig
from opencoder_jax.ablations.judge import Decision, curve
from opencoder_jax.ablations.rows import read_rows
from opencoder_jax.data.batches import DataConfig
from opencoder_jax.files import write_whole
from opencoder_jax.recipe import bind, build, gin_text
from opencoder_jax.reports import page as pages
from opencoder_jax.reports.page import Html, Section, compact, element, figure, fold, markup, note, paragraph, table

REPORT = "report.html"
OUTCOMES = ("agrees", "disagrees", "undecided")


class Tried(NamedTuple):
    """An ablation that was run: its name, its gin file, what the file says, what was made by arm, what was found."""

    name: str
    file: str
    config: AblationConfig
    made: Mapping[str, Made]
    findings: Sequence[Decision]


def write_report(output: Path, tried: Sequence[Tried], command: Sequence[str]) -> Path:
    """Writes `output/report.html` and returns its path; `command` is what made it."""
    write_whole(output / REPORT, report(tried, command).encode(errors="replace"))
    return output / REPORT


def report(tried: Sequence[Tried], command: Sequence[str]) -> Html:
    """The report as a document."""
    findings = [(each.name, finding) for each in tried for finding in each.findings]
    counts = {outcome: sum(finding.outcome == outcome for _, finding in findings) for outcome in OUTCOMES}
    told = ", ".join(f"{count} {outcome.replace('agrees', 'agree')}" for outcome, count in counts.items() if count)
    opening = markup(
        paragraph(
            f"{len(findings)} claims about a recipe, tried on a miniature: {told}. Arms are paired: the same number of"
            " tokens, the same initial weights, the same order wherever their data is the same. A claim agrees or"
            " disagrees where its 95 % interval leaves no doubt of the sign and its size counts."
            " A direction is what a miniature can show; no score of a large model."
        ),
        figure(
            plots.forest([(f"{number}  {name}", each) for number, (name, each) in enumerate(findings, 1)]),
            "Every claim, numbered as in the table.",
        ),
        _table(findings),
        note("The command that makes all of this: ", element("code", _command(command, None))),
    )
    numbers = iter(range(1, len(findings) + 1))
    return pages.page("The ablation court", opening, [_chapter(each, numbers, command) for each in tried])


def _table(findings: Sequence[tuple[str, Decision]]) -> Html:
    rows = [
        (
            number,
            each.claim.says,
            _value(each, 0),
            _value(each, 1),
            each.sentence,
            each.seeds or "–",
            each.projects or "–",
        )
        for number, (_, each) in enumerate(findings, 1)
    ]
    heads = ("", "claim", "arm", "against", "verdict; difference", "seeds", "projects, problems")
    return table("rlrrlrr", heads, rows)


def _value(finding: Decision, index: int) -> str:
    value = finding.values[index]
    if value is None:
        return "–"
    if finding.claim.metric in ("copies", "pass_at_1"):
        return f"{100 * value:.1f} %"
    return compact(value) if finding.claim.metric in NO_TRAINING else f"{value:.4f}"


def _chapter(tried: Tried, numbers: Iterator[int], command: Sequence[str]) -> Section:
    config, contents = tried.config, []
    for each in tried.findings:
        number = next(numbers)
        seeds = f" {each.seeds} seeds (the pilot asks for {each.needed})." if each.needed else ""
        contents.append(
            paragraph(
                element("b", f"{number}. {each.claim.says}. "),
                f"“{each.claim.arm}”" + (f" against “{each.claim.against}”" if each.claim.metric != "copies" else ""),
                f", {each.claim.metric.replace('_', ' ')}, expected: {each.claim.expected} by at least"
                f" {each.claim.smallest:g}. Verdict: {each.sentence}.{seeds}",
            )
        )
    runs = {name: [curve(Path(run)) for run in made.runs.values()] for name, made in tried.made.items() if made.runs}
    if runs and all(chain.from_iterable(runs.values())):
        bind([config.recipe])
        _, length, batch = build(DataConfig).phases[0]
        contents.append(
            figure(plots.curves(runs, length * batch), "Held-out texts, over seeds: mean, lowest, highest.")
        )
    totals = {name: _totals(made) for name, made in tried.made.items()}
    contents.append(figure(plots.tokens(totals), "Data of each arm. All arms that train see equally many tokens."))
    steps = dict.fromkeys(step.command() for made in tried.made.values() for step in made.steps)
    return pages.section(
        tried.name,
        config.question or tried.name,
        *contents,
        paragraph(element("b", "Limits. "), config.limits) if config.limits else "",
        note("Again, alone: ", element("code", _command(command, tried))),
        fold("The recipe", element("pre", gin_text(tried.file))),
        fold(f"The {len(steps)} commands that this takes", element("pre", "\n".join(steps))),
    )


def _totals(made: Made) -> tuple[int, int]:
    rows = read_rows(Path(made.counts)).values()
    return sum(row["tokens"] for row in rows), sum(row["copies"] for row in rows)


def _command(command: Sequence[str], tried: Tried | None) -> str:
    """The command that was given, or the same for one ablation of it."""
    head, *arguments = command
    if tried is not None:
        arguments = [tried.file, *(each for each in arguments if each.startswith("-"))]
    return f"{head} {shlex.join(arguments)}"
