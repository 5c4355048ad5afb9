"""Stages: killed and resumed, changed and run again, in one process and in several, on a full disk and on bad input."""

import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import gin
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opencoder_jax import code_version
from opencoder_jax.beam_pipelines.command import command
from opencoder_jax.beam_pipelines.core.documents import empty
from opencoder_jax.beam_pipelines.core.manifest import Manifest, describe, merge_tallies
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

Batch = Callable[..., pa.RecordBatch]
StageDirectory = Callable[..., str]

ROOT = Path(__file__).resolve().parents[2]

# A stage of its own, in a module that workers and other processes can import. It leaves a line in $CALLS a batch.
SHOUT = '''"""Texts in upper case; silent ones are dropped."""

import os
import signal
from dataclasses import dataclass

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.recipe import UserError, configurable


@configurable
@dataclass(frozen=True)
class ShoutConfig:
    mark: str = "!"


@dataclass(frozen=True)
class Shout:
    config: ShoutConfig

    def __call__(self, documents):
        texts = documents.column("text").to_pylist()
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(f"{texts[0][:10] if texts else 'none'} {os.getpid()}\\n")
        if "kill me" in texts and "KILL" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        if "a bug" in texts:
            try:
                open("/nowhere/at/all")
            except OSError:
                raise KeyError("not the user's")
        if "a bad file" in texts:
            raise UserError("file.txt:7: not UTF-8; convert it")
        drops = [Drop(row, "silent", "no text") for row, text in enumerate(texts) if not text]
        shouted = pa.array([text.upper() + self.config.mark for text in texts], pa.large_string())
        kept = keep_rows(documents.set_column(1, documents.schema.field("text"), shouted), drops)
        return Result(kept, drops, {"all": len(texts)})


def run(documents: str, output: str, config: ShoutConfig, options) -> None:
    """Shouts.

    Args:
        documents: what is to be shouted.
    """
    speed = float(os.environ.get("MEGABYTES_PER_SECOND", 40))
    threads = "THREADS" in os.environ
    kernel = Shout(config)
    return map_stage("shout", kernel, [documents], output, config, options, megabytes_per_second=speed, threads=threads)
'''


@pytest.fixture
def shout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module `shout_stage`, in this process and in those that it starts."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "shout_stage.py").write_text(SHOUT)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    # Bytecode of a source that was edited within the same second counts as new.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    yield importlib.import_module("shout_stage")
    forget()


def forget() -> None:
    """Lets the module be imported anew, as another process would."""
    del sys.modules["shout_stage"]
    gin.config._REGISTRY.pop("shout_stage.ShoutConfig")
    code_version._source.cache_clear()


@pytest.fixture
def source(tmp_path: Path, batch: Batch, stage_directory: StageDirectory) -> str:
    """Four shards: three batches, one, an empty one, and one that kills the kernel where $KILL is set."""
    shards = [
        [batch("zero", "größe"), batch("", ""), batch("x" * 1000)],
        [batch("one", {"text": "c", "language": "C"})],
        [empty()],
        [batch("kill me", "")],
    ]
    return stage_directory(tmp_path / "source", shards)


def calls(tmp_path: Path) -> list[str]:
    """The first texts of the batches that were worked on since the last look."""
    file = tmp_path / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return sorted(line.rsplit(" ", 1)[0] for line in lines)


def content(directory: str | Path) -> dict[str, bytes]:
    place = Path(directory)
    return {str(file.relative_to(place)): file.read_bytes() for file in sorted(place.rglob("*")) if file.is_file()}


def run_here(source: str, output: Path, *flags: str) -> Manifest:
    command("shout", "shout_stage", EXAMPLE, [f"--documents={source}", f"--output={output}", *flags])
    return Manifest.read(str(output))


EXAMPLE = "--documents=runs/a --output=runs/b"
MAIN = (
    "from opencoder_jax.beam_pipelines.command import command; from opencoder_jax.recipe import run_command;"
    "run_command(lambda argv: command('shout', 'shout_stage', '', argv))"
)


