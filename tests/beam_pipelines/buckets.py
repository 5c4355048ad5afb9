"""Buckets on this machine: servers that speak as S3 and Google's storage do, on loopback.

`make emulators` installs moto's server and fake-gcs-server where they are looked for; `S3_EMULATOR` and `GCS_EMULATOR`
name other executables. What is in their buckets is gone with them.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest
from pyarrow import fs

from opencoder_jax.beam_pipelines.core.stores import google, systems
from opencoder_jax.recipe import ROOT

SCHEMES = ("s3", "gs")
_SERVERS = {"s3": ("S3_EMULATOR", "moto_server"), "gs": ("GCS_EMULATOR", "fake-gcs-server")}


@contextlib.contextmanager
def bucket(scheme: str) -> Iterator[tuple[str, dict[str, str]]]:
    """An empty bucket: its address, and the environment in which it's found, which this process has too."""
    variable, name = _SERVERS[scheme]
    program = os.environ.get(variable) or shutil.which(name, path=ROOT / ".emulators/bin")
    if not program:
        pytest.skip(f"needs {name}: make emulators, or name it by {variable}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = f"http://127.0.0.1:{port}"
    if scheme == "s3":
        flags = [f"--port={port}", "--host=127.0.0.1"]
        environment = {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        environment |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        made = urllib.request.Request(f"{server}/bucket", method="PUT")
    else:
        flags = [
            f"-port={port}",
            "-host=127.0.0.1",
            "-scheme=http",
            "-backend=memory",
            f"-public-host=127.0.0.1:{port}",
        ]
        environment = {"STORAGE_EMULATOR_HOST": server}
        made = urllib.request.Request(f"{server}/storage/v1/b?project=any", b'{"name": "bucket"}')
        made.add_header("Content-Type", "application/json")
    process = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        systems._bucket.cache_clear()  # connections to another test's server
        google._client.cache_clear()
        try:
            _answered(process, made)
            yield f"{scheme}://bucket", environment
        finally:
            process.kill()
            process.wait()


def _answered(process: "subprocess.Popen[bytes]", request: urllib.request.Request) -> None:
    """Asks until the server has started."""
    until = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(request).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def objects(uri: str) -> dict[str, bytes]:
    """What lies below an address: the content of each object by its path from there."""
    system, root = fs.FileSystem.from_uri(uri) if uri.startswith("s3") else _google(uri)
    found = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    files = [info.path for info in found if info.type == fs.FileType.File]
    return {path.removeprefix(f"{root}/"): system.open_input_file(path).read() for path in files}


def _google(uri: str) -> tuple[fs.FileSystem, str]:
    host = os.environ["STORAGE_EMULATOR_HOST"].removeprefix("http://")
    return fs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=host), uri.removeprefix("gs://")
