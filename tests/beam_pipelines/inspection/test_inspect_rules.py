"""The inspection: its counts are the filter stage's, its examples are what they claim, its pages are safe and equal."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.documents import read_shard_columns
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.filtering import filter as filter_stage
from opencoder_jax.beam_pipelines.filtering.filter import FilterConfig
from opencoder_jax.beam_pipelines.filtering.rules import load_profile
from opencoder_jax.beam_pipelines.inspection import survey as inspect_survey
from opencoder_jax.beam_pipelines.inspection.inspect_rules import (
    InspectConfig,
    addresses_shown,
    read_examples,
    run,
)
from opencoder_jax.beam_pipelines.inspection.pages import visible
from opencoder_jax.beam_pipelines.inspection.survey import Nearest, Rows, survey
from opencoder_jax.beam_pipelines.signals import measure as signals
from opencoder_jax.beam_pipelines.signals.measure import SIGNALS, SignalsConfig
from opencoder_jax.recipe import UserError

HOSTILE = "<script>alert('x')</script> & \x00\x1b[31m \ud800".encode("utf-8", "replace").decode()
GOOD = "\n".join(f"def add_{name}(first, second):\n    return first + second * {name!r}" for name in "abcdefgh")


def sources() -> list[dict[str, Any]]:
    """Documents of four tables, short and long, good and bad; one is hostile in every field."""
    rows: list[dict[str, Any]] = []
    for number in range(24):
        body = "\n".join(f"value_{number}_{line} = compute({line}, other)" for line in range(number))
        rows.append({"text": body, "path": f"short{number}.py"})
        rows.append({"text": body.replace("=", ":="), "path": f"short{number}.go", "language": "Go"})
        words = " ".join(f"word{number * place}" for place in range(5 * number))
        rows.append({"text": words, "path": f"{number}.md", "language": "Markdown", "kind": "text"})
    rows.append({"text": GOOD, "path": "good.py"})
    long_line = "# " + " ".join(f"remark{number}" for number in range(120))
    rows.append({"text": Path(__file__).read_text() + long_line, "path": "long.py"})
    rows.append({"text": "import a\n" * 40, "path": "imports.py"})
    rows.append({"text": HOSTILE, "path": "<script>/\"'.py", "repository": "<b>bold</b>"})
    return rows


Chain = tuple[str, str]

DEFAULT = FilterConfig().profile


@pytest.fixture(scope="module")
def chain(
    tmp_path_factory: pytest.TempPathFactory, batch: Callable[..., pa.RecordBatch], stage_directory: Callable[..., str]
) -> Chain:
    """Documents in two shards and three batches, and their signals."""
    rows, place = sources(), tmp_path_factory.mktemp("chain")
    documents = stage_directory(place / "documents", [[batch(*rows[:30]), batch(*rows[30:40])], [batch(*rows[40:])]])
    signals.run(documents, str(place / "signals"), SignalsConfig(), BeamOptions())
    return documents, str(place / "signals")


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A profile with fewer and other rules than ours, and fewer tables."""
    place = tmp_path_factory.mktemp("lenient")
    for table in ("others", "data", "text"):
        kind = "doc" if table == "text" else "code"
        rules = [f'[[rules]]\nsignal = "qsc_{kind}_num_words"\nbelow = 12\nabove = 70\n']
        rules += [f'[[rules]]\nsignal = "qsc_{kind}_num_lines"\nabove = 15\nspare = 0.5\n']
        (place / f"{table}.toml").write_text("\n".join(rules))
    return str(place)


EXAMPLES = "--gin.InspectConfig.examples=4"


def inspect(*flags: str) -> None:
    """The command."""
    main(["inspect", *flags])


