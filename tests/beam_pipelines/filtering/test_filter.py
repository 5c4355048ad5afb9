"""Thresholds: the published values, each rule on both sides of its bound, and the filter over a batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.documents import SCHEMA
from opencoder_jax.beam_pipelines.core.maps import Result
from opencoder_jax.beam_pipelines.filtering.filter import Filter, FilterConfig, FilterRules
from opencoder_jax.beam_pipelines.filtering.rules import LANGUAGE_TABLES, Rule, load_profile, table_of
from opencoder_jax.beam_pipelines.signals.measure import SCHEMA as SIGNAL_SCHEMA
from opencoder_jax.beam_pipelines.signals.measure import SIGNALS, MeasureSignals, SignalsConfig
from opencoder_jax.recipe import UserError

TABLES = load_profile("reference", set(SIGNALS))
PLAN = FilterRules(FilterConfig(), TABLES)


def rule(table: str, signal: str) -> Rule:
    return next(rule for rule in TABLES[table] if rule.signal == signal)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_rule_fires_beyond_its_bound_and_not_at_it(table: str) -> None:
    for rule in TABLES[table]:
        for bound, beyond in ((rule.below, -1e-6), (rule.above, 1e-6)):
            if bound is not None:
                assert rule.fires(np.array([bound, bound + beyond, np.nan])).tolist() == [False, True, False]
        if rule.equal is not None:
            assert rule.fires(np.array([rule.equal, 1 - rule.equal, np.nan])).tolist() == [True, False, False]


def test_the_published_values_of_the_tables_that_differ() -> None:
    """opc_data_filtering, pipeline/code_filter_config.py; the paper's tables 11 and 12 agree with the first three."""
    assert rule("others", "qsc_code_frac_lines_long_string").above == 0.2
    assert rule("others", "qsc_code_frac_lines_prompt_comments").above == 0.01
    assert rule("python", "qsc_codepython_frac_lines_import").above == 0.3
    assert rule("python", "qsc_codepython_score_lines_no_logic") == Rule(
        "qsc_codepython_score_lines_no_logic", above=0.5, spare=0.2
    )
    assert rule("data", "qsc_code_num_chars") == Rule("qsc_code_num_chars", below=50, above=5000)
    assert rule("data", "qsc_code_frac_words_unique").below == 0.4
    assert rule("sql", "qsc_code_frac_chars_digital").above == 0.3
    assert rule("html", "qsc_code_frac_chars_dupe_5grams").above == 0.6
    assert rule("html", "qsc_code_frac_chars_dupe_10grams").above == 0.6
    assert rule("text", "qsc_doc_num_lines").below == 10
    counts = {name: len(rules) for name, rules in TABLES.items()}
    published = {
        "text": 26,
        "text_zh": 26,
        "others": 31,
        "data": 28,
        "shell": 28,
        "sql": 31,
        "python": 39,
        "go": 35,
        "html": 28,
    }
    assert counts | published == counts


@pytest.mark.parametrize(
    ("kind", "language", "table"),
    [
        ("code", "Python", "python"),
        ("code", "Haskell", "others"),
        ("code", "Java", "java"),
        ("data", "YAML", "data"),
        ("code", "SQL", "sql"),
        ("text", "Markdown", "text"),
        ("web", "unknown", "text"),
    ],
)
def test_a_document_is_judged_by_its_language_or_kind(kind: str, language: str, table: str) -> None:
    assert table_of(kind, language, TABLES) == table
    assert TABLES.keys() - {"others", "data", "text", "text_zh"} <= set(LANGUAGE_TABLES.values())


def batch(count: int, language: str = "C", kind: str = "code") -> pa.RecordBatch:
    blank = {name: 0 if field == pa.int64() else "" for name, field in zip(SCHEMA.names, SCHEMA.types, strict=True)}
    rows = [blank | {"id": f"{i:032x}", "language": language, "kind": kind} for i in range(count)]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def signals(documents: pa.RecordBatch, **columns: list[float | None] | list[str]) -> pa.RecordBatch:
    rows = documents.num_rows
    given = {"id": documents.column("id"), "language": documents.column("language"), "errors": [""] * rows} | columns
    arrays = [pa.array(given.get(field.name, [None] * rows), field.type) for field in SIGNAL_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=SIGNAL_SCHEMA)


