"""How far the pipeline's verdicts are true: on MBPP, whose tests it doesn't see.

Run: python -m tests.benchmarks.synthesis_truth --mbpp=mbpp.jsonl [--problems=100] [--right=0.6] [--seed=0]

There is no strong teacher here, so answers are drawn: each of a problem's `solutions` is the reference with the chance
`right`, else a small mutant of it (beam_pipelines/synthesis/execution/mutants.py). The tests are the pipeline's own:
inputs made from the parameters, and the values that most of the solutions agree on. Then the verdict, as `validate`
gives it, and of what is kept: does the solution pass MBPP's own tests? A mutant may do, where it changes nothing.

Prints the precision with its 95 % interval (Wilson), the share that is kept, and what the solution's tests alone, those
of the first answer without any agreement, would have kept. KodCode (arXiv 2503.02951) had 97.5 % on 80 by hand.
"""

import argparse
import ast
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

from opencoder_jax.beam_pipelines.synthesis.doctests import Snippet
from opencoder_jax.beam_pipelines.synthesis.execution import mutants
from opencoder_jax.beam_pipelines.synthesis.execution.calls import made_inputs
from opencoder_jax.beam_pipelines.synthesis.execution.observing import ObservedCall, values, varied
from opencoder_jax.beam_pipelines.synthesis.execution.programs import SolutionWithTests, Unfit
from opencoder_jax.beam_pipelines.synthesis.execution.verdicts import Jury, VerdictConfig


def wilson(good: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    z = NormalDist().inv_cdf(0.975)
    middle, width = good + z * z / 2, z * (good * (total - good) / max(1, total) + z * z / 4) ** 0.5
    return (middle - width) / (total + z * z), (middle + width) / (total + z * z)


def own_tests(solutions: Sequence[str], name: str, jury: Jury, most: int = 12) -> str:
    """Assertions on whose values more than half of the solutions agree; "" where they agree on nothing."""
    inputs = made_inputs(Snippet(name, _last(solutions[0], name), "", ()))
    said = [values(source, name, inputs, jury.run) for source in solutions]
    taken = [given for given, *each in zip(inputs, *said, strict=True) if any(value is not None for value in each)]
    inputs = taken + varied(taken, 60)
    said = [values(source, name, inputs, jury.run) for source in solutions]
    found: dict[str, str] = {}
    for at, given in enumerate(inputs):
        (value, votes), *_ = Counter(each[at] for each in said).most_common(1)
        if value is not None and 2 * votes > len(solutions):
            found.setdefault(value, ObservedCall(name, repr(given), value).assertion())
    return "\n".join(list(found.values())[:most]) + "\n" if len(found) > 1 else ""


def _last(source: str, name: str) -> str:
    """The definition of a function alone, for its signature."""
    return next(ast.unparse(node) for node in ast.parse(source).body if getattr(node, "name", "") == name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbpp", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--solutions", type=int, default=4)
    parser.add_argument("--right", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    rng = random.Random(flags.seed)
    rows = [json.loads(line) for line in flags.mbpp.read_text().splitlines()]
    rng.shuffle(rows)
    kept = true = alone = alone_true = tried = 0
    reasons: Counter[str] = Counter()
    with Jury(VerdictConfig(agreeing=2, cpu_seconds=1)) as jury:
        for row in rows:
            if tried == flags.problems:
                break
            source, tests = row["code"].replace("\r\n", "\n"), "\n".join([row["test_setup_code"], *row["test_list"]])
            try:
                names = SolutionWithTests(source, tests).functions()
                wrong = mutants.small(source, 40)
            except Unfit:
                continue
            if len(names) != 1 or not wrong or not jury.passes(SolutionWithTests(source, tests)):
                continue
            tried += 1
            drawn = [source if rng.random() < flags.right else rng.choice(wrong) for _ in range(flags.solutions)]
            by_all, by_one = own_tests(drawn, names[0], jury), own_tests(drawn[:1], names[0], jury)
            alone += bool(by_one)
            alone_true += bool(by_one) and jury.passes(SolutionWithTests(drawn[0], tests))
            if not by_all:
                reasons["no tests are agreed on"] += 1
                continue
            found = jury.verdict(drawn, by_all)
            reasons[found.reason or "kept"] += 1
            if not found.reason:
                kept += 1
                true += jury.passes(SolutionWithTests(drawn[found.solution], tests))
            if tried % 20 == 0:
                print(f"{tried} problems, {kept} kept, {true} true", flush=True)
    print(f"{tried} problems, {flags.solutions} answers each, {flags.right:.0%} of them the reference")
    for name, good, total in (("kept", true, kept), ("by the first answer's own tests", alone_true, alone)):
        low, high = wilson(good, total)
        print(
            f"{name}: {total}, of which MBPP's tests pass {good} = {good / max(1, total):.1%} ({low:.1%} to {high:.1%})"
        )
    for reason, count in reasons.most_common():
        print(f"  {count:5}  {reason}")


if __name__ == "__main__":
    main()
