"""Listing and collecting folders of a disk, of S3 and of Google storage: files a second.

Run: python -m tests.benchmarks.bucket_sources [--files=2000]     (after `make emulators`)

The buckets are servers on this machine: their answers take its processors, not a network's time. The files are small,
20 a repository; a bucket's are read 16 at a time. Output and input lie in the same place; the times are the clock's.
"""

import argparse
import tempfile
import time
from contextlib import ExitStack

import pytest

from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.collect import CollectConfig, run
from opencoder_jax.beam_pipelines.sources.listing.folders import Root
from opencoder_jax.beam_pipelines.sources.listing.listings import list_files
from tests.beam_pipelines.buckets import SCHEMES, bucket


def measure(place: str, files: int) -> str:
    """Files a second that are listed, and collected as a whole."""
    folder = Directory(f"{place}/in")
    for number in range(files):
        content = f"def function_{number}():\n    return {number}\n" * 20
        folder.write_bytes(f"repository_{number // 20}/module_{number}.py", content.encode())
    began = time.monotonic()
    list_files([Root(folder.uri, "in")], 1_000_000)
    listed = time.monotonic() - began
    run(folders=[folder.uri], output=f"{place}/out", config=CollectConfig(), options=BeamOptions())
    return f"{files / listed:10,.0f} listed/s {files / (time.monotonic() - began - listed):10,.0f} collected/s"


def main() -> None:
    """Prints a line for the disk and for each server that is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as scratch:
        print(f"disk {measure(scratch, files)}", flush=True)
    for scheme in SCHEMES:
        with ExitStack() as server:
            try:
                address, _ = server.enter_context(bucket(scheme))
            except pytest.skip.Exception as missing:
                print(f"{scheme}   {missing}")
                continue
            print(f"{scheme}   {measure(address, files)}", flush=True)


if __name__ == "__main__":
    main()
