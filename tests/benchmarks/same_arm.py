"""The ablation court tried on nothing: the same arm twice, many times over, each time with other seeds.

Run: python -m tests.benchmarks.same_arm --archives=runs/releases --output=runs/same_arm [--tests=20] [--gin.…]

The two arms of a test differ in the seeds of initialisation and order alone, so a court that holds what it says decides
one test of twenty at most. Prints each test's verdict and how many were decided. Killed, it goes on where it was.
"""

import argparse
from pathlib import Path

from opencoder_jax.ablations import ablate
from opencoder_jax.files import read_json, write_whole

SEEDS = 100  # between the first seeds of two arms: more than a test ever takes

RECIPE = """
AblationConfig.question = "Does the court decide what makes no difference?"
AblationConfig.limits = "Seeds of initialisation and order differ, nothing else."
AblationConfig.most_seeds = 3
"""


def recipe(tests: int) -> str:
    """An ablation whose claims are the tests."""
    names = [(f"{test}", f"{test} again") for test in range(tests)]
    arms = {name: (f"first_seed={SEEDS * number}",) for number, name in enumerate(sum(names, ()))}
    claims = {f"test {one}": ("bits_per_byte", one, other, "less", 0.01) for one, other in names}
    return f"{RECIPE}AblationConfig.arms = {arms!r}\nAblationConfig.claims = {claims!r}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archives", required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tests", type=int, default=20)
    flags, more = parser.parse_known_args()
    flags.output.mkdir(parents=True, exist_ok=True)
    file = flags.output / "same_arm.gin"
    write_whole(file, recipe(flags.tests))
    ablate.main([str(file), f"--archives={flags.archives}", f"--output={flags.output}", *more])
    outcomes = [each["outcome"] for each in read_json(flags.output / ablate.RESULTS)["same_arm"]]
    print(f"{outcomes.count('undecided')} of {len(outcomes)} are undecided")


if __name__ == "__main__":
    main()