def test_a_stage_writes_documents_drops_and_what_it_did(shout: ModuleType, source: str, tmp_path: Path) -> None:
    manifest = run_here(source, tmp_path / "out")
    assert set(content(tmp_path / "out")) == {"stage.json", "parts.json", *manifest.files}
    texts = [pq.read_table(tmp_path / "out" / name).column("text").to_pylist() for name in manifest.shards()]
    assert texts == [["ZERO!", "GRÖSSE!", "X" * 1000 + "!"], ["ONE!", "C!"], [], ["KILL ME!"]]
    assert manifest.shards("drops") == ["drops-00000-of-00004.parquet", "drops-00003-of-00004.parquet"]
    drops = pq.read_table(tmp_path / "out" / manifest.shards("drops")[0]).to_pylist()
    assert [(row["path"], row["reason"], row["detail"]) for row in drops] == [
        ("0.py", "silent", "no text"),
        ("1.py", "silent", "no text"),
    ]
    size = len("zero" + "größe" + "one" + "kill me") + 2 + 1000  # ö and ß are two bytes each
    assert manifest.tally == {
        "in": {"documents": {"Python": 8, "C": 1}, "bytes": {"Python": size, "C": 1}},
        "out": {"documents": {"Python": 5, "C": 1}, "bytes": {"Python": size, "C": 1}},
        "drop": {"documents": {"silent": 3}, "bytes": {"silent": 0}},
        "count": {"all": 9},
    }
    assert describe(manifest) == "shout: 9 documents (0.0 MB) in, 6 documents (0.0 MB) out; dropped: silent 3"


def test_a_line_tells_most_reasons_and_how_many_more_there_are() -> None:
    reasons = {f"reason{number}": 20 - number for number in range(15)}
    manifest = Manifest("s", {}, {}, [], {"in": {"documents": {"C": 300}}, "drop": {"documents": reasons}}, {})
    line = describe(manifest)
    assert line.endswith("reason11 9, 3 other reasons 21")
    assert sum(map(int, re.findall(r" (\d+)(?=,|$)", line.partition("dropped:")[2]))) == sum(reasons.values())