def test_a_drop_names_the_first_rule_and_lists_all() -> None:
    documents = batch(4)
    measured = signals(documents, qsc_code_num_words=[29, 30, 5, None], qsc_code_num_lines=[10, 10, 9, None])
    result = Filter(PLAN)(documents, measured)
    assert result.table.column("id").to_pylist() == [f"{1:032x}", f"{3:032x}"]
    assert [tuple(drop) for drop in result.drops] == [
        (0, "qsc_code_num_words", "qsc_code_num_words < 30 (is 29)"),
        (
            2,
            "qsc_code_num_words",
            "qsc_code_num_words < 30 (is 5); qsc_code_num_lines < 10 or > 100000 (is 9)",
        ),
    ]
    assert result.counts == {"hit qsc_code_num_words": 2, "hit qsc_code_num_lines": 1, "only qsc_code_num_words": 1}


def test_a_failed_signal_is_a_drop_of_its_own() -> None:
    documents = batch(3)
    failed = "qsc_code_num_lines: ValueError: x\n"
    result = Filter(PLAN)(documents, signals(documents, errors=["", failed, failed], qsc_code_num_words=[30, 30, 1]))
    assert [(drop.row, drop.reason) for drop in result.drops] == [(1, "signal_failed"), (2, "qsc_code_num_words")]
    assert result.drops[0].detail == failed.strip()


def dropped(documents: pa.RecordBatch, seed: int = 0) -> set[str]:
    measured = signals(documents, qsc_codepython_score_lines_no_logic=[0.6] * documents.num_rows)
    result: Result = Filter(replace(PLAN, config=FilterConfig(seed=seed)))(documents, measured)
    identifiers = documents.column("id").to_pylist()
    return {identifiers[drop.row] for drop in result.drops}


def test_one_in_five_hits_of_no_logic_is_spared_and_always_the_same() -> None:
    documents = batch(2000, "Python")
    gone = dropped(documents)
    assert 0.77 < len(gone) / 2000 < 0.83
    assert dropped(documents.slice(500, 700)) == gone & set(documents.slice(500, 700).column("id").to_pylist())
    assert dropped(documents, seed=1) != gone


def test_good_python_passes_and_a_stub_does_not() -> None:
    good = Path(__file__).read_text()
    texts = [good, "import a\nimport b\n", "def f(:\n" * 20]
    documents = batch(3, "Python")
    documents = documents.set_column(1, SCHEMA.field("text"), pa.array(texts, pa.large_string()))
    documents = documents.set_column(11, SCHEMA.field("bytes"), pa.array([len(text) for text in texts]))
    result = Filter(PLAN)(documents, MeasureSignals(SignalsConfig())(documents).table)
    assert [drop.row for drop in result.drops] == [1, 2]
    assert "qsc_codepython_cate_ast = 0 (is 0)" in result.drops[1].detail


def test_signals_of_other_documents_are_refused() -> None:
    with pytest.raises(UserError, match="measured on other documents"):
        Filter(PLAN)(batch(2), signals(batch(3).slice(1, 2)))


def test_both_inputs_are_needed() -> None:
    with pytest.raises(UserError, match="required: --signals"):
        main(["filter", "--documents=documents", "--output=out"])


def profile(folder: Path, **tables: str) -> str:
    for name, content in ({"others": "", "data": "", "text": ""} | tables).items():
        (folder / f"{name}.toml").write_text(content)
    return str(folder)


def test_a_table_extends_another(tmp_path: Path) -> None:
    own = profile(
        tmp_path,
        others='[[rules]]\nsignal = "a"\nbelow = 1\n[[rules]]\nsignal = "b"\nequal = 1\n',
        go='extends = "others"\nwithout = ["b"]\n[[rules]]\nsignal = "a"\nabove = 2\n',
    )
    assert load_profile(own, {"a", "b"})["go"] == [Rule("a", above=2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[[rules]]\nsignal = "c"\nbelow = 1\n', "c is no signal"),
        ('without = ["c"]', "c is no signal"),
        ('[[rules]]\nsignal = "a"\n', "rule on a: give below, above or equal"),
        ('[[rules]]\nsignal = "a"\nbelow = 1\nspare = 1\n', "spare=1 must be"),
        ('[[rules]]\nsignal = "a"\nless = 1\n', "unexpected keyword argument 'less'"),
        ('extends = "go"', "extends 'go'"),
        ("rules = ", r"go\.toml"),
    ],
)
def test_a_mistake_in_a_table_names_the_file(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_profile(profile(tmp_path, go=content), {"a"})


def test_a_missing_profile_names_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"profile strict: no .*others\.toml; known profiles: fixed, reference"):
        load_profile("strict", set(SIGNALS))
