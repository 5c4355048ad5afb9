"""python -m opencoder_jax compare: whether two evaluations of the same problems differ, and which problems turned.

The difference is paired: problem by problem, so that what both share has no noise. Its interval is the bootstrap's over
problems, or the rule of three where none turned; its p-value flips the signs of whole problems (with one sample each,
that is McNemar's exact test).
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opencoder_jax.evaluation.scores.results import Evaluated, by_task, find
from opencoder_jax.evaluation.scores.rows import PROFILES, Profile, Row
from opencoder_jax.files import write_json
from opencoder_jax.recipe import UserError, parse_flags, refuse_unknown
from opencoder_jax.statistics.bootstrap import Interval, bounded, mcnemar, paired_p


class Turned(NamedTuple):
    """A problem that came out otherwise: the shares of right samples, and how the first samples ended."""

    task: str
    first: float
    second: float
    outcomes: tuple[str, str]


class Compared(NamedTuple):
    """Two evaluations on one benchmark.

    Attributes:
        shares: pass@1 of both, over the problems that both have.
        difference: second minus first, with its interval.
        p_value: two-sided, of no difference.
        alone: problems that the first has and the second lacks, and the other way round.
    """

    benchmark: str
    problems: int
    shares: tuple[float, float]
    difference: Interval
    p_value: float
    turned: list[Turned]
    alone: tuple[int, int]


def main(argv: list[str]) -> None:
    """Prints the comparison. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax compare",
        description="Compares two evaluations on the problems that both have: the difference, its interval and p-value,"
        " and the problems that turned.",
        epilog="example:\n  python -m opencoder_jax compare runs/base runs/tuned --output=turned.json\n",
    )
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="a directory that eval wrote")
    parser.add_argument("--profile", choices=PROFILES, default="strict", help="whose verdicts; default: strict")
    parser.add_argument("--all", action="store_true", help="print every problem that turned, not the first twenty")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the same as JSON")
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    first, second = (find(run) for run in flags.runs)
    found = list(compare(first, second, flags.profile))
    if not found:
        names = [", ".join(one.name for one in side) for side in (first, second)]
        raise UserError(f"{flags.runs[0]} and {flags.runs[1]} have no benchmark in common: {names[0]}; {names[1]}")
    for one in found:
        print(told(one, [str(run) for run in flags.runs], None if flags.all else 20))
    if flags.output:
        write_json(flags.output, [_content(one) for one in found])


def compare(first: Sequence[Evaluated], second: Sequence[Evaluated], profile: Profile) -> Iterator[Compared]:
    """Each benchmark that both have.

    Raises:
        UserError: they were of different files, or of no common problem.
    """
    others = {one.name: one for one in second}
    for one in first:
        if other := others.get(one.name):
            digests = [each.about.get("benchmark", {}).get("sha256") for each in (one, other)]
            if digests[0] != digests[1]:
                raise UserError(
                    f"{one.directory} and {other.directory}: two editions of {one.name} ({digests[0]}, {digests[1]}); "
                    "their problems differ, so their scores can't be compared"
                )
            yield _compared(one, other, profile)


def _compared(one: Evaluated, other: Evaluated, profile: Profile) -> Compared:
    for each in (one, other):
        if profile not in each.profiles:
            raise UserError(f"{each.directory}: was not judged by the profile {profile}")
    left, right = (dict(by_task(each.rows(profile))) for each in (one, other))
    common = [task for task in left if task in right]
    if not common:
        raise UserError(f"{one.directory} and {other.directory}: no problem of {one.name} in common")
    shares = [(task, _share(left[task]), _share(right[task])) for task in common]
    differences = [after - before for _, before, after in shares]
    gained, lost = (sum(sign * each > 0 for each in differences) for sign in (1, -1))
    single = all(len(rows) == 1 for side in (left, right) for rows in side.values())
    p_value = mcnemar(lost, gained) if single else paired_p(differences)
    turned = [
        Turned(task, before, after, (left[task][0].outcome, right[task][0].outcome))
        for task, before, after in shares
        if before != after
    ]
    return Compared(
        one.name,
        len(common),
        (float(np.mean([before for _, before, _ in shares])), float(np.mean([after for *_, after in shares]))),
        bounded(differences, -1, 1, method="bca"),
        p_value,
        sorted(turned, key=lambda each: (each.second - each.first, common.index(each.task))),
        (len(left) - len(common), len(right) - len(common)),
    )


def _share(rows: Sequence[Row]) -> float:
    """Of right samples."""
    return sum(row.outcome == "passed" for row in rows) / len(rows)


def told(found: Compared, names: Sequence[str], most: int | None) -> str:
    """A comparison as a person reads it."""
    difference = found.difference.times(100)
    lines = [
        f"{found.benchmark}: {found.problems} problems",
        f"  {names[0]:40} {found.shares[0]:7.1%}",
        f"  {names[1]:40} {found.shares[1]:7.1%}",
        f"  difference {difference.estimate:+.1f} points, 95 % interval {difference.low:+.1f} to"
        f" {difference.high:+.1f}, p = {found.p_value:.3g}",
    ]
    if any(found.alone):
        lines.append(
            f"  left out, as one alone has them: {found.alone[0]} of the first, {found.alone[1]} of the second"
        )
    for title, sign in (("lost", -1), ("gained", 1)):
        some = [each for each in found.turned if sign * (each.second - each.first) > 0]
        lines.append(f"  {title}: {len(some)}")
        for each in some[:most]:
            ends = " -> ".join(outcome.replace("_", " ") for outcome in each.outcomes)
            lines.append(f"    {each.task:30} {each.first:.0%} -> {each.second:.0%}  ({ends})")
        if most is not None and len(some) > most:
            lines.append(f"    and {len(some) - most} more (--all)")
    return "\n".join(lines)


def _content(found: Compared) -> dict[str, object]:
    turned = [each._asdict() for each in found.turned]
    return found._asdict() | {"difference": found.difference._asdict(), "turned": turned}