def test_killed_and_resumed_is_as_never_killed(shout: ModuleType, source: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", MAIN, f"--documents={source}", f"--output={tmp_path / 'out'}"]
    killed = subprocess.run(arguments, env=os.environ | {"KILL": "1"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert calls(tmp_path) == ["", "kill me", "none", "one", "x" * 10, "zero"]
    assert not (tmp_path / "out/stage.json").exists()
    with pytest.raises(UserError, match=r"out: isn't finished; run the stage that writes it first"):
        run_here(str(tmp_path / "out"), tmp_path / "next")

    (tmp_path / "out/documents-00003-of-00004.parquet.writing").write_bytes(b"what a kill leaves")
    run_here(source, tmp_path / "out")
    assert calls(tmp_path) == ["kill me"]
    run_here(source, tmp_path / "elsewhere/whole")
    assert content(tmp_path / "out") == content(tmp_path / "elsewhere/whole")


def test_killed_once_it_was_finished_is_finished(shout: ModuleType, source: str, tmp_path: Path) -> None:
    """The plan and the reports go after the manifest has come."""
    run_here(source, tmp_path / "out")
    whole = content(tmp_path / "out")
    calls(tmp_path)
    (tmp_path / "out/plan.json").write_text("{}")
    (tmp_path / "out/reports").mkdir()
    (tmp_path / "out/reports/00000.json").write_text("{}")
    run_here(source, tmp_path / "out")
    assert calls(tmp_path) == []
    assert content(tmp_path / "out") == whole


def test_nothing_runs_where_nothing_changed(
    shout: ModuleType, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_here(source, tmp_path / "out")
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    calls(tmp_path)
    assert run_here(source, tmp_path / "out") == first
    assert calls(tmp_path) == []
    assert "shout: up to date" in capsys.readouterr().err
    assert times == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}


def test_what_somebody_deleted_is_made_again(shout: ModuleType, source: str, tmp_path: Path) -> None:
    run_here(source, tmp_path / "out")
    whole = content(tmp_path / "out")
    (tmp_path / "out/drops-00000-of-00004.parquet").unlink()
    run_here(source, tmp_path / "out")
    assert content(tmp_path / "out") == whole


def test_another_configuration_runs_again(shout: ModuleType, source: str, tmp_path: Path) -> None:
    first = run_here(source, tmp_path / "out")
    second = run_here(source, tmp_path / "out", "--gin.ShoutConfig.mark=?")
    assert (first.config, second.config) == ({"mark": "!"}, {"mark": "?"})
    assert pq.read_table(tmp_path / "out" / second.shards()[1]).column("text").to_pylist() == ["ONE?", "C?"]
    anew = run_here(source, tmp_path / "new", "--gin.ShoutConfig.mark=?")
    assert second.stale == ["mark was !, is ?"]
    assert replace(second, stale=[]) == anew
    assert {**content(tmp_path / "out"), "stage.json": b""} == {**content(tmp_path / "new"), "stage.json": b""}


def test_another_input_runs_again_and_leaves_nothing_of_the_old(
    shout: ModuleType, source: str, tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    run_here(source, tmp_path / "out")
    (tmp_path / "out/plan.json").write_text("{}")  # as if killed while it began anew
    other = stage_directory(tmp_path / "other", [[batch("a")], [batch("b")]])
    manifest = run_here(other, tmp_path / "out")
    assert set(content(tmp_path / "out")) == {
        "stage.json",
        "parts.json",
        "documents-00000-of-00002.parquet",
        "documents-00001-of-00002.parquet",
    }
    assert manifest.inputs == [Manifest.read(other).fingerprint]
    assert manifest.table("drop") == {}


def test_more_input_makes_only_the_shards_that_are_new(
    shout: ModuleType, tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    """And the directory is to the byte what it is when all is made at once; so it is when a shard is taken away."""
    shards = {name: [batch(name, f"{name} too")] for name in ("a", "c", "d")}
    run_here(stage_directory(tmp_path / "few", shards), tmp_path / "out")
    calls(tmp_path)
    shards |= {"b": [batch("b")], "d": [batch("changed")]}
    more = stage_directory(tmp_path / "more", dict(sorted(shards.items())))
    run_here(more, tmp_path / "out")
    assert calls(tmp_path) == ["b", "changed"]
    manifest = run_here(more, tmp_path / "anew")
    assert replace(Manifest.read(str(tmp_path / "out")), stale=[]) == manifest
    assert {**content(tmp_path / "out"), "stage.json": b""} == {**content(tmp_path / "anew"), "stage.json": b""}
    calls(tmp_path)
    del shards["a"]
    fewer = stage_directory(tmp_path / "fewer", dict(sorted(shards.items())))
    assert run_here(fewer, tmp_path / "out").total("in", "documents") == 4
    assert calls(tmp_path) == []
    run_here(fewer, tmp_path / "out", "--gin.ShoutConfig.mark=?")
    assert len(calls(tmp_path)) == 3


def test_edited_code_runs_again(shout: ModuleType, source: str, tmp_path: Path) -> None:
    first = run_here(source, tmp_path / "out")
    calls(tmp_path)
    Path(str(shout.__file__)).write_text(SHOUT.replace("upper()", "lower()"))
    forget()
    second = run_here(source, tmp_path / "out")
    assert first.code != second.code
    assert second.stale == ["the code of shout_stage changed"]
    assert len(calls(tmp_path)) == 6
    assert pq.read_table(tmp_path / "out" / second.shards()[1]).column("text").to_pylist() == ["one!", "c!"]


def test_an_edited_comment_or_message_runs_nothing_again(shout: ModuleType, source: str, tmp_path: Path) -> None:
    first = run_here(source, tmp_path / "out")
    calls(tmp_path)
    edited = SHOUT.replace("import os\n", "import os  # for the environment\n\n\n").replace(
        "convert it", "do convert it"
    )
    Path(str(shout.__file__)).write_text(edited.replace("Texts in upper case", "Loud texts"))
    forget()
    assert run_here(source, tmp_path / "out") == first
    assert calls(tmp_path) == []


def test_an_older_output_is_accepted_by_name(
    shout: ModuleType, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_here(source, tmp_path / "out")
    calls(tmp_path)
    Path(str(shout.__file__)).write_text(SHOUT.replace("upper()", "lower()"))
    forget()
    kept = run_here(source, tmp_path / "out", "--accept=shout")
    assert calls(tmp_path) == []
    assert "shout: accepted as it is, though the code of shout_stage changed" in capsys.readouterr().err
    assert (kept.files, kept.accepted) == (first.files, ["the code of shout_stage changed"])
    assert run_here(source, tmp_path / "out") == kept  # from now on it counts as up to date
    assert calls(tmp_path) == []
    assert run_here(source, tmp_path / "out", "--gin.ShoutConfig.mark=?", "--accept=another").files != first.files


def test_workers_write_the_same_bytes_and_nothing_names_the_place_or_the_time(
    shout: ModuleType, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(source, tmp_path / "here")
    shutil.move(source, tmp_path / "moved")
    monkeypatch.setenv("MEGABYTES_PER_SECOND", "1e-9")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    (tmp_path / "calls").unlink()
    run_here(str(tmp_path / "moved"), tmp_path / "deep/er/there")
    workers = {line.split()[-1] for line in (tmp_path / "calls").read_text().splitlines()}
    assert workers
    assert str(os.getpid()) not in workers
    assert content(tmp_path / "here") == content(tmp_path / "deep/er/there")

    text = (tmp_path / "here/stage.json").read_text()
    assert json.loads(text).keys() == {field.name for field in fields(Manifest)} | {"seal"}
    assert str(tmp_path) not in text
    for data in content(tmp_path / "here").values():
        assert str(tmp_path).encode() not in data


def test_threads_write_the_same_bytes_and_tell_mistakes_alike(
    shout: ModuleType,
    source: str,
    tmp_path: Path,
    batch: Batch,
    stage_directory: StageDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run_here(source, tmp_path / "here")
    monkeypatch.setenv("THREADS", "yes")
    monkeypatch.setenv("MEGABYTES_PER_SECOND", "1e-9")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    run_here(source, tmp_path / "there")
    assert {line.split()[-1] for line in (tmp_path / "calls").read_text().splitlines()} == {str(os.getpid())}
    assert content(tmp_path / "here") == content(tmp_path / "there")

    bad = stage_directory(tmp_path / "bad", [[batch("a bad file")], [batch("a bad file")]])
    capfd.readouterr()
    with pytest.raises(UserError, match=r"^shout: file.txt:7: not UTF-8; convert it$"):
        run_here(bad, tmp_path / "out")
    said = capfd.readouterr().err.replace("\r", "\n").splitlines()
    assert [line for line in said if line and not line.startswith("shout: ")] == []  # the rest is the bar


def test_a_full_disk_is_one_line_and_a_rerun_with_space_completes(
    shout: ModuleType, tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    chance = random.Random(0)
    shards = [[batch(chance.randbytes(100_000).hex())] for _ in range(4)]  # zstd makes 100 kB of each
    source = stage_directory(tmp_path / "source", shards)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = """
        mount -t tmpfs -o size=250k none "$1" || exit 77
        MEGABYTES_PER_SECOND=1e-9 "$2" -c "$3" --documents="$4" --output="$1/out"
        echo "code $?"
        mount -o remount,size=8m "$1" || exit 77
        "$2" -c "$3" --documents="$4" --output="$1/out" && cp -r "$1/out" "$5"
    """
    arguments = [str(disk), sys.executable, MAIN, source, str(tmp_path / "copy")]
    try:
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("this machine has no unshare")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")

    assert done.returncode == 0, done.stderr
    assert "code 2\n" in done.stdout
    errors = [line for line in done.stderr.replace("\r", "\n").splitlines() if line and not line.startswith("shout: ")]
    (error,) = errors  # all the rest is the bar of progress
    said, _, name = error.partition(f"{disk}/out/")
    assert said == "error: shout: [Errno 28] No space left on device: '"
    # Whichever of the two workers came last: one's shard, or the other's report of a shard that had found its place.
    assert name.startswith(("documents-0000", "reports/"))
    run_here(source, tmp_path / "whole")
    assert content(tmp_path / "copy") == content(tmp_path / "whole")


def test_a_mistake_in_the_data_is_one_line_and_a_bug_is_not(
    shout: ModuleType, tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    bad = stage_directory(tmp_path / "bad", [[batch("a bad file")]])
    with pytest.raises(UserError) as told:
        run_here(bad, tmp_path / "out")
    assert str(told.value) == "file.txt:7: not UTF-8; convert it"
    bug = stage_directory(tmp_path / "bug", [[batch("a bug")]])
    # Though it was raised while an OSError was handled.
    with pytest.raises(RuntimeError, match=r"bug/documents-00000-of-00001.parquet: KeyError: .*not the user's"):
        run_here(bug, tmp_path / "out")


def test_flags(shout: ModuleType, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="unknown argument --runer=x: no flag of this stage or of Apache Beam"):
        run_here(source, tmp_path / "out", "--runer=x")
    with pytest.raises(UserError, match="unknown argument stray"):
        BeamOptions(("stray",))
    assert BeamOptions(("--runner=DataflowRunner", "--project", "p")).flags == (
        "--runner=DataflowRunner",
        "--project",
        "p",
    )
    with pytest.raises(SystemExit) as ended:
        command("shout", "shout_stage", EXAMPLE, ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "Texts in upper case" in text
    assert f"Example: python -m beam_pipelines shout {EXAMPLE}\n" in text
    assert "--documents DIR  what is to be shouted." in text
    assert "ShoutConfig.mark: str = '!'" in text


def test_inputs_are_named_and_a_slip_is_told(shout: ModuleType, source: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown argument --document=.*; did you mean --documents\?"):
        run_here(source, tmp_path / "out", f"--document={source}")
    with pytest.raises(UserError, match=r"--documents"):
        command("shout", "shout_stage", EXAMPLE, [f"--output={tmp_path / 'out'}"])
    with pytest.raises(UserError, match=r"this command doesn't read TrainConfig; it reads ShoutConfig"):
        run_here(source, tmp_path / "out", "--gin.TrainConfig.steps=1")


def test_an_input_that_is_no_finished_stage_of_documents(shout: ModuleType, source: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: holds no stage.json; run the stage that writes it first"):
        run_here(str(tmp_path / "nowhere"), tmp_path / "out")
    kernel = shout.Shout(shout.ShoutConfig())
    map_stage("side", kernel, [source], str(tmp_path / "side"), kernel.config, BeamOptions(), table="signals")
    with pytest.raises(UserError, match=r"side: holds no documents; it was written by the stage side"):
        run_here(str(tmp_path / "side"), tmp_path / "out")
    assert not (tmp_path / "out/stage.json").exists()


def pair(documents: pa.RecordBatch, side: pa.RecordBatch) -> Result:
    """A kernel over documents and a side table: drops the documents whose partner is empty."""
    drops = [Drop(row, "alone") for row, text in enumerate(side.column("text").to_pylist()) if not text]
    return Result(keep_rows(documents, drops), drops)


def test_two_inputs_are_read_in_step(
    source: str, tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    def run(name: str, shards: list[list[pa.RecordBatch]]) -> Manifest:
        side = stage_directory(tmp_path / name, shards)
        output = str(tmp_path / f"{name}-out")
        return map_stage("pair", pair, [documents, side], output, BeamOptions(), BeamOptions())  # any frozen dataclass

    documents = stage_directory(tmp_path / "documents", [[batch("a", "b"), empty(), batch("c")], [batch("d")]])
    manifest = run("good", [[batch("", "x"), empty(), batch("x")], [batch("")]])
    assert manifest.table("drop", "documents") == {"alone": 2}
    with pytest.raises(UserError, match=r"pair: inputs differ in shards: .*'.*/documents': 2, '.*/shards': 1"):
        run("shards", [[batch("a", "b"), empty(), batch("c")]])
    with pytest.raises(UserError, match=r"documents/documents-00000-of-00002.parquet and .*differ in rows"):
        run("rows", [[batch("a"), empty(), batch("c")], [batch("d")]])
    with pytest.raises(UserError, match="differ in rows"):
        run("batches", [[batch("a", "b"), empty()], [batch("d")]])


def test_an_output_that_holds_other_things_is_left_alone(shout: ModuleType, source: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"home: holds other files, such as thesis.tex; name an empty or a new"):
        run_here(source, tmp_path / "home")
    assert content(tmp_path / "home") == {"thesis.tex": b"precious"}
    before = content(source)
    with pytest.raises(UserError, match="is an input too"):
        run_here(source, Path(f"{source}/../source"))
    assert content(source) == before


def test_tallies_add_up() -> None:
    one = {"in": {"documents": {"C": 1}}, "count": {"x": 2}}
    other = {"in": {"documents": {"C": 2, "Go": 5}}, "drop": {}}
    total = {"in": {"documents": {"C": 3, "Go": 5}}, "count": {"x": 2}, "drop": {}}
    assert merge_tallies([one, other]) == total
    assert merge_tallies([other, one]) == total
    assert one == {"in": {"documents": {"C": 1}}, "count": {"x": 2}}
    manifest = Manifest("s", {}, {}, [], total)
    assert manifest.total("in", "documents") == 8
    assert manifest.total("out", "documents") == 0
    assert manifest.table("in", "documents") == {"C": 3, "Go": 5}


def test_a_manifest_that_is_not_json(tmp_path: Path) -> None:
    Directory(str(tmp_path)).write_bytes("stage.json", b"{")
    with pytest.raises(UserError, match=r"stage\.json: not JSON"):
        Manifest.read(str(tmp_path))
