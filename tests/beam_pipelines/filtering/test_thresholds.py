"""Both profiles: every rule drops beyond its bound, through the filter, and retuning measures nothing again."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.core.maps import Result
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.filtering import filter as filtering
from opencoder_jax.beam_pipelines.filtering.filter import Filter, FilterConfig, FilterRules
from opencoder_jax.beam_pipelines.filtering.rules import (
    LANGUAGE_TABLES,
    PROFILES,
    Rule,
    load_profile,
    required_definitions,
)
from opencoder_jax.beam_pipelines.signals import measure as measuring
from opencoder_jax.beam_pipelines.signals.measure import SCHEMA, SIGNALS, SignalsConfig
from opencoder_jax.code_version import code_version
from opencoder_jax.recipe import UserError

MakeBatch = Callable[..., pa.RecordBatch]
MakeStage = Callable[[Path, Sequence[Sequence[pa.RecordBatch]]], str]

TABLES = {profile: load_profile(profile, set(SIGNALS)) for profile in ("fixed", "reference")}
KINDS = {"others": ("code", "Haskell", ""), "data": ("data", "YAML", ""), "text": ("text", "Text", "en")}
KINDS |= {"text_zh": ("text", "Text", "zh")}
KINDS |= {table: ("code", language, "") for language, table in LANGUAGE_TABLES.items()}
CASES = [
    pytest.param(profile, table, rule, id=f"{profile}-{table}-{rule.signal}")
    for profile, tables in TABLES.items()
    for table, rules in tables.items()
    for rule in rules
]


def judge(batch: MakeBatch, profile: str, table: str, values: dict[str, list[float | None]]) -> Result:
    """What the filter does to documents of a table that have these signals and no others."""
    kind, language, natural = KINDS[table]
    rows = len(next(iter(values.values())))
    fields = {"kind": kind, "language": language, "text": "x"}
    documents = batch(*(fields | {"path": str(row)} for row in range(rows)))
    given: dict[str, list[float | None] | list[str] | pa.Array] = {
        "id": documents.column("id"),
        "natural_language": [natural] * rows,
        "errors": [""] * rows,
    }
    columns = [pa.array((given | values).get(field.name, [None] * rows), field.type) for field in SCHEMA]
    signals = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    return Filter(FilterRules(FilterConfig(profile), TABLES[profile]))(documents, signals)


@pytest.mark.parametrize(("profile", "table", "rule"), CASES)
def test_every_rule_drops_beyond_its_bound_only(batch: MakeBatch, profile: str, table: str, rule: Rule) -> None:
    good, bad = [], []
    for bound, step in ((rule.below, -1e-6), (rule.above, 1e-6)):
        if bound is not None:
            good.append(bound)
            bad.append(bound + step * max(1.0, bound))
    if rule.equal is not None:
        good.append(rule.equal + (1 if rule.equal == 0 else -1))
        bad.append(rule.equal)
    repeated = bad * (40 if rule.spare else 1)
    result = judge(batch, profile, table, {rule.signal: [*good, None, *repeated]})
    dropped = [drop.row for drop in result.drops]
    assert all(row > len(good) for row in dropped)
    assert {drop.reason for drop in result.drops} == {rule.signal}
    spared = len(repeated) - len(dropped)
    assert (0 < spared < len(repeated) / 2) if rule.spare else spared == 0


@pytest.mark.parametrize("profile", sorted(TABLES))
def test_every_language_has_a_document_of_its_own_table(batch: MakeBatch, profile: str) -> None:
    """Each table is reached by the kind and the language that it's for, not only by a look at the file."""
    for table in TABLES[profile]:
        assert table in KINDS
        reasons = {drop.reason for drop in judge(batch, profile, table, {"qsc_code_num_words": [1.0]}).drops}
        assert reasons == (set() if table.startswith("text") else {"qsc_code_num_words"})


def test_fixed_differs_from_the_published_thresholds_only_where_it_says_why() -> None:
    differing = {
        rule.signal
        for table, rules in TABLES["fixed"].items()
        for rule in rules
        if rule not in TABLES["reference"][table]
    }
    assert TABLES["fixed"].keys() == TABLES["reference"].keys()
    assert differing == {"qsc_code_frac_lines_prompt_comments"}
    left_out = {
        rule.signal
        for table, rules in TABLES["reference"].items()
        for rule in rules
        if rule.signal not in {own.signal for own in TABLES["fixed"][table]}
    }
    assert left_out == {"qsc_codecsharp_cate_var_zero", "qsc_codego_cate_var_zero"}


def test_one_todo_drops_no_file_of_ours_but_most_in_the_release() -> None:
    """Files of fewer than 10 lines fall anyway; in the release one TODO is enough below 100 lines."""
    todo = np.array([1 / lines for lines in range(10, 200)])
    rules = {
        profile: next(rule for rule in tables["others"] if rule.signal == "qsc_code_frac_lines_prompt_comments")
        for profile, tables in TABLES.items()
    }
    assert rules["fixed"].fires(todo).sum() == 0
    assert rules["reference"].fires(todo).sum() == 90


def test_chinese_text_is_judged_by_its_own_table(batch: MakeBatch) -> None:
    values: dict[str, list[float | None]] = {"qsc_doc_mean_word_length": [1.8]}
    assert not judge(batch, "fixed", "text_zh", values).drops
    assert judge(batch, "fixed", "text", values).drops


