"""Two evaluations: what differs is told with its p-value, what can't be compared is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.evaluation.compare import compare, main
from opencoder_jax.evaluation.scores.results import Evaluated
from opencoder_jax.evaluation.scores.rows import Row
from opencoder_jax.recipe import UserError


def evaluation(place: Path, verdicts: dict[str, list[bool]], sha256: str = "a", name: str = "toy") -> Path:
    place.mkdir(parents=True, exist_ok=True)
    rows = [
        Row(task, number, None, "passed" if right else "timeout", "", "text", "", "", None, None, 0.0, 0.0, 0)
        for task, found in verdicts.items()
        for number, right in enumerate(found)
    ]
    (place / "rows.jsonl").write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows))
    (place / "score.json").write_text("{}")
    (place / "run.json").write_text(json.dumps({"benchmark": {"name": name, "sha256": sha256}}))
    return place


def test_what_turned_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = evaluation(tmp_path / "a", {f"t{n}": [n < 10] for n in range(20)})
    second = evaluation(tmp_path / "b", {f"t{n}": [1 <= n < 19] for n in range(20)})
    main([str(first), str(second), f"--output={tmp_path / 'turned.json'}"])
    printed = capsys.readouterr().out
    assert "difference +40.0 points" in printed
    assert "lost: 1\n    t0" in printed
    assert "gained: 9\n    t10" in printed
    assert "p = 0.0215" in printed  # 2 * (1 + 10) / 2**10: of ten that turned, one against nine
    (found,) = json.loads((tmp_path / "turned.json").read_text())
    assert found["shares"] == [0.5, 0.9]
    assert len(found["turned"]) == 10
    assert found["difference"]["low"] < 0.4 < found["difference"]["high"]


@given(st.lists(st.tuples(st.lists(st.booleans(), min_size=2, max_size=3), st.booleans()), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_exchanging_the_two_changes_the_sign_alone(
    tmp_path_factory: pytest.TempPathFactory, cases: list[tuple[list[bool], bool]]
) -> None:
    place = tmp_path_factory.mktemp("pair")
    one = Evaluated(evaluation(place / "a", {f"t{n}": found for n, (found, _) in enumerate(cases)}))
    other = Evaluated(evaluation(place / "b", {f"t{n}": [right] for n, (_, right) in enumerate(cases)}))
    (there,), (back,) = compare([one], [other], "strict"), compare([other], [one], "strict")
    assert there.p_value == pytest.approx(back.p_value)
    assert there.difference.estimate == pytest.approx(-back.difference.estimate)
    assert {each.task for each in there.turned} == {each.task for each in back.turned}
    (same,) = compare([one], [one], "strict")
    assert (same.p_value, same.turned, same.difference.estimate) == (1.0, [], 0.0)


def test_no_problem_that_turned_is_no_certainty(tmp_path: Path) -> None:
    one = Evaluated(evaluation(tmp_path, {f"t{n}": [n < 10] for n in range(60)}))
    (same,) = compare([one], [one], "strict")
    assert same.difference == (0.0, -0.05, 0.05)


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = evaluation(tmp_path / "a", {"t": [True]})
    with pytest.raises(UserError, match="two editions of toy"):
        main([str(first), str(evaluation(tmp_path / "b", {"t": [True]}, "b"))])
    with pytest.raises(UserError, match="no benchmark in common: toy; other"):
        main([str(first), str(evaluation(tmp_path / "c", {"t": [True]}, name="other"))])
    with pytest.raises(UserError, match="no problem of toy in common"):
        main([str(first), str(evaluation(tmp_path / "d", {"u": [True]}))])
    with pytest.raises(UserError, match="no finished evaluation there"):
        main([str(first), str(tmp_path / "none")])
    with pytest.raises(UserError, match="was not judged by the profile opencoder"):
        main([str(first), str(first), "--profile=opencoder"])
    main([str(first), str(evaluation(tmp_path / "e", {"t": [True], "more": [True]}))])
    assert "left out, as one alone has them: 0 of the first, 1 of the second" in capsys.readouterr().out


def test_runs_of_several_benchmarks_are_compared_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in "ab":
        for name in ("humaneval", "mbpp"):
            evaluation(tmp_path / side / name, {"t": [side == "a"]}, name=name)
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    printed = capsys.readouterr().out
    assert printed.count("difference -100.0 points") == 2
    assert "humaneval: 1 problems" in printed
