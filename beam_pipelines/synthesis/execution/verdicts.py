"""Whether a solution and its tests bear each other out: the verdict by which an item is kept or dropped.

Kept is what passes its tests twice and more, where strings hash otherwise too; whose tests no hollow function passes;
and whose tests notice most small changes of the solution. So no item is kept whose tests can't fail, look at nothing,
or pass by chance.
"""

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from opencoder_jax.beam_pipelines.synthesis.execution import mutants
from opencoder_jax.beam_pipelines.synthesis.execution.observing import ObservedCall, calls_of_tests, values, varied
from opencoder_jax.beam_pipelines.synthesis.execution.programs import SolutionWithTests, Unfit, parsed
from opencoder_jax.checks import at_least, between, check
from opencoder_jax.recipe import configurable
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits, Outcome, Program

_PRELOAD = ("typing", "math", "re", "collections", "itertools", "functools")
_SEEDS = 4  # of hashes: a set of three strings keeps its order under all of them once in 200 times
# What a result may depend on beside the arguments. Programs that name one of these run more often.
_CHANCE = {"random", "randint", "choice", "shuffle", "sample", "secrets", "uuid", "uuid4", "urandom", "default_rng"}
_CHANCE |= {"time", "perf_counter", "monotonic", "now", "today", "id", "hash", "set", "frozenset", "SystemRandom"}
_OWN_INPUTS, _MADE_INPUTS = 20, 60
_DOUBTED = 12  # runs of such a program; a coin falls on one side as often once in 4,000 times


@configurable
@dataclass(frozen=True)
class VerdictConfig:
    """When an item is kept.

    Attributes:
        agreeing: solutions that must pass the tests and agree on further inputs, by which weak tests are strengthened.
        killed: of the solution's small mutants, the share that its tests must notice.
        mutants: small ones that are tried, at most.
        cpu_seconds: of one run.
        without_walls: of the sandbox, that this machine may lack though nothing else stands where they should.
    """

    agreeing: int = 2
    killed: float = 0.8
    mutants: int = 12
    cpu_seconds: int = 4
    without_walls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self, agreeing=at_least(1), killed=between(0, 1), mutants=at_least(0), cpu_seconds=at_least(1))


class ItemVerdict(NamedTuple):
    """What was found.

    Attributes:
        reason: why it's dropped; "" where it's kept.
        detail: what shows that: an error's last lines, a mutant that nobody noticed.
        killed: small mutants that the tests noticed, of `mutants` that do anything else than the solution.
        added: assertions that notice what the tests alone didn't.
        solution: which of the solutions it's about.
        agreeing: how many solutions pass the tests and return the same on further inputs.
    """

    reason: str
    detail: str = ""
    killed: int = 0
    mutants: int = 0
    added: tuple[str, ...] = ()
    solution: int = 0
    agreeing: int = 1


