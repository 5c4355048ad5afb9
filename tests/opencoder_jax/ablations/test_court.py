"""Arms share what they have in common, recipes that make no sense are refused, verdicts follow from the files."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from opencoder_jax.ablations import ablate, judge
from opencoder_jax.ablations.ablate import Case, case_of, merged, shipped
from opencoder_jax.ablations.arms import Court, Made
from opencoder_jax.ablations.bits import chosen, text_key
from opencoder_jax.ablations.config import AblationConfig, arm_of
from opencoder_jax.ablations.releases import package_of, release_of, spread, stars
from opencoder_jax.ablations.rows import ROWS, Text, texts
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.experiments.hold_out import HoldOutConfig
from opencoder_jax.beam_pipelines.synthesis.grammar import grammar
from opencoder_jax.beam_pipelines.synthesis.grammar.grammar import GrammarConfig
from opencoder_jax.chain import Step, fingerprint
from opencoder_jax.recipe import UserError

ARMS = {"plain": (), "half": ("shuffle_lines --gin.ShuffleLinesConfig.share=0.5", "train")}
CORPUS = Step("collect", "beam_pipelines", "collect", (), "runs/data/corpus")


def court(overrides=(), **fields) -> Court:
    config = AblationConfig(**{"arms": ARMS, "stages": ("exact_duplicates", "train"), **fields})
    return Court(config, "runs", CORPUS, overrides)


# --------------------------------------------------------------------------------------------------------------- arms


def test_a_recipe_that_reads_alike_is_made_once() -> None:
    """Corpus, tokenizer, held-out texts and equal stages are shared; seeds share all data."""
    made = {name: court().arm(name, range(2)) for name in ARMS}
    shared = set(made["plain"].steps) & set(made["half"].steps)
    assert [step.verb for step in made["plain"].steps if step in shared] == [
        *("collect", "hold_out", "hold_out", "train_tokenizer", "records")
    ]
    verbs = [step.verb for step in merged(made)]
    assert verbs.count("train") == verbs.count("bits") == 4
    assert verbs.count("shuffle_lines") == verbs.count("exact_duplicates") == 1
    assert len({step.output for step in merged(made)}) == len(merged(made))


def test_an_override_goes_only_to_what_reads_it() -> None:
    arms = {"a": (), "b": ("--gin.OptimizerConfig.peak_learning_rate=1e-3",)}
    made = {name: court(arms=arms).arm(name, [0]) for name in arms}
    assert [step.verb for step in made["b"].steps if step not in made["a"].steps] == ["train", "bits"]


def test_another_order_of_records_is_another_arm() -> None:
    arms = {"a": (), "b": ("--gin.TokenRecordsConfig.seed=1",)}
    made = {name: court(arms=arms).arm(name, [0]) for name in arms}
    assert [step.verb for step in made["b"].steps if step not in made["a"].steps] == ["records", "train", "bits"]


def test_pairs_have_one_initialisation_and_one_order_and_the_same_arm_twice_has_others() -> None:
    arms = {"a": (), "again": ("first_seed=1000",)}
    made = {name: court(arms=arms).arm(name, [0, 1]) for name in arms}
    seeds = {
        name: [each for step in found.steps if step.verb == "train" for each in step.settings if ".seed=" in each]
        for name, found in made.items()
    }
    assert seeds["a"] == [f"--gin.{config}.seed={seed}" for seed in (0, 1) for config in ("TrainConfig", "DataConfig")]
    assert [each.rsplit("=", 1)[1] for each in seeds["again"]] == ["1000", "1000", "1001", "1001"]


def test_a_second_source_and_a_second_training() -> None:
    """`NAME: VERB` makes a source of its own; a training starts from the one before; only the last one is watched."""
    words = (
        "exact_duplicates",
        "algorithmic: select",
        "train --gin.OptimizerConfig.schedule=stable",
        "train --gin.DataConfig.mixture={'code':0.8,'algorithmic':0.2}",
    )
    steps = court(arms={"with": words}).arm("with", [0]).steps
    first, second = [step for step in steps if step.verb == "train"]
    assert dict(second.places)["init_from"] == first.output
    mixture = next(each for each in second.settings if "mixture" in each)
    assert {each.output.rsplit("/", 1)[-1] for each in steps if each.verb == "records"} >= set(
        json.loads(mixture.partition("=")[2].replace("'", '"'))
    )
    assert any("held_out" in each for each in second.settings)
    assert not any("held_out" in each for each in first.settings)


def test_a_base_gives_weights_and_tokenizer() -> None:
    """The first training of every arm starts from it, the second from the first; no tokenizer is trained."""
    steps = court(arms={"two": ("train", "train --gin.TrainConfig.steps=5")}, base="smol/").arm("two", [0]).steps
    first, second = [step for step in steps if step.verb == "train"]
    assert dict(first.places)["init_from"] == "smol"
    assert dict(second.places)["init_from"] == first.output
    assert "train_tokenizer" not in [step.verb for step in steps]
    (tokenizer,) = [step for step in steps if step.verb == "released_tokenizer"]
    assert dict(tokenizer.places) == {"released": "smol"}
    assert all(tokenizer.output in step.inputs for step in steps if step.verb in ("records", "count_tokens"))


def test_another_base_is_another_run(tmp_path: Path) -> None:
    """A directory that no step made is known by what is in it, wherever it lies."""
    made = []
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "weights").write_text(content)
        made.append(fingerprint(tmp_path / name))
    assert made[0] == made[1] != made[2]


def test_only_what_is_trained_on_becomes_records() -> None:
    words = ("questions: grammar", "train --gin.DataConfig.mixture={'questions':1.0}")
    records = [step.output for step in court(arms={"q": words}).arm("q", [0]).steps if step.verb == "records"]
    assert [place.split("/")[-1].split("-")[0] for place in records] == ["heldout", "questions"]


def test_problems_are_asked_of_every_model() -> None:
    made = court(problems="held_out --gin.HeldOutConfig.problems=7").arm("plain", range(2))
    problems = [step for step in made.steps if step.verb == "held_out"]
    asked = [step for step in made.steps if step.verb == "eval"]
    assert len(problems) == 1
    assert "--gin.HeldOutConfig.problems=7" in problems[0].settings
    assert [step.output for step in asked] == list(made.answers.values())
    assert [dict(step.places)["checkpoint"] for step in asked] == list(made.runs.values())
    assert {dict(step.places)["benchmark_file"] for step in asked} == {f"{problems[0].output}/problems.jsonl"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "exact_duplicates"), "comes before"),
        (("no_such_stage", "train"), "no stage of the data pipelines"),
        (("train --gin.DataConfig.mixture={'web':1.0}",), "no source web"),
    ],
)
def test_arms_that_make_no_sense_are_told(words, message) -> None:
    with pytest.raises(UserError, match=message):
        court(arms={"odd": words}).arm("odd", [0])


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (("bits_per_byte", "plain", "other", "less", 0.1), "no arm is called 'other'"),
        (("bits", "plain", "half", "less", 0.1), "one of tokens"),
        (("tokens", "plain", "half", "fewer", 0.1), "less, more, none"),
        (("tokens", "plain", "half", "less", 0.0), "above 0"),
        (("pass_at_1", "plain", "half", "more", 0.1), "needs problems"),
    ],
)
def test_claims_that_make_no_sense_are_told(claim, message) -> None:
    with pytest.raises(ValueError, match=message):
        AblationConfig(arms=ARMS, claims={"It is so": claim})


def test_what_is_claimed_of_models_needs_arms_that_train() -> None:
    with pytest.raises(ValueError, match="end their stages with 'train'"):
        AblationConfig(
            arms={"a": ("exact_duplicates",), "b": ()}, claims={"": ("bits_per_byte", "a", "b", "less", 1.0)}
        )


@pytest.mark.parametrize("name", shipped())
def test_ours_can_be_planned(name) -> None:
    """Every stage, flag, source and arm that our recipes name exists."""
    case = case_of(name, [])
    made = {arm: Court(case.config, "runs", CORPUS, []).arm(arm, [0]) for arm in case.config.arms}
    assert case.config.question
    assert case.config.limits
    assert all(arm_of(case.config, arm).words for arm in made)


def test_programs_of_the_grammar_are_a_project_each(tmp_path) -> None:
    """They are drawn one by one, though they name one repository: scores of them say something of others."""
    place = str(tmp_path / "programs")
    grammar.run(output=place, config=GrammarConfig(form="programs", items=5, shards=1), options=BeamOptions())
    assert len({each.project for each in texts([place], HoldOutConfig().version)}) == 5


# ----------------------------------------------------------------------------------------------------------- verdicts


def written(root: Path, name: str, seeds: int, shift: float, seed: int = 0, projects: int = 12) -> Made:
    """An arm's files as its steps would leave them: bits that are `shift` a byte above those of other arms."""
    noise = np.random.default_rng(7)
    made = Made(counts=str(root / name / "counts"))
    by_project = noise.normal(2, 0.3, projects)
    own = np.random.default_rng(seed)
    for number in range(seeds):
        of_seed = noise.normal(0, 0.05)
        rows = [
            {
                "project": f"p{index}",
                "bytes": 1000,
                "documents": 1,
                "bits": 1000 * (base + of_seed + shift + own.normal(0, 0.01)),
            }
            for index, base in enumerate(by_project)
        ]
        made.bits[number] = str(root / name / f"bits{number}")
        write(Path(made.bits[number]), rows)
    write(
        Path(made.counts),
        [{"project": f"p{index}", "tokens": 100 + 10 * index, "copies": 20} for index in range(projects)],
    )
    return made


