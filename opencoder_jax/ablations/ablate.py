"""python -m opencoder_jax ablate: tries claims about a recipe by arms that differ in nothing else, and judges them.

An ablation is a gin file (gin_configs/ablations/ has ours). Run again, it redoes nothing; killed anywhere, it goes on
where it stopped, and the report is the same to the byte. Ablations in one output share what they have in common.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from opencoder_jax.ablations.arms import Court, Made
from opencoder_jax.ablations.config import AblationConfig
from opencoder_jax.ablations.estimate import TIMES, note_time, plan
from opencoder_jax.ablations.judge import Decision, judge, seeds_needed
from opencoder_jax.ablations.releases import STARS
from opencoder_jax.ablations.report import Tried, write_report
from opencoder_jax.ablations.rows import texts
from opencoder_jax.beam_pipelines import refinecode
from opencoder_jax.beam_pipelines.experiments.hold_out import HoldOutConfig
from opencoder_jax.chain import PIPELINES, Step, run_chain, stage, verbs_of
from opencoder_jax.files import write_json
from opencoder_jax.recipe import PACKAGE, UserError, bind, build, parse_flags, recipe_flags

RESULTS = "results.json"
SOURCES = {**refinecode.SOURCES, "pages": "read pages of crawls"}
SHIPPED = PACKAGE / "gin_configs" / "ablations"


@dataclass(frozen=True)
class Case:
    """An ablation that is asked for: its name, its gin file, and what the file says."""

    name: str
    file: str
    config: AblationConfig


def main(argv: list[str]) -> None:
    """Tries the claims and writes the report.

    Raises:
        UserError: an ablation, its corpus or a flag is wrong; what is finished stays.
    """
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax ablate",
        description=(__doc__ or "").split("\n\n", 1)[0],
        epilog="Example: python -m opencoder_jax releases --output=runs/releases\n"
        "python -m opencoder_jax ablate deduplication_level --archives=runs/releases --output=runs/ablations",
    )
    parser.add_argument(
        "ablations", nargs="+", metavar="NAME|FILE", help=f"a gin file, or one of ours: {', '.join(shipped())}; several"
    )
    for source in SOURCES:
        for name, meaning in verbs_of(PIPELINES)[source].inputs.items():
            parser.add_argument(f"--{name}", action="append", default=[], metavar="DIR", help=f"{meaning}; repeatable")
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"), metavar="DIR", help="of all that's made")
    parser.add_argument("--dry_run", action="store_true", help="prints steps, tokens and time, and does nothing")
    flags, rest = parse_flags(parser, argv)
    if rest:
        raise UserError(f"unknown argument {rest[0]}; see --help")
    overrides = [argument for argument in argv if argument.startswith("--gin.")]
    cases = [case_of(name, overrides) for name in flags.ablations]
    shared = [each for each in overrides if not each.startswith("--gin.AblationConfig.")]
    source, inputs = refinecode.chosen_source(vars(flags), SOURCES)
    if not inputs:
        raise UserError(
            "an ablation needs a corpus of several projects: --archives=DIR (python -m opencoder_jax releases makes"
            " one), --repositories=DIR or --folders=DIR; --crawl=DIR for pages"
        )
    logging.getLogger("absl").setLevel(logging.ERROR)
    command = ["python -m opencoder_jax ablate", *argv]
    tried = []
    for case in cases:
        court = Court(case.config, str(flags.output), corpus(str(flags.output), source, inputs, case, shared), shared)
        if flags.dry_run:
            print(plan(case.name, case.config, flags.output, [chain(court, case, n) for n in _counts(case.config)]))
            continue
        tried.append(Tried(case.name, case.file, case.config, *attempt(court, case, flags.output)))
    if tried:
        write_json(flags.output / RESULTS, results(tried))
        print(f"report: {write_report(flags.output, tried, [each for each in command if each != '--dry_run'])}")


def shipped() -> list[str]:
    """The names of our ablations."""
    return [file.stem for file in sorted(SHIPPED.glob("*.gin")) if "AblationConfig" in file.read_text(encoding="utf-8")]


def case_of(name: str, overrides: Sequence[str]) -> Case:
    """An ablation by its name or its gin file. Raises UserError where there's none, or it's no ablation."""
    known = {each: f"gin_configs/ablations/{each}.gin" for each in shipped()}
    if not name.endswith(".gin") and name not in known:
        raise UserError(f"no ablation is called {name}; there are {', '.join(known)}, or give a gin file")
    file = known.get(name, name)
    bind([file], [each.removeprefix("--gin.") for each in overrides])
    config = build(AblationConfig)
    if not config.arms or not config.claims:
        raise UserError(f"{file}: binds no AblationConfig.arms and claims, so there's nothing to try")
    return Case(Path(file).stem, file, config)


def corpus(root: str, source: str, inputs: Mapping[str, Sequence[str]], case: Case, overrides: Sequence[str]) -> Step:
    """The step that collects all documents; a table of stars beside archives is read with them."""
    beside = [Path(place, STARS) for place in inputs.get("archives", ()) if Path(place, STARS).exists()]
    stars = [f"--gin.ArchivesConfig.stars_table={beside[0]}"] if beside else []
    flags = [f"--gin_file={case.config.recipe}", *stars, *overrides]
    return stage(SOURCES[source], source, f"{root}/data/corpus", flags, **inputs)


def attempt(court: Court, case: Case, output: Path) -> tuple[dict[str, Made], list[Decision]]:
    """Runs a pilot, then as many seeds more as it asks for; what was made, and what it says."""
    done: dict[str, Made] = {}
    findings: list[Decision] = []
    wanted = case.config.seeds
    for _ in range(2):
        done = arms(court, case, wanted)
        for step, seconds in run_chain(merged(done)):
            if step.output == court.scored:
                need_projects(court, case)
            if seconds is not None:
                note_time(output / TIMES, step.verb, seconds)
        findings = judge(case.config, done)
        if (more := seeds_needed(case.config, findings)) <= wanted:
            break
        print(f"{case.name}: the pilot asks for {more} seeds", file=sys.stderr, flush=True)
        wanted = more
    for each in findings:
        print(f"{case.name}: {each.claim.says}: {each.sentence}")
    return done, findings


def need_projects(court: Court, case: Case) -> None:
    """Before anything is trained: raises UserError where models would be scored on the texts of a single project."""
    if any(claim.metric == "bits_per_byte" for claim in case.config.claimed):
        bind(*recipe_flags(court.flags))
        names: set[str] = set()
        for each in texts([court.scored], build(HoldOutConfig).version):
            names.add(each.project)
            if len(names) > 1:
                return
        raise UserError(
            f"{case.file}: {len(names)} project is held out in {court.scored}, and its scores would say nothing of"
            " others: give more projects, or raise --gin.HoldOutConfig.share"
        )


def arms(court: Court, case: Case, seeds: int) -> dict[str, Made]:
    """What every arm takes for so many seeds."""
    return {name: court.arm(name, range(seeds)) for name in case.config.arms}


def merged(made: Mapping[str, Made]) -> list[Step]:
    """The steps of all arms, each once, data before training."""
    return list(dict.fromkeys(step for each in made.values() for step in each.steps))


def chain(court: Court, case: Case, seeds: int) -> tuple[int, list[Step], int]:
    """For a dry run: the seeds, the steps, and how many they would be if arms shared nothing."""
    made = arms(court, case, seeds)
    return seeds, merged(made), sum(len(each.steps) for each in made.values())


def _counts(config: AblationConfig) -> list[int]:
    return sorted({config.seeds, config.most_seeds})


def results(tried: Sequence[Tried]) -> dict[str, object]:
    """What was found, for programs."""
    return {
        each.name: [
            json.loads(
                json.dumps(asdict(finding) | {"claim": finding.claim._asdict(), "effect": finding.effect._asdict()})
            )
            for finding in each.findings
        ]
        for each in tried
    }