class Jury:
    """Runs solutions with their tests, in sandboxes whose hashes differ. Use as a context manager."""

    def __init__(self, config: VerdictConfig) -> None:
        self._config = config
        seconds = config.cpu_seconds
        self._limits = Limits(cpu_seconds=seconds, idle_seconds=seconds + 1.0, file_bytes=1 << 16)
        self._sandboxes: list[Sandbox] = []

    def _sandbox(self, seed: int) -> Sandbox:
        """The sandbox of a hash seed; started when it's first needed."""
        while len(self._sandboxes) <= seed:
            self._sandboxes.append(
                Sandbox(
                    self._limits,
                    preload=_PRELOAD,
                    without=self._config.without_walls,
                    hash_seed=len(self._sandboxes),
                )
            )
        return self._sandboxes[seed]

    def run(self, program: Program, seed: int = 0) -> Outcome:
        """Runs a program where strings hash by this seed, of 0 to 3."""
        return self._sandbox(seed).run(*program)

    def passes(self, item: SolutionWithTests) -> bool:
        """Whether a solution passes its tests, in one run."""
        return not self._problem(item)[0]

    def verdict(self, solutions: Sequence[str], tests: str) -> ItemVerdict:
        """Whether an item is kept: by the first of the solutions that pass and agree, if these are enough."""
        reasons = [self._problem(SolutionWithTests(source, tests)) for source in solutions]
        passing = [number for number, (reason, _) in enumerate(reasons) if not reason]
        if not passing:
            return ItemVerdict(*reasons[0], agreeing=0)
        calls: list[ObservedCall] = []
        if len(passing) > 1:
            calls = calls_of_tests(SolutionWithTests(solutions[passing[0]], tests), self.run)
            passing = self._agreeing(solutions, passing, calls)
        first, agreeing = passing[0], len(passing)
        if agreeing < self._config.agreeing:
            return ItemVerdict("too few solutions agree", f"{agreeing} of {len(solutions)}", 0, 0, (), first, agreeing)
        item = SolutionWithTests(solutions[first], tests)
        if self._is_flaky(item):
            return ItemVerdict("flaky", "", 0, 0, (), first, agreeing)
        if hollow := self._passing_hollow(item):
            return ItemVerdict("tests can't fail", hollow[:300], 0, 0, (), first, agreeing)
        calls = calls or calls_of_tests(item, self.run)
        found = self._by_mutants(item, [solutions[number] for number in passing[1:]], calls)
        return found._replace(solution=first, agreeing=agreeing)

    def _agreeing(self, solutions: Sequence[str], passing: Sequence[int], calls: Sequence[ObservedCall]) -> list[int]:
        """Of the solutions that pass, the most that also return the same on further inputs, wherever both return."""
        name, inputs = _main_inputs(calls)
        if not inputs:
            return list(passing)
        said = {number: values(solutions[number], name, inputs, self.run) for number in passing}

        def with_it(number: int) -> list[int]:
            pairs = {other: zip(said[number], said[other], strict=True) for other in passing}
            return [other for other in passing if all(a == b or None in (a, b) for a, b in pairs[other])]

        return max(map(with_it, passing), key=len)

    def _problem(self, item: SolutionWithTests) -> tuple[str, str]:
        """Why a solution doesn't pass its tests, and what shows it; "" where it does."""
        try:
            outcome = self.run(item.program())
        except Unfit as reason:
            return str(reason), ""
        return ("", "") if outcome.status == "ok" else (_reason(outcome), outcome.stderr.strip()[-300:])

    def _is_flaky(self, item: SolutionWithTests) -> bool:
        doubted = (_names(item.solution) | _names(item.tests)) & _CHANCE
        seeds = [number % _SEEDS for number in range(1, _DOUBTED)] if doubted else [1]
        return any(self.run(item.program(), seed).status != "ok" for seed in seeds)

    def _passing_hollow(self, item: SolutionWithTests) -> str:
        """A hollow version of the solution that passes its tests, for each function that they call; else ""."""
        found = ""
        for name in item.functions():
            versions = mutants.hollow(item.solution, name)
            living = next((source for source in versions if self.passes(item._replace(solution=source))), "")
            if not living:  # the tests look at this function; another one may only prepare its arguments
                return ""
            found = living
        return found

    def _by_mutants(self, item: SolutionWithTests, others: Sequence[str], calls: Sequence[ObservedCall]) -> ItemVerdict:
        """Counts the mutants that the tests notice, and adds what all solutions say where they notice too few."""
        name, inputs = _main_inputs(calls)
        # If the tests let any constant pass, then what the first of them asks for.
        constants = [
            mutants.constant(item.solution, name, call.value) for call in calls if call.name == name and call.value
        ]
        small = mutants.small(item.solution, self._config.mutants)
        living = [source for source in (*constants[:1], *small) if self.passes(item._replace(solution=source))]
        constant = living[0] if living and living[0] in constants else ""
        total, killed, added = len(small), len(small) - len([source for source in living if source != constant]), []
        if living and inputs:
            right = values(item.solution, name, inputs, self.run)
            said = [values(source, name, inputs, self.run) for source in others]
            agreed = [value if all(other[at] == value for other in said) else None for at, value in enumerate(right)]
            for source in living:
                wrong = values(source, name, inputs, self.run)
                noticed = [at for at, value in enumerate(agreed) if value is not None and value != wrong[at]]
                if noticed:
                    added.append(ObservedCall(name, repr(inputs[noticed[0]]), agreed[noticed[0]]).assertion())
                    killed += source != constant
                elif source == constant:
                    return ItemVerdict("tests can't fail", source[:300], killed, total)
                elif all(here is None or here == there for here, there in zip(right, wrong, strict=True)):
                    total -= 1  # as far as anybody can see, it does the same
        if killed < self._config.killed * total:
            return ItemVerdict("weak tests", living[0][:300], killed, total)
        return ItemVerdict("", "", killed, total, tuple(dict.fromkeys(added)))

    def close(self) -> None:
        for sandbox in self._sandboxes:
            sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _main_inputs(calls: Sequence[ObservedCall]) -> tuple[str, list[tuple[Any, ...]]]:
    """The function that the tests call most often, and inputs for it: theirs, then others made from them."""
    if not calls:
        return "", []
    ((name, _),) = Counter(call.name for call in calls).most_common(1)
    own = [ast.literal_eval(call.arguments) for call in calls if call.name == name][:_OWN_INPUTS]
    return name, own + varied(own, _MADE_INPUTS)


def _reason(outcome: Outcome) -> str:
    match outcome.status:
        case "exception":
            return "fails its tests" if outcome.error == "AssertionError" else "raises an error"
        case "exited":
            return "ends before its tests do"
        case "unjudged":
            return "returns no plain value"
    return f"ended by {outcome.status}"


def _names(source: str) -> set[str]:
    """Every name, attribute and imported module in a program; "set" also for a display of one."""
    found: set[str] = set()
    for node in ast.walk(parsed(source, "solution")):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {part for alias in names for part in alias.name.split(".")}
                found |= set((getattr(node, "module", None) or "").split("."))
            case ast.Set() | ast.SetComp():
                found.add("set")
    return found