def content(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


@pytest.fixture(scope="module")
def output(chain: Chain, lenient: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pages") / "out"
    flags = [f"--gin.FilterConfig.profile={lenient}", f"--gin.InspectConfig.compare={DEFAULT}"]
    inspect(f"--documents={chain[0]}", f"--signals={chain[1]}", f"--output={place}", *flags, EXAMPLES)
    return place


@pytest.mark.parametrize("own", [False, True])
def test_the_counts_are_those_of_the_filter_stage(chain: Chain, lenient: str, tmp_path: Path, own: bool) -> None:
    config = FilterConfig(profile=lenient if own else DEFAULT, seed=3)
    oracle = filter_stage.run(*chain, str(tmp_path / "filter"), config, BeamOptions())
    found = survey(*chain, load_profile(config.profile, set(SIGNALS)), None, config.seed, 3)
    counts: dict[str, int] = {}
    for table in found.tables:
        for rule in table.rules:
            for name, count in (("hit", rule.hits), ("only", rule.only)):
                counts[f"{name} {rule.rule.signal}"] = counts.get(f"{name} {rule.rule.signal}", 0) + count
            assert table.overlap[table.rules.index(rule), table.rules.index(rule)] == rule.hits
    assert {name: count for name, count in counts.items() if count} == oracle.table("count")
    assert any(name.startswith("only") for name in oracle.table("count"))
    assert sum(table.kept for table in found.tables) == oracle.total("out", "documents")
    assert sum(table.kept_bytes for table in found.tables) == oracle.total("out", "bytes")
    assert sum(table.bytes for table in found.tables) == oracle.total("in", "bytes")


def test_the_manifest_has_the_counters_too(chain: Chain, lenient: str, output: Path, tmp_path: Path) -> None:
    oracle = filter_stage.run(*chain, str(tmp_path / "filter"), FilterConfig(lenient), BeamOptions())
    assert Manifest.read(str(output)).table("count") == oracle.table("count")


def test_examples_are_on_the_side_that_they_claim(chain: Chain) -> None:
    found = survey(*chain, load_profile(DEFAULT, set(SIGNALS)), None, 0, 5)
    table = next(table for table in found.tables if table.name == "go")
    rule = next(rule for rule in table.rules if rule.rule.signal == "qsc_code_num_lines")
    # The i-th document has i lines.
    values = [[value for _, value in group[0]] for group in (rule.caught, rule.passed, rule.extreme)]
    assert values == [[9, 8, 7, 6, 5], [10, 11, 12, 13, 14], [0, 1, 2, 3, 4]]
    assert list(rule.caught[1]) == list(rule.extreme[1]) == []
    examples = read_examples(chain[0], addresses_shown(found))
    assert [examples[address].path for address, _ in rule.caught[0]] == [f"short{n}.go" for n in (9, 8, 7, 6, 5)]
    assert [examples[address].head.count("\n") + 1 for address, _ in rule.caught[0]] == [9, 8, 7, 6, 5]


def test_a_spared_document_is_no_example_of_what_is_caught(chain: Chain, lenient: str) -> None:
    found = survey(*chain, load_profile(lenient, set(SIGNALS)), None, 0, 100)
    rule = next(table for table in found.tables if table.name == "others").rules[1]
    beyond = sum(value > 15 for table in found.tables for value in table.sample[:, 1] if table.name == "others")
    assert 0 < rule.hits < beyond
    assert len(list(rule.caught[0])) == len(list(rule.extreme[0])) == rule.hits


def test_the_comparison_counts_who_changes_sides(chain: Chain, lenient: str, tmp_path: Path) -> None:
    kept = []
    for name in (DEFAULT, lenient):
        place = str(tmp_path / Path(name).name)
        filter_stage.run(*chain, place, FilterConfig(profile=name), BeamOptions())
        kept.append(
            {
                identifier
                for shard in Manifest.read(place).shards()
                for identifier in read_shard_columns(Directory(place), shard, ["id"]).column("id").to_pylist()
            }
        )
    profiles = [load_profile(name, set(SIGNALS)) for name in (DEFAULT, lenient)]
    comparison = survey(*chain, profiles[0], profiles[1], 0, 3).comparison
    assert comparison is not None
    assert comparison.documents == {"dropped": len(kept[0] - kept[1]), "kept": len(kept[1] - kept[0])}
    assert comparison.documents["kept"] > 0
    assert {direction for direction, *_ in comparison.changes} == {d for d, n in comparison.documents.items() if n}


def test_a_profile_compared_with_itself_changes_nothing(chain: Chain) -> None:
    profile = load_profile(DEFAULT, set(SIGNALS))
    comparison = survey(*chain, profile, profile, 0, 3).comparison
    assert comparison is not None
    assert not comparison.changes


def test_every_page_escapes_what_documents_hold(output: Path) -> None:
    pages = {name: data.decode() for name, data in content(output).items() if name.endswith(".html")}
    assert all("<script" not in page and "<b>bold" not in page for page in pages.values())
    shown = [
        page for page in pages.values() if "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; ␀␛[31m" in page
    ]
    assert shown
    assert all("&lt;script&gt;/&quot;&#x27;.py" in page and "&lt;b&gt;bold" in page for page in shown)
    assert not any("http://" in page or "https://" in page for name, page in pages.items() if name == "index.html")


def test_every_rule_has_its_page_and_every_link_leads_somewhere(output: Path) -> None:
    names = set(content(output))
    index = (output / "index.html").read_text()
    pages = {name for name in names if name.endswith(".html")} - {"index.html"}
    assert all(f'href="{name}"' in index for name in pages)
    assert len(pages) == 1 + 2 * 2  # two rules in each of two tables that have documents
    assert names == pages | {"index.html", "stage.json"}


def test_two_runs_give_the_same_bytes(chain: Chain, lenient: str, output: Path, tmp_path: Path) -> None:
    run(*chain, str(tmp_path / "again"), InspectConfig(4, DEFAULT), FilterConfig(lenient), BeamOptions())
    assert content(tmp_path / "again") == content(output)


def test_long_texts_are_cut(
    batch: Callable[..., pa.RecordBatch], stage_directory: Callable[..., str], tmp_path: Path
) -> None:
    documents = stage_directory(tmp_path / "documents", [[batch("x" * 50_000)]])
    example = read_examples(documents, [0])[0]
    assert (example.cut, len(example.head), example.bytes) == (True, 3000, 50_000)


@pytest.mark.parametrize("texts", [(), (GOOD,)], ids=["empty", "one good document"])
def test_a_corpus_without_hits_has_pages(
    batch: Callable[..., pa.RecordBatch], stage_directory: Callable[..., str], tmp_path: Path, texts: Sequence[str]
) -> None:
    documents = stage_directory(tmp_path / "documents", [[batch(*texts)]])
    measured = str(tmp_path / "signals")
    signals.run(documents, measured, SignalsConfig(skip=("qsc_code_num_lines",)), BeamOptions())
    place = tmp_path / "profile"
    place.mkdir()
    for table in ("others", "data", "text"):
        (place / f"{table}.toml").write_text(
            '[[rules]]\nsignal = "qsc_code_num_chars"\nbelow = 1\n[[rules]]\nsignal = "qsc_code_num_lines"\nabove = 9\n'
            '[[rules]]\nsignal = "qsc_code_cate_autogen"\nequal = 1\n'
        )
    config = InspectConfig(compare=str(place))
    run(documents, measured, str(tmp_path / "out"), config, FilterConfig(str(place)), BeamOptions())
    index = (tmp_path / "out" / "index.html").read_text()
    assert f"keeps {len(texts)} of {len(texts)} documents" in index
    assert ("there is no overlap to draw" in index) == bool(texts)
    assert ("No document of this table has the signal" in index) == bool(texts)


def test_wrong_inputs_are_one_line(chain: Chain, tmp_path: Path) -> None:
    documents, measured = f"--documents={chain[0]}", f"--signals={chain[1]}"
    for flags, message in [
        ([documents], "required: --signals"),
        ([f"--documents={chain[1]}", f"--signals={chain[0]}"], "holds no documents"),
        ([documents, f"--signals={chain[0]}"], "holds no signals"),
        ([documents, f"--signals={tmp_path}"], r"holds no stage\.json"),
        ([documents, measured, "--gin.InspectConfig.compare=reference"], "made for the reference definitions"),
        ([documents, measured, "--gin.InspectConfig.compare=strict"], "profile strict"),
        ([documents, measured, "--gin.FilterConfig.profile=strict"], "profile strict"),
        ([documents, measured, "--gin.InspectConfig.examples=0"], "examples=0: must be 1 or more"),
        ([documents, measured, "--gin.InspectConfig.comapre=fixed"], "Did you mean compare"),
    ]:
        with pytest.raises(UserError, match=message):
            inspect(*flags, f"--output={tmp_path / 'out'}")


def test_signals_of_other_documents_are_refused(
    chain: Chain, batch: Callable[..., pa.RecordBatch], stage_directory: Callable[..., str], tmp_path: Path
) -> None:
    rows = sources()
    others = stage_directory(tmp_path / "others", [[batch(*rows[:40])], [batch(*reversed(rows[40:]))]])
    with pytest.raises(UserError, match="wasn't measured on"):
        run(others, chain[1], str(tmp_path / "out"), InspectConfig(), FilterConfig(), BeamOptions())
    single = stage_directory(tmp_path / "single", [[batch(*rows)]])
    with pytest.raises(UserError, match="has 1 shards"):
        run(single, chain[1], str(tmp_path / "out"), InspectConfig(), FilterConfig(), BeamOptions())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**63)), unique=True, max_size=30), st.integers(1, 8))
