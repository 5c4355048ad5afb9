"""A bad day on a cluster is one line: a job server that is away or dies, a lost job, a worker of another version."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.portability.api import beam_job_api_pb2_grpc

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.manifest import PLAN
from opencoder_jax.beam_pipelines.core.maps import MapShard, Result
from opencoder_jax.beam_pipelines.core.runner import SameVersion
from opencoder_jax.beam_pipelines.core.stage import OfPlan, report_shard
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import TryAgain, UserError

JAVA = "java.lang.IllegalStateException: the worker 7 was lost\n\tat org.apache.flink.Whatever(Whatever.java:1)"
PYTHON = (
    "java.lang.RuntimeError: Error received from SDK harness for instruction 5: Traceback (most recent call last):\n"
    "  File \"worker.py\", line 1, in process\n    raise\n{} [while running 'redact']\n\n\tat org.apache.beam.X"
)


class JobServer(beam_job_api_pb2_grpc.JobServiceServicer):
    """Takes a job and ends it with an error, or in the middle of a word."""

    def __init__(self, error: str | None) -> None:
        self.error = error
        self.cancelled = False

    def DescribePipelineOptions(self, request: Any, context: Any) -> Any:
        return api.DescribePipelineOptionsResponse()

    def Prepare(self, request: Any, context: Any) -> Any:
        return api.PrepareJobResponse(preparation_id="job")

    def Run(self, request: Any, context: Any) -> Any:
        return api.RunJobResponse(job_id="job")

    def GetStateStream(self, request: Any, context: Any) -> Iterator[Any]:
        yield api.JobStateEvent(state=api.JobState.RUNNING)
        if self.error is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        yield api.JobStateEvent(state=api.JobState.FAILED)

    def GetMessageStream(self, request: Any, context: Any) -> Iterator[Any]:
        message = api.JobMessage(importance=api.JobMessage.JOB_MESSAGE_ERROR, message_text=self.error or "")
        yield api.JobMessagesResponse(message_response=message)

    def Cancel(self, request: Any, context: Any) -> Any:
        self.cancelled = True
        return api.CancelJobResponse(state=api.JobState.CANCELLED)


@contextmanager
def job_server(error: str | None) -> Iterator[tuple[JobServer, list[str]]]:
    server, servicer = grpc.server(ThreadPoolExecutor(8)), JobServer(error)
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield servicer, flags(port)
    finally:
        server.stop(None).wait()


def flags(port: int) -> list[str]:
    return ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}", "--environment_type=LOOPBACK"]


@pytest.fixture
def source(tmp_path: Path, batch: Callable[..., pa.RecordBatch], stage_directory: Callable[..., str]) -> str:
    return stage_directory(tmp_path / "source", [[batch("a = 1\n")]])


def redact(source: str, tmp_path: Path, *flags: str) -> None:
    main(["redact", f"--documents={source}", f"--output={tmp_path / 'out'}", *flags])


def test_a_job_server_that_is_away_is_told_in_time(source: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}: no job server answers .*start it"):
        redact(source, tmp_path, *flags(port), "--job_server_timeout=1")
    with pytest.raises(UserError, match="write HOST:PORT"):
        redact(source, tmp_path, "--runner=PortableRunner", "--job_endpoint=localhost")


def test_a_port_of_something_else_is_no_job_server(source: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(UserError, match="doesn't answer as one"):
        redact(source, tmp_path, *flags(other.getsockname()[1]), "--job_server_timeout=2")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (None, TryAgain, r"^the job server went away \(Socket closed\); start it and run the same command again$"),
        (
            JAVA,
            TryAgain,
            r"^the cluster ended the job \(.*the worker 7 was lost.*\); the same command goes on from here$",
        ),
        (PYTHON.format("opencoder_jax.recipe.UserError: file:7: bad"), UserError, "^redact: file:7: bad$"),
        (PYTHON.format("ModuleNotFoundError: No module named 'opencoder_jax'"), UserError, "a worker hasn't this proj"),
        (PYTHON.format("KeyError: 'ours'"), RuntimeError, "KeyError: 'ours'"),
    ],
)
def test_how_a_job_ends(
    source: str,
    tmp_path: Path,
    error: str | None,
    kind: type[Exception],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with job_server(error) as (server, server_flags):
        with pytest.raises(kind, match=message):
            redact(source, tmp_path, *server_flags)
        assert server.cancelled
    assert "Traceback" not in capfd.readouterr().err
    redact(source, tmp_path)  # nothing is in the way of the same command


def test_a_worker_of_another_version_is_refused() -> None:
    step = SameVersion(MapShard(Result, [], [], [], "out", "documents"))
    step.setup()
    step.wanted["pyarrow"] = "0.1"
    step.wanted["opencoder_jax.beam_pipelines.core.maps"] = "another"
    with pytest.raises(UserError, match=r"^worker .*: opencoder_jax.beam_pipelines.core.maps, pyarrow differ from the"):
        step.setup()


def test_a_step_for_workers_does_what_the_step_does() -> None:
    class Twice(beam.DoFn):
        def setup(self) -> None:
            self.ready = 2

        def process(self, element: int) -> Iterator[int]:
            yield element * self.ready

    found: list[int] = []
    SameVersion._here, real = (lambda self: {}), SameVersion._here  # type: ignore[method-assign]
    try:
        step = SameVersion(Twice())
        step.setup()
        found += step.process(21)
    finally:
        SameVersion._here = real  # type: ignore[method-assign]
    assert found == [42]


class Report(beam.DoFn):
    """Reports a shard; a recipe of other length begins anew before that, where one is given."""

    def __init__(self, directory: Directory, other: str = "") -> None:
        super().__init__()
        self.directory = directory
        self.other = other

    def process(self, shard: int) -> Iterator[int]:
        if self.other:
            self.directory.write_json(PLAN, {"config": self.other})
        report_shard(self.directory, shard, {}, [])
        yield shard


def test_a_job_whose_submitter_is_gone_reports_nothing_into_another_plan(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path))
    directory.write_json(PLAN, {"config": "first"})
    job, late = OfPlan(Report(directory), directory), OfPlan(Report(directory, "the second"), directory)
    assert job.process(0) == [0]
    for step, shard in ((late, 1), (job, 2)):
        with pytest.raises(UserError, match="another command has begun there anew, or finished"):
            step.process(shard)
    assert directory.child("reports").names() == ["00000.json"]
    assert OfPlan(Report(directory), directory).process(3) == [3]
    assert list(Report(directory, "a third, on this machine").process(4)) == [4]  # it ends with its submitter
