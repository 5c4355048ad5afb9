"""A Flink cluster of two workers, each a process of its own, and Beam's job server for it, all on this machine.

Beam's Flink runner brings Flink along. Its classpath is the variable BEAM_FLINK_CLASSPATH; Maven finds it:

    mvn -q dependency:build-classpath -f tests/beam_pipelines/flink.xml -Dmdep.outputFile=classpath.txt
    BEAM_FLINK_CLASSPATH=$(cat classpath.txt) python -m pytest -m slow tests/beam_pipelines/test_refinecode.py -k flink
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencoder_jax.recipe import ROOT

WORKERS = 2

# Flink 1.15 is older than Java's modules are strict.
OPENED = [
    "lang",
    "lang.reflect",
    "util",
    "util.concurrent",
    "util.concurrent.atomic",
    "nio",
    "net",
    "io",
    "time",
    "text",
]
JAVA = [
    "java",
    "-Xmx640m",
    "-XX:MaxDirectMemorySize=256m",
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED),
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
]

# A worker's processes for Python: Flink's worker starts one, which asks it where to connect.
BOOT = """#!{python}
import sys

sys.path.insert(0, {root!r})
import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from apache_beam.runners.worker.sdk_worker import SdkHarness

flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
with grpc.insecure_channel(flags["provision_endpoint"]) as channel:
    provision = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
    request = beam_provision_api_pb2.GetProvisionInfoRequest()
    info = provision.GetProvisionInfo(request, metadata=[("worker_id", flags["id"])]).info
SdkHarness(info.control_endpoint.url, worker_id=flags["id"]).run()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(rest: int, rpc: int, temporary: Path) -> dict[str, object]:
    """What the manager and the workers read; Flink's own scripts would work out the sizes."""
    sizes = {"task.heap": 384, "task.off-heap": 0, "framework.heap": 128, "framework.off-heap": 128, "managed": 128}
    memory = {f"taskmanager.memory.{name}.size": f"{size}m" for name, size in sizes.items()}
    for name, size in {"network": 64, "jvm-overhead": 192}.items():
        memory |= {f"taskmanager.memory.{name}.{end}": f"{size}m" for end in ("min", "max")}
    return {
        "jobmanager.rpc.address": "localhost",
        "jobmanager.rpc.port": rpc,
        "jobmanager.memory.process.size": "1024m",
        "rest.address": "localhost",
        "rest.port": rest,
        "taskmanager.host": "localhost",
        "taskmanager.numberOfTaskSlots": 1,
        "taskmanager.cpu.cores": 1.0,
        "taskmanager.memory.jvm-metaspace.size": "256m",
        "parallelism.default": WORKERS,
        "io.tmp.dirs": temporary,
        **memory,
    }


@contextlib.contextmanager
def flink_cluster(folder: Path) -> Iterator[list[str]]:
    """Starts everything in a folder, yields the flags of a pipeline, and ends everything."""
    classpath = os.environ.get("BEAM_FLINK_CLASSPATH")
    if not classpath or not shutil.which("java"):
        pytest.skip("needs java, and BEAM_FLINK_CLASSPATH: see flink_cluster.py")
    rest, rpc, job = free_port(), free_port(), free_port()
    (folder / "temporary").mkdir()
    lines = [f"{name}: {value}" for name, value in configuration(rest, rpc, folder / "temporary").items()]
    (folder / "flink-conf.yaml").write_text("\n".join(lines) + "\n")
    boot = folder / "boot"
    boot.write_text(BOOT.format(python=sys.executable, root=str(ROOT)))
    boot.chmod(0o755)

    configured = ["--configDir", str(folder)]
    served = [f"--job-port={job}", "--artifact-port=0", "--expansion-port=0", f"--flink-master=localhost:{rest}"]
    mains = [
        ["org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint", *configured],
        *[["org.apache.flink.runtime.taskexecutor.TaskManagerRunner", *configured]] * WORKERS,
        ["org.apache.beam.runners.flink.FlinkJobServerDriver", *served],
    ]
    started = []
    with open(folder / "cluster.log", "wb") as log:
        try:
            for main in mains:
                command = [*JAVA, "-cp", classpath, *main]
                started.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
            wait_for_workers(rest, job, started, folder / "cluster.log")
            yield [
                "--runner=PortableRunner",
                f"--job_endpoint=localhost:{job}",
                "--environment_type=PROCESS",
                f"--environment_config={json.dumps({'command': str(boot)})}",
                f"--parallelism={WORKERS}",
            ]
        finally:
            for process in started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for_workers(rest: int, job: int, started: "list[subprocess.Popen[bytes]]", log: Path) -> None:
    """Returns once every worker has signed on and the job server listens."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and all(process.poll() is None for process in started):
        with contextlib.suppress(OSError, ValueError):
            overview = json.load(direct.open(f"http://localhost:{rest}/overview", timeout=5))
            if overview["taskmanagers"] == WORKERS:
                socket.create_connection(("localhost", job), 1).close()
                return
        time.sleep(0.5)
    pytest.fail(f"no cluster: {log.read_text(errors='replace')[-3000:]}")
