"""Chains: what runs, what doesn't, why, and what an experiment's arms share."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from opencoder_jax import chain, code_version
from opencoder_jax.chain import STEP, Step, run_chain, vary
from opencoder_jax.recipe import UserError
from opencoder_jax.verbs import Verb

COOK = '''"""Writes what it read and was told."""

from pathlib import Path


def main(argv):
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in argv[1:])
    output = Path(flags.pop("output"))
    output.mkdir(exist_ok=True)
    read = [(Path(flags[name]) / "dish").read_text() for name in ("from",) if name in flags]
    if flags.get("fail"):
        raise KeyboardInterrupt
    (output / "dish").write_text(flags["add"] + "".join(read))
'''


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `kitchen` with the verb `cook`; the place of its source."""
    (tmp_path / "cook_verb.py").write_text(COOK)
    monkeypatch.syspath_prepend(str(tmp_path))
    table = ModuleType("kitchen_table")
    table.VERBS = {"cook": Verb("cook_verb", "")}  # type: ignore[attr-defined]

    def main(argv: list[str]) -> None:
        import cook_verb  # type: ignore[import-not-found]

        cook_verb.main(argv)

    table.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kitchen_table", table)
    monkeypatch.setitem(chain.PROGRAMS, "kitchen", "kitchen_table")
    code_version._source.cache_clear()
    monkeypatch.delitem(sys.modules, "cook_verb", raising=False)
    return tmp_path


def dishes(root: Path, add: Sequence[str] = ("a", "b", "c")) -> list[Step]:
    """Soup; a main course of it; a dessert of nothing."""
    soup, main, dessert = (str(root / name) for name in ("soup", "main", "dessert"))
    return [
        Step("soup", "kitchen", "cook", (f"--add={add[0]}",), soup),
        Step("main", "kitchen", "cook", (f"--add={add[1]}",), main, (("from", soup),), (soup,)),
        Step("dessert", "kitchen", "cook", (f"--add={add[2]}",), dessert),
    ]


def ran(steps: Sequence[Step], *accept: str) -> list[str]:
    return [step.name for step, seconds in run_chain(steps, accept) if seconds is not None]


def test_a_chain_runs_once_and_after_a_change_only_what_follows_from_it(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    root.mkdir()
    assert ran(dishes(root)) == ["soup", "main", "dessert"]
    assert (root / "main" / "dish").read_text() == "ba"
    assert ran(dishes(root)) == []
    assert capsys.readouterr().err.count("up to date") == 3
    assert ran(dishes(root, ("z", "b", "c"))) == ["soup", "main"]
    assert (root / "main" / "dish").read_text() == "bz"
    told = capsys.readouterr().err
    assert "soup: runs again: now --add=z; no longer --add=a" in told
    assert "main: runs again: its inputs changed" in told


def test_a_step_that_failed_runs_again_and_those_before_it_stay(kitchen: Path, tmp_path: Path) -> None:
    first, second, _ = dishes(tmp_path)
    broken = Step("main", "kitchen", "cook", ("--add=b", "--fail=yes"), second.output, second.places, second.inputs)
    with pytest.raises(KeyboardInterrupt):
        ran([first, broken])
    assert json.loads((tmp_path / "main" / STEP).read_text())["finished"] is False
    assert ran([first, second]) == ["main"]


def test_changed_code_is_named_and_may_be_accepted(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(dishes(tmp_path))
    (kitchen / "cook_verb.py").write_text(COOK.replace('flags["add"] +', '"2 " + flags["add"] +'))
    code_version._source.cache_clear()
    assert ran(dishes(tmp_path), "soup", "main", "dessert") == []
    assert "soup: accepted as it is, though the code of cook_verb changed" in capsys.readouterr().err
    assert json.loads((tmp_path / "soup" / STEP).read_text())["accepted"] == ["the code of cook_verb changed"]
    assert ran(dishes(tmp_path)) == []  # what was accepted stays so, and what was made of it too
    (kitchen / "cook_verb.py").write_text(COOK.replace("Writes what", "Puts down what"))
    code_version._source.cache_clear()
    assert ran(dishes(tmp_path)) == ["soup", "main", "dessert"]


def test_two_steps_may_not_write_one_directory(kitchen: Path, tmp_path: Path) -> None:
    first, *_ = dishes(tmp_path)
    other = Step("stew", "kitchen", "cook", ("--add=s",), first.output)
    with pytest.raises(UserError, match=r"soup: written by two steps, soup and stew"):
        ran([first, other])
    assert not (tmp_path / "soup").exists()


def test_arms_share_what_they_have_in_common(kitchen: Path, tmp_path: Path) -> None:
    plain = dishes(tmp_path)
    arm = vary(plain, str(tmp_path), "salty", {"main": ["--salt=more"]})
    assert [step.output for step in arm] == [plain[0].output, f"{tmp_path}/salty/main", plain[2].output]
    assert arm[0] is plain[0]
    assert arm[2] is plain[2]
    early = vary(plain, str(tmp_path), "hot", {"soup": ["--pepper=red"]})
    assert [step.output for step in early] == [f"{tmp_path}/hot/soup", f"{tmp_path}/hot/main", plain[2].output]
    assert early[1].places == (("from", f"{tmp_path}/hot/soup"),)
    assert early[1].inputs == (f"{tmp_path}/hot/soup",)
    assert ran([*plain, *arm, *early]) == ["soup", "main", "dessert", "main", "soup", "main"]
    with pytest.raises(UserError, match="odd: no step is called starter; there are soup, main, dessert"):
        vary(plain, str(tmp_path), "odd", {"starter": []})


def test_rounds_are_a_loop(kitchen: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    for number in range(3):
        last = [steps[-1].output] if steps else []
        places = tuple(("from", place) for place in last)
        settings = (f"--add={number}",)
        steps.append(
            Step(f"round {number}", "kitchen", "cook", settings, str(tmp_path / f"{number}"), places, tuple(last))
        )
    assert ran(steps) == ["0", "1", "2"]
    assert (tmp_path / "2" / "dish").read_text() == "210"


def test_a_command_is_what_a_user_types(tmp_path: Path) -> None:
    step = Step("t", "opencoder_jax", "generate", ("--prompt=a b",), "out", (("checkpoint", "run"),), ("run",))
    assert step.command() == "python -m opencoder_jax generate '--prompt=a b' --checkpoint=run --output=out"


def test_an_override_goes_to_the_verbs_that_read_it() -> None:
    flags = ["--gin_file=x.gin", "--gin.FilterConfig.seed=1", "--gin.CollectConfig.shards=2", "--runner=X"]
    step: Callable[..., Step] = chain.stage
    assert step("t", "sample", "o", flags, documents="d").settings == ("--gin_file=x.gin", "--runner=X")
    assert step("t", "collect", "o", flags).settings == (
        "--gin_file=x.gin",
        "--gin.CollectConfig.shards=2",
        "--runner=X",
    )
