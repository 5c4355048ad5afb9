"""Chains: what runs, what doesn't, why, what an experiment's arms share, and steps side by side."""

import json
import os
import select
import signal
import subprocess
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


MEET = '''"""Meets another step at a pipe, writes, fails or is killed, as it was told."""

import os
import signal
from pathlib import Path

from opencoder_jax.recipe import UserError


def main(argv):
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in argv[1:])
    if pipe := flags.get("speak"):
        Path(pipe).write_text("hello")  # until another listens
    if pipe := flags.get("listen"):
        assert Path(pipe).read_text() == "hello"
    if flags.get("end") == "fail":
        raise UserError("no more onions")
    if flags.get("end") == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    output = Path(flags["output"])
    (output / "kept").mkdir(parents=True, exist_ok=True)
    (output / "seen").write_text(",".join(sorted(path.name for path in output.parent.iterdir())))
'''

HALL = '''"""A program with the verb `meet`, in any process that reads this file."""

import json
import sys
from types import ModuleType

from opencoder_jax import chain
from opencoder_jax.chain import Step
from opencoder_jax.verbs import Verb

table = ModuleType("hall_table")
table.VERBS = {"meet": Verb("meet_verb", "")}
table.main = lambda argv: __import__("meet_verb").main(argv)
sys.modules["hall_table"] = table
chain.PROGRAMS["hall"] = "hall_table"

if __name__ == "__main__":
    steps = [
        Step(name, "hall", "meet", tuple(settings), output, inputs=tuple(inputs))
        for name, output, settings, inputs in json.loads(sys.argv[1])
    ]
    for step, seconds in chain.run_chain(steps, processes=2):
        print(step.title, "up to date" if seconds is None else "ran", flush=True)
'''


class Hall:
    """Where steps meet: a folder with a program of its own, whose chains are processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "meet_verb.py").write_text(MEET)
        (folder / "hall.py").write_text(HALL)
        os.mkfifo(folder / "pipe")

    def start(self, **steps: tuple[str, list[str]]) -> subprocess.Popen[str]:
        """A chain of steps, by their settings (`PIPE` is one) and the steps that they read."""
        told = [
            (name, str(self.folder / "run" / name), settings.replace("PIPE", str(self.folder / "pipe")).split(), inputs)
            for name, (settings, inputs) in steps.items()
        ]
        (self.folder / "run").mkdir(exist_ok=True)
        chained = [
            (name, at, what, [str(self.folder / "run" / each) for each in read]) for name, at, what, read in told
        ]
        command = [sys.executable, str(self.folder / "hall.py"), json.dumps(chained)]
        path = os.pathsep.join([str(self.folder), *sys.path])
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def run(self, **steps: tuple[str, list[str]]) -> tuple[list[str], str]:
        """The lines that a chain printed of its steps, and its errors."""
        with self.start(**steps) as process:
            output, errors = process.communicate(timeout=100)
        return output.splitlines(), errors

    def seen(self, name: str) -> str:
        return (self.folder / "run" / name / "seen").read_text()


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    return Hall(tmp_path)


def test_steps_that_do_not_wait_for_each_other_run_side_by_side(hall: Hall) -> None:
    """Two meet at a pipe, which neither could pass alone; a third reads a folder of one's output, and comes after."""
    steps = {
        "first": ("--speak=PIPE", []),
        "third": ("--add=1", ["first/kept"]),
        "second": ("--listen=PIPE", []),
    }
    printed, errors = hall.run(**steps)
    assert sorted(printed) == ["first ran", "second ran", "third ran"], errors
    assert "first" in hall.seen("third")
    assert "[1/3] first" in errors
    printed, _ = hall.run(**steps)
    assert sorted(printed) == ["first up to date", "second up to date", "third up to date"]


def test_a_step_that_fails_beside_another_costs_itself_and_what_follows(hall: Hall) -> None:
    failing = {
        "bad": ("--listen=PIPE --end=fail", []),
        "after": ("--add=1", ["bad"]),
        "good": ("--speak=PIPE", []),
    }
    printed, errors = hall.run(**failing)
    assert "after ran" not in printed
    assert "UserError: no more onions" in errors
    mended = failing | {"bad": ("--add=2", []), "good": ("--speak=PIPE", [])}
    printed, _ = hall.run(**mended)
    assert sorted(printed) == ["after ran", "bad ran", "good up to date"]


def test_a_killed_process_of_steps_is_an_error_that_names_them(hall: Hall) -> None:
    printed, errors = hall.run(victim=("--end=kill", []))
    assert printed == []
    assert "UserError: victim: its process was killed; is the memory enough? Run again to go on" in errors


def test_when_a_chain_is_killed_its_steps_end(hall: Hall) -> None:
    """A step that listens is gone once its chain is: the pipe has no reader any more, and the next run may begin."""
    with hall.start(listener=("--listen=PIPE", []), other=("--add=1", ["listener"])) as process:
        end = os.open(hall.folder / "pipe", os.O_WRONLY)  # until the step has opened it, too
        process.send_signal(signal.SIGKILL)
        gone = select.poll()
        gone.register(end, select.POLLERR)
        assert gone.poll(100_000)
        os.close(end)
        process.communicate()
    printed, errors = hall.run(listener=("--add=1", []))
    assert printed == ["listener ran"], errors