def test_the_nearest_do_not_depend_on_the_order_or_the_batches(rows: list[tuple[int, int]], cut: int) -> None:
    def nearest(parts: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[int, float]]:
        found = Nearest(5)
        for part in parts:
            keys = np.array([key for key, _ in part], float)
            addresses = np.array([address for _, address in part], np.uint64)
            found.add(keys, Rows(addresses / 2.0**64, addresses, addresses, addresses > 0), keys)
        return list(found)

    backwards = rows[::-1]
    parts = [backwards[start : start + cut] for start in range(0, len(rows), cut)]
    assert [value for _, value in nearest([rows])] == [value for _, value in nearest(parts)]
    assert [value for _, value in nearest([rows])] == sorted(key for key, _ in rows)[:5]


def test_the_sample_of_a_large_table_is_drawn_by_hash(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile(DEFAULT, set(SIGNALS))
    whole = {table.name: table for table in survey(*chain, profile, None, 0, 3).tables}
    monkeypatch.setattr(inspect_survey, "SAMPLE", 7)
    for table in survey(*chain, profile, None, 0, 3).tables:
        assert len(table.sample) == min(7, table.documents)
        # NaN equals itself here: the rows are those of the lowest hashes, as the whole sample has them in order.
        np.testing.assert_array_equal(table.sample, whole[table.name].sample[:7])
        assert table.documents == whole[table.name].documents


def test_control_characters_are_made_visible() -> None:
    assert visible("a\r\nb\tc\x00\x7f\r") == "a\nb\tc␀␡␍"