def text_of(line: str, count: int = 20) -> str:
    return "".join(f"{line} {chr(97 + number)}{number}\n" for number in range(count))


@pytest.fixture
def stages(tmp_path: Path, batch: MakeBatch, stage_directory: MakeStage) -> tuple[str, str]:
    """Documents and the place of their signals."""
    documents = [{"text": text_of(f"value_{number} = compute"), "path": f"{number}.py"} for number in range(6)]
    given = stage_directory(tmp_path / "documents", [[batch(*documents[:3])], [batch(*documents[3:])]])
    return given, str(tmp_path / "signals")


def test_a_changed_threshold_filters_again_and_measures_nothing_again(
    tmp_path: Path, stages: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    documents, signals = stages
    profile = tmp_path / "mine"
    shutil.copytree(PROFILES / "reference", profile)
    (profile / "profile.toml").write_text('definitions = "fixed"\n')
    config, options = FilterConfig(str(profile)), BeamOptions()
    output = str(tmp_path / "filtered")
    measuring.run(documents, signals, SignalsConfig(), options)
    first = filtering.run(documents, signals, output, config, options)
    capsys.readouterr()

    again = filtering.run(documents, signals, output, config, options)
    assert "filter: up to date" in capsys.readouterr().err
    assert again.files == first.files

    table = profile / "others.toml"
    table.write_text(table.read_text().replace("below = 30", "below = 1000"))
    measuring.run(documents, signals, SignalsConfig(), options)
    assert "signals: up to date" in capsys.readouterr().err
    changed = filtering.run(documents, signals, output, config, options)
    assert "filter: up to date" not in capsys.readouterr().err
    assert changed.total("count", "hit qsc_code_num_words") == 6
    assert first.total("count", "hit qsc_code_num_words") == 0


def test_our_thresholds_are_no_part_of_the_signals_code() -> None:
    """Else retuning a profile that comes with the package would measure again."""
    code = code_version((measuring.__name__, "MeasureSignals"))
    assert any(module.endswith("languages.comments") for module in code)
    assert not any("filtering" in module for module in code)


def test_signals_by_other_definitions_are_refused(tmp_path: Path, stages: tuple[str, str]) -> None:
    documents, signals = stages
    manifest = measuring.run(documents, signals, SignalsConfig("reference"), BeamOptions())
    assert manifest.config["definitions"] == "reference"
    output = str(tmp_path / "filtered")
    with pytest.raises(UserError, match=r"profile fixed .*the fixed definitions.*the reference ones; run python -m"):
        filtering.run(documents, signals, output, FilterConfig(), BeamOptions())
    filtering.run(documents, signals, output, FilterConfig("reference"), BeamOptions())


def test_spared_documents_are_the_same_whatever_the_thresholds(batch: MakeBatch) -> None:
    values: dict[str, list[float | None]] = {"qsc_codepython_score_lines_no_logic": [0.9] * 300}
    alone = {drop.row for drop in judge(batch, "fixed", "python", values).drops}
    with_others = judge(batch, "reference", "python", values | {"qsc_code_num_lines": [50.0] * 300})
    assert alone == {drop.row for drop in with_others.drops}
    assert 210 < len(alone) < 270


def test_unknown_definitions_are_refused() -> None:
    with pytest.raises(ValueError, match="definitions='mine': must be one of fixed, reference"):
        SignalsConfig("mine")


def head(folder: Path, **files: str) -> str:
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.toml").write_text(content)
    return str(folder)


def test_a_profile_derives_from_another(tmp_path: Path) -> None:
    own = head(
        tmp_path / "mine",
        profile='extends = "reference"\n',
        others='[[rules]]\nsignal = "qsc_code_num_lines"\nbelow = 3\n',
        python='extends = "reference/python"\nwithout = ["qsc_code_num_lines"]\n',
        java='extends = ""\n[[rules]]\nsignal = "qsc_code_num_chars"\nbelow = 1\n',
    )
    tables = load_profile(own, set(SIGNALS))
    assert required_definitions(own) == "reference"
    assert tables.keys() == TABLES["reference"].keys()
    # Tables of the parent that extend "others" see the new one.
    for table in ("others", "go", "data"):
        assert Rule("qsc_code_num_lines", below=3) in tables[table]
    # A table adds to the parent's table of its name, unless it says that it begins anew.
    assert len(tables["others"]) == len(TABLES["reference"]["others"])
    assert tables["java"] == [Rule("qsc_code_num_chars", below=1)]
    assert {rule.signal for rule in TABLES["reference"]["python"]} - {rule.signal for rule in tables["python"]} == {
        "qsc_code_num_lines"
    }
    assert Rule("qsc_code_num_lines", below=10, above=100000) in TABLES["reference"]["python"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('extends = "nothing"', r"extends 'nothing', which is no profile; known profiles: fixed, reference"),
        ("extends = ", r"profile\.toml"),
        ('extends = "SELF"', "extends itself"),
    ],
)
def test_a_wrong_head_names_the_file(tmp_path: Path, content: str, message: str) -> None:
    own = head(tmp_path / "mine", profile=content.replace("SELF", str(tmp_path / "mine")))
    with pytest.raises(UserError, match=message):
        load_profile(own, set(SIGNALS))
