"""What one archive more costs: processor seconds of the chain on many archives, on one more, and of all from scratch.

    python -m tests.benchmarks.adding --archives=1000 --files=20

The archives hold Python files that lie on this machine. Bytes after the addition are compared with those from scratch.
"""

import argparse
import resource
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from pathlib import Path

from opencoder_jax.beam_pipelines.core.manifest import digest
from opencoder_jax.beam_pipelines.core.storage import Directory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--archives", type=int, default=1000)
    parser.add_argument("--files", type=int, default=20, help="in each archive")
    parser.add_argument("--source", action="append", type=Path, help="folders of files; this Python's by default")
    flags = parser.parse_args()
    folders = flags.source or [Path(sysconfig.get_paths()[name]) for name in ("purelib", "stdlib")]
    files = sorted(
        {path for folder in folders for path in folder.rglob("*.py") if 1_000 < path.stat().st_size < 100_000}
    )
    needed = (flags.archives + 1) * flags.files
    if len(files) < needed:
        sys.exit(
            f"{len(files)} files are there and {needed} needed: give more --source, or fewer --archives or --files"
        )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for number in range(flags.archives):
            write_archive(place, number, files[number * flags.files :][: flags.files])
        first = run(place, "out")
        write_archive(place, flags.archives, files[flags.archives * flags.files :][: flags.files])
        added = run(place, "out")
        anew = run(place, "anew")
        megabytes = sum(path.stat().st_size for path in files[:needed]) / 1e6
        print(f"{flags.archives} archives of {flags.files} files, {megabytes:.0f} MB: {first:.1f} s of a processor")
        print(f"one more: {added:.1f} s, {added / anew:.1%} of {anew:.1f} s from scratch")
        print("same bytes" if contents(place / "out") == contents(place / "anew") else "OTHER BYTES")


def write_archive(place: Path, number: int, files: list[Path]) -> None:
    (place / "in").mkdir(exist_ok=True)
    with tarfile.open(place / "in" / f"{number:05d}.tar", "w") as archive:
        for index, file in enumerate(files):
            archive.add(file, f"{index}_{file.name}")


def run(place: Path, output: str) -> float:
    """Processor seconds of the chain, in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [sys.executable, "-m", "opencoder_jax.beam_pipelines", "refinecode", f"--archives={place / 'in'}"]
    command += [f"--output={place / output}", "--direct_num_workers=1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{output}: {took:.1f} s of a processor, {time.perf_counter() - began:.0f} s", flush=True)
    return took


def contents(run: Path) -> dict[str, str]:
    """The digest of every shard."""
    return {
        str(file.relative_to(run)): digest(Directory(str(file.parent)), file.name) for file in run.rglob("*.parquet")
    }


if __name__ == "__main__":
    main()