def write(place: Path, rows: list[dict]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))


def claims(expected: str, smallest: float = 0.01) -> AblationConfig:
    return AblationConfig(arms={"a": (), "b": ()}, claims={"so": ("bits_per_byte", "a", "b", expected, smallest)})


@pytest.mark.parametrize(("shift", "outcome"), [(-0.05, "agrees"), (0.05, "disagrees"), (0.0, "undecided")])
def test_a_known_shift_is_found_with_its_sign(tmp_path, shift, outcome) -> None:
    made = {"a": written(tmp_path, "a", 3, shift, 1), "b": written(tmp_path, "b", 3, 0.0, 2)}
    (finding,) = judge.judge(claims("less"), made)
    assert finding.outcome == outcome
    assert finding.effect.estimate == pytest.approx(shift, abs=0.01)
    assert finding.sentence.startswith(outcome)
    assert (finding.seeds, finding.projects) == (3, 12)


def test_the_same_arm_twice_is_undecided_in_19_of_20(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("opencoder_jax.statistics.claims._RESAMPLES", 500)
    outcomes = []
    for number in range(20):
        made = {
            name: written(tmp_path / str(number), name, 3, 0.0, 2 * number + 100 * (name == "b")) for name in ("a", "b")
        }
        outcomes.append(judge.judge(claims("less", 0.001), made)[0].outcome)
    assert outcomes.count("undecided") >= 19


def test_counts_need_no_seeds(tmp_path) -> None:
    config = AblationConfig(
        arms={"a": (), "b": ()},
        claims={"fewer": ("tokens", "a", "b", "less", 0.05), "copies": ("copies", "a", "", "more", 0.05)},
    )
    made = {name: written(tmp_path, name, 0, 0.0) for name in ("a", "b")}
    write(
        Path(made["a"].counts),
        [{"project": f"p{index}", "tokens": 50 + 5 * index, "copies": 20 + index % 3} for index in range(12)],
    )
    fewer, copies = judge.judge(config, made)
    assert fewer.effect.estimate == pytest.approx(-0.5)
    assert fewer.outcome == copies.outcome == "agrees"
    assert fewer.needed is None
    assert judge.seeds_needed(config, [fewer, copies]) == config.seeds


def test_the_pilot_asks_for_more_where_an_effect_that_counts_would_be_missed(tmp_path) -> None:
    made = {"a": written(tmp_path, "a", 3, 0.0, 1), "b": written(tmp_path, "b", 3, 0.0, 2)}
    few, many = (judge.judge(claims("less", smallest), made) for smallest in (0.5, 0.0005))
    assert judge.seeds_needed(claims("less"), few) == 3
    assert judge.seeds_needed(claims("less"), many) == AblationConfig().most_seeds


def test_problems_that_are_solved_are_compared_problem_by_problem(tmp_path) -> None:
    """Of 40 problems one arm solves 30, the other 10 of these: half of all, whatever a problem's weight."""
    config = AblationConfig(arms=ARMS, problems="held_out", claims={"so": ("pass_at_1", "plain", "half", "more", 0.05)})
    made = {}
    for name, solves in (("plain", 30), ("half", 10)):
        made[name] = Made()
        for seed in range(3):
            place = tmp_path / f"{name}{seed}"
            outcomes = ["passed" if number < solves + seed else "wrong_answer" for number in range(40)]
            rows = [{"task_id": f"t{number:02}", "outcome": outcome} for number, outcome in enumerate(outcomes)]
            place.mkdir()
            (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            made[name].answers[seed] = str(place)
    (finding,) = judge.judge(config, made)
    assert finding.values == (pytest.approx(31 / 40), pytest.approx(11 / 40))
    assert finding.effect.estimate == pytest.approx(0.5)
    assert (finding.outcome, finding.seeds, finding.projects) == ("agrees", 3, 40)
    assert finding.sentence.startswith("agrees; +50.0 % of the problems")


def test_one_project_decides_nothing(tmp_path) -> None:
    """Whatever it shows: an interval over clusters has no width, and seeds speak of that project alone."""
    config = AblationConfig(
        arms={"a": (), "b": ()},
        claims={
            "fewer": ("tokens", "a", "b", "less", 0.05),
            "copies": ("copies", "a", "", "more", 0.05),
            "as many": ("tokens", "b", "b", "none", 0.05),
            "better": ("bits_per_byte", "a", "b", "less", 0.01),
        },
    )
    made = {
        "a": written(tmp_path, "a", 3, -0.5, 1, projects=1),
        "b": written(tmp_path, "b", 3, 0.0, 2, projects=1),
    }
    write(Path(made["a"].counts), [{"project": "p0", "tokens": 50, "copies": 20}])
    findings = judge.judge(config, made)
    assert [each.outcome for each in findings] == ["undecided"] * 4
    assert all("one project says nothing of others" in each.sentence for each in findings)
    assert findings[3].effect.estimate == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize(("projects", "message"), [(1, "1 project is held out"), (2, "it trains")])
def test_one_project_held_out_is_told_before_any_training(projects, message, tmp_path, monkeypatch) -> None:
    case = Case(
        "so", "so.gin", AblationConfig(arms=ARMS, claims={"so": ("bits_per_byte", "plain", "half", "less", 0.1)})
    )
    ran = []

    def run_chain(steps):
        for step in steps:
            ran.append(step.verb)
            if step.verb == "train":
                raise UserError("it trains")
            yield step, None

    monkeypatch.setattr(ablate, "run_chain", run_chain)
    monkeypatch.setattr(
        ablate, "texts", lambda *_: (Text(str(number), f"p{number % projects}", "", False) for number in range(9))
    )
    with pytest.raises(UserError, match=message):
        ablate.attempt(Court(case.config, "runs", CORPUS, []), case, tmp_path)
    assert ("train" in ran) == (projects == 2)


# ----------------------------------------------------------------------------------------------- texts, names, mistakes


def test_what_any_arm_may_train_on_is_not_scored() -> None:
    texts = [Text(f"{number:x}", f"p{number % 3}", f"text {number}\n" * 4, False) for number in range(30)]
    seen = frozenset(text_key(each.text.replace("\n", "\r\n")) for each in texts[::2])
    kept = chosen(texts, seen, 70)
    assert kept
    assert not {each.identifier for each in kept} & {each.identifier for each in texts[::2]}
    assert max(sum(len(each.text) for each in kept if each.project == name) for name in ("p0", "p1", "p2")) <= 70
    assert chosen(list(reversed(texts)), seen, 70) == kept


def test_releases_are_the_newest_of_each_series() -> None:
    assert spread(["2.1.3", "2.1.2", "2.0.0", "1.9", "1.8.1"], 3) == ["2.1.3", "2.0.0", "1.9"]
    assert package_of("More_Itertools-10.1-py3-none-any.whl") == "more_itertools"


def test_stars_are_of_the_newest_release_that_can_be_read(tmp_path: Path) -> None:
    """1.10 is newer than 1.9; a package that a wheel carries along says nothing of the wheel's own needs."""
    needs = {"1.9.0": "zz_old", "1.10.0": "zz_new", "1.11.0": None}
    archives = [tmp_path / f"zz_tool-{version}-py3-none-any.whl" for version in needs]
    for archive, (version, need) in zip(archives, needs.items(), strict=True):
        if need is None:
            archive.write_bytes(b"PK cut off")
            continue
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("zz_tool/_vendor/b-1.dist-info/METADATA", "Requires-Dist: zz_carried\n")
            opened.writestr(f"zz_tool-{version}.dist-info/METADATA", f"Requires-Dist: {need} (>=1)\n")
    others = [tmp_path / f"{name}-1-py3-none-any.whl" for name in ("zz_old", "zz_new", "zz_carried")]
    for other in others:
        with zipfile.ZipFile(other, "w") as opened:
            opened.writestr("no_metadata", "")
    table = dict(line.split(",") for line in stars([*archives, *others]).splitlines())
    assert [table[each.name.removesuffix(".whl")] for each in others] == ["0", "1", "0"]
    releases = ["1.0.dev2", "1.0", "1.0.post1", "1.2", "1.10rc1", "1.10", "2024.1", "1!0.1"]
    assert sorted(releases, key=lambda each: release_of(Path(f"a-{each}-py3-none-any.whl"))) == releases


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such"], "no ablation is called no_such"),
        (["gin_configs/pretrain/cookbook.gin"], "nothing to try"),
        ([shipped()[0]], "needs a corpus"),
        ([shipped()[0], "--archives=a", "--folders=b"], "begins with one source"),
        ([shipped()[0], "--archives=a", "--odd"], "unknown argument --odd"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path) -> None:
    with pytest.raises(UserError, match=message):
        ablate.main([*arguments, f"--output={tmp_path}"])
