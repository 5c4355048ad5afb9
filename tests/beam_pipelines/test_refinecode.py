"""The chain: it repeats itself whatever the order, the workers and the runner; survives kills; redoes what it must."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flink_cluster import flink_cluster, free_port
from moments import kill_often

from opencoder_jax.beam_pipelines.__main__ import VERBS
from opencoder_jax.beam_pipelines.refinecode import SOURCES, chosen_source, steps
from opencoder_jax.recipe import ROOT, UserError

# Two folders of real source with copies between them.
FOLDERS = {
    "one": ["json", "email", "html", "textwrap.py", "heapq.py", "difflib.py"],
    "two": ["json", "logging", "textwrap.py", "fractions.py", "string.py"],
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    library = Path(sysconfig.get_paths()["stdlib"])
    for name, modules in FOLDERS.items():
        repository = folder / name / f"repository_{name}"
        repository.mkdir(parents=True)
        for module in modules:
            if (library / module).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(library / module, repository / module, ignore=ignored)
            else:
                shutil.copy(library / module, repository / module)
    (repository / "secret.py").write_text('password = "tr0ub4dor&3xK"\n' + "value = 1\n" * 30)
    (repository / "latin.py").write_bytes(b"# caf\xe9\nprint(1)\n" * 20)
    (repository / "binary.py").write_bytes(b"\x00\x01\x02" * 100)
    return [folder / name for name in FOLDERS]


STAGES = ["collect", "exact_duplicates", "near_duplicates", "redact", "signals", "filter", "sample"]


def command(sources: Sequence[Path], output: Path, flags: Sequence[str] = ()) -> list[str]:
    inputs = [f"--folders={source}" for source in sources]
    return [sys.executable, "-m", "beam_pipelines", "refinecode", *inputs, f"--output={output}", *flags]


def run(sources: Sequence[Path], output: Path, *flags: str) -> str:
    done = subprocess.run(command(sources, output, flags), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def content(output: Path) -> dict[str, bytes]:
    """Every file, with its bytes: what another run must leave, no more and no less."""
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "run"
    run(sources, output)
    return output


def test_the_summary_says_where_every_document_went(finished: Path) -> None:
    summary = json.loads((finished / "refinecode.json").read_text())
    stages = {stage["directory"]: stage["tally"] for stage in summary["stages"]}
    assert list(stages) == STAGES
    for before, after in [("collect", "exact_duplicates"), ("redact", "filter"), ("filter", "sample")]:
        assert stages[before]["out"] == stages[after]["in"]
    for name, tally in stages.items():
        sides = [sum(tally.get(side, {}).get("documents", {}).values()) for side in ("in", "out", "drop")]
        assert sides[0] == sides[1] + sides[2], f"{name}: documents are missing"
    assert stages["exact_duplicates"]["drop"]["documents"]["duplicate"] > 4
    assert stages["redact"]["count"]["redacted password"] >= 1


@pytest.mark.slow
def test_order_of_inputs_and_number_of_workers_change_no_byte(
    sources: list[Path], finished: Path, tmp_path: Path
) -> None:
    run(sources[::-1], tmp_path / "run", "--direct_num_workers=2")
    assert content(tmp_path / "run") == content(finished)


def test_a_second_run_touches_nothing(sources: list[Path], finished: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in finished.rglob("*")}

    before = times()
    assert run(sources, finished).count("up to date") >= len(STAGES)
    assert times() == before


@pytest.mark.slow
def test_it_begins_with_any_source(sources: list[Path], finished: Path, tmp_path: Path) -> None:
    """The documents that a run collected, as the text of a table of metadata: the chain ends with the same ones."""
    documents = [pq.read_table(file) for file in sorted((finished / "collect").glob("documents-*"))]
    named = pa.concat_tables(documents).select(["repository", "path", "bytes"])
    (tmp_path / "metadata").mkdir()
    pq.write_table(
        named.rename_columns(["repo_name", "sub_path", "file_size_in_byte"]), tmp_path / "metadata" / "m.parquet"
    )
    run([], tmp_path / "run", f"--metadata={tmp_path / 'metadata'}", f"--corpus={finished / 'collect'}")
    first = json.loads((tmp_path / "run" / "refinecode.json").read_text())["stages"][0]
    assert (first["directory"], first["stage"]) == ("collect", "join_metadata")
    assert first["tally"]["count"]["left in the corpus"] == 0
    for name in (file.relative_to(finished) for file in (finished / "sample").glob("documents-*")):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_a_chain_begins_with_the_source_whose_inputs_are_given() -> None:
    none: dict[str, list[str]] = {name: [] for source in SOURCES for name in VERBS[source].inputs}
    assert chosen_source(none) == ("collect", {})
    for source in SOURCES:
        inputs = {name: [f"a_{name}"] for name in VERBS[source].inputs}
        assert chosen_source(none | inputs) == (source, inputs)
        first, *rest = steps("out", [], source, inputs)
        assert (first.verb, first.output, first.inputs) == (
            source,
            "out/collect",
            tuple(f"a_{name}" for name in inputs),
        )
        assert [step.name for step in rest] == STAGES[1:]
    with pytest.raises(UserError, match="--folders and --tables: a chain begins with one source"):
        chosen_source(none | {"folders": ["a"], "tables": ["b"]})
    sources = {verb for verb, row in VERBS.items() if ".sources." in row.module} - {
        "conversations"
    }  # chats are no code
    assert set(SOURCES) == sources


@pytest.mark.slow
def test_another_threshold_measures_nothing_again(sources: list[Path], finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    errors = run(sources, tmp_path / "run", "--gin.FilterConfig.seed=7")
    assert "signals: up to date" in errors
    assert "filter: up to date" not in errors


def test_after_an_edit_only_what_can_have_changed_runs_again(
    sources: list[Path], finished: Path, tmp_path: Path
) -> None:
    """A copy of the project is edited: a comment, a blank line, a new configuration; then a threshold."""
    project, output = tmp_path / "project", tmp_path / "run"
    for folder in ("opencoder_jax", "beam_pipelines", "kernels", "gin_configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, project / folder, symlinks=True, ignore=ignored)
    shutil.copytree(finished, output)

    def edit(file: str, old: str, new: str) -> None:
        path = project / "beam_pipelines" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    def ran() -> list[str]:
        done = subprocess.run(
            command(sources, output),
            cwd=project,
            env=os.environ | {"PYTHONPATH": str(project)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        again = re.findall(r"^(\w+): runs again: (.*)$", done.stderr, re.MULTILINE)
        assert len(again) + done.stderr.count("up to date") >= len(STAGES)
        return [f"{name}: {why}" for name, why in again]

    assert ran() == []
    edit("redaction/secrets.json", "{", "{\n\n")
    edit("core/documents.py", "\nimport ", "\n# A comment.\nimport ")
    edit("redaction/redact.py", '"""', '"""Edited. ')
    (project / "opencoder_jax" / "another.py").write_text(
        "from dataclasses import dataclass\n\nfrom opencoder_jax.recipe import configurable\n\n\n"
        "@configurable\n@dataclass(frozen=True)\nclass AnotherConfig:\n    size: int = 1  # of it\n"
    )
    assert ran() == []
    edit("filtering/thresholds/fixed/others.toml", "above = 0.1", "above = 0.2")
    (first, *others) = ran()
    assert first.startswith("filter: rules.")
    assert all(line == "sample: input 1 changed" for line in others)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folders=/nowhere"], "/nowhere"),
        (["--fodlers=here"], "unknown argument --fodlers=here; did you mean --folders?"),
        (["--gin.FilterConfig.profil=x"], "profile"),
        (["--runner=NoRunner"], "NoRunner"),
        (["--tables=here"], "a chain begins with one source"),
        (["--folder=here"], "unknown argument --folder"),
    ],
)
def test_a_mistake_is_one_line(flags: list[str], message: str, sources: list[Path], tmp_path: Path) -> None:
    given = [] if flags[0].startswith("--folders=") else sources[:1]
    done = subprocess.run(command(given, tmp_path / "run", flags), capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_killed_at_twenty_moments_it_ends_the_same(sources: list[Path], finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    kill_often(command(sources, output, ["--direct_num_workers=2"]), output, kills=20)
    assert content(output) == content(finished)


def reachable(port: int, process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
    return False


@contextlib.contextmanager
def prism_cluster(folder: Path) -> Iterator[list[str]]:
    """Beam's Prism, and a pool that starts worker processes when it asks for them: the flags to use them."""
    prism = shutil.which("prism")
    if prism is None:
        pytest.skip("needs Beam's prism: go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0")
    job_port, pool_port = free_port(), free_port()
    server = [prism, f"--job_port={job_port}", "--serve_http=false"]
    # The pool starts `python`.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={pool_port}"]
    started = []
    with open(folder / "cluster.log", "wb") as log:
        try:
            for name, port in ((server, job_port), (pool, pool_port)):
                started.append(subprocess.Popen(name, stdout=log, stderr=log, env=environment, start_new_session=True))
                assert reachable(port, started[-1]), (folder / "cluster.log").read_text()[-2000:]
            yield [
                "--runner=PortableRunner",
                f"--job_endpoint=localhost:{job_port}",
                "--environment_type=EXTERNAL",
                f"--environment_config=localhost:{pool_port}",
                "--parallelism=2",
            ]
        finally:
            for process in started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [prism_cluster, flink_cluster])
def test_a_portable_runner_gives_the_same_bytes(
    cluster: Callable[[Path], contextlib.AbstractContextManager[list[str]]],
    sources: list[Path],
    finished: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as flags:
        run(sources, tmp_path / "run", *flags)
    assert content(tmp_path / "run") == content(finished)
