"""What a job sends to its workers: by reference what they import, and no path of the machine that submits it."""

import base64
import bz2
import pickletools
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.runner import PipelineResult, PipelineState
from pyarrow import fs

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.stores import systems
from opencoder_jax.beam_pipelines.sources import inputs
from opencoder_jax.recipe import ROOT, UserError

BUCKET = "gs://bucket"
FLAGS = ["--project=some-project", "--region=us-central1", "--temp_location=gs://bucket/temp", "--dry_run=True"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that stands behind gs://bucket on the machine that submits."""
    monkeypatch.setattr(systems, "_bucket", lambda scheme, name: (fs.LocalFileSystem(), f"{tmp_path}/{name}"))
    return tmp_path / "bucket"


@pytest.fixture
def prepared(bucket: Path, batch: Callable[..., pa.RecordBatch], stage_directory: Callable[..., str]) -> str:
    """Documents and their signals in the bucket, as finished stages."""
    documents = [[batch("import os\n\nprint(os.name)\n" * 20)], [batch({"text": "x = 1\n" * 20, "path": "other.py"})]]
    stage_directory(bucket / "documents", documents)
    (bucket / "metadata").mkdir()
    pq.write_table(pa.table({"repo_name": ["here"], "sub_path": ["0.py"]}), bucket / "metadata" / "part.parquet")
    main(["signals", f"--documents={BUCKET}/documents", f"--output={BUCKET}/signals"])
    return BUCKET


def payloads(graph: beam_runner_api_pb2.Pipeline) -> Iterator[bytes]:
    """The serialised functions of a pipeline, unpacked."""
    for transform in graph.components.transforms.values():
        raw = transform.spec.payload
        yield raw
        for message in (beam_runner_api_pb2.ParDoPayload(), beam_runner_api_pb2.CombinePayload()):
            try:
                message.ParseFromString(raw)
            except Exception:
                continue
            spec: Any = message.do_fn if hasattr(message, "do_fn") else message.combine_fn
            for unpack in (bz2.decompress, zlib.decompress):
                try:
                    yield unpack(base64.b64decode(spec.payload))
                except (ValueError, OSError, zlib.error, EOFError):
                    continue


STAGES = {
    "join_metadata": ["corpus=documents", "metadata=metadata"],
    "exact_duplicates": ["documents=documents"],
    "near_duplicates": ["documents=documents"],
    "redact": ["documents=documents"],
    "signals": ["documents=documents"],
    "filter": ["documents=documents", "signals=signals"],
    "sample": ["documents=documents"],
}


def flags_of(verb: str, prepared: str) -> list[str]:
    given = (flag.split("=") for flag in STAGES[verb])
    return [*(f"--{name}={prepared}/{place}" for name, place in given), f"--output={prepared}/out"]


def check(graph: beam_runner_api_pb2.Pipeline, bucket: Path) -> None:
    unpacked = list(payloads(graph))
    assert any(b"gs://bucket" in payload for payload in unpacked), "nothing was unpacked that names the data"
    # Beam's own small functions travel by value, with the name of their file for tracebacks.
    library = str(Path(beam.__file__).parent).encode()
    whole = b"\n".join([graph.SerializeToString(), *unpacked]).replace(library, b"")
    for place in {str(ROOT), str(Path.cwd()), str(Path.home()), sys.prefix, str(bucket)} - {"/"}:
        assert place.encode() + b"/" not in whole, f"the job names {place}"
    modules = {argument for payload in unpacked for argument in _modules(payload)}
    assert not any(module == "__main__" for module in modules)


def _modules(payload: bytes) -> list[str]:
    """The strings of a pickle, among them the modules that it refers to."""
    try:
        return [str(argument) for _, argument, _ in pickletools.genops(payload) if isinstance(argument, str)]
    except Exception:
        return []


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[beam_runner_api_pb2.Pipeline]:
    """The pipelines of this test, none of which runs."""
    graphs: list[beam_runner_api_pb2.Pipeline] = []

    def record(self: beam.Pipeline, test_runner_api: str = "AUTO") -> PipelineResult:
        graphs.append(self.to_runner_api())
        result = PipelineResult(PipelineState.DONE)
        monkeypatch.setattr(result, "wait_until_finish", lambda duration=None: None, raising=False)
        return result

    monkeypatch.setattr(beam.Pipeline, "run", record)
    return graphs


@pytest.mark.parametrize("verb", STAGES)
def test_a_job_names_no_place_of_this_machine(
    verb: str, bucket: Path, prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = recorded(monkeypatch)
    with pytest.raises(UserError, match=r"(\d) of \1 shards weren't written"):
        main([verb, *flags_of(verb, prepared)])
    assert graphs
    for graph in graphs:
        check(graph, bucket)


@pytest.mark.parametrize(("verb", "flag"), [("collect", "folders"), ("archives", "archives")])
def test_a_job_that_lists_names_no_place_of_this_machine(
    verb: str, flag: str, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bucket / "in/repository").mkdir(parents=True)
    for name in ("a.py", "b.zip"):
        (bucket / "in/repository" / name).write_text("x = 1\n")
    graphs = recorded(monkeypatch)
    runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    with pytest.raises(UserError, match=r"gs://bucket/out/listing/.*: the input wasn't listed"):
        main([verb, f"--{flag}={BUCKET}/in", f"--output={BUCKET}/out", f"--runner={runner}"])
    [graph] = graphs
    check(graph, bucket)


@pytest.mark.parametrize("verb", STAGES)
def test_dataflow_builds_its_job_without_a_cloud(
    verb: str, bucket: Path, prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beam's own Dataflow runner, up to the point where it would submit; needs `pip install 'apache-beam[gcp]'`."""
    pytest.importorskip("google.cloud.dataflow", reason="needs apache-beam[gcp]")
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

    # Their files are known by their content here, as the bucket is a folder, which would be the workers' to find.
    monkeypatch.setattr(inputs, "looked_at", lambda look, units, *_: [look(unit) for unit in units])
    runners = []
    real = DataflowRunner.run_pipeline

    def record(self: DataflowRunner, *arguments: Any, **named: Any) -> Any:
        runners.append(self)
        return real(self, *arguments, **named)

    monkeypatch.setattr(DataflowRunner, "run_pipeline", record)
    with pytest.raises(UserError, match=r"(\d) of \1 shards weren't written"):
        main([verb, *flags_of(verb, prepared), "--runner=DataflowRunner", *FLAGS])
    assert runners
    for runner in runners:
        check(runner.proto_pipeline, bucket)
        assert runner.job.proto.name
