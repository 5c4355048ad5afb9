"""What the TPU compiler scheduled for a kernel: cycles, use of each unit and spills, body by body. Needs no TPU.

    python -m opencoder_jax.kernels.schedule MODULE:FUNCTION '{"chip": "v5e"}' --kernel=attention

FUNCTION, called with the JSON object's fields, returns a function and its abstract arguments, whose shardings name the
devices to compile for. The compiler's dump is asked for by an environment variable that libtpu reads when jax starts,
so `schedules` runs this command in a process of its own.

A body is a stretch of code between two points where control can enter or leave; how often each runs isn't in the dump.
Cycles are those of the compiler's last listing with an entry for every cycle: the "final" one folds empty cycles into
delays and is shorter by up to a fifth. An estimate, not a measurement: it knows nothing of waiting for memory.
"""

import argparse
import glob
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
MATRIX, SPILLS = "MATMUL", "VSTORE:SPILL"


@dataclass(frozen=True)
class Body:
    """A stretch of straight code, in the order of the program."""

    cycles: int
    used: dict[str, int]  # slots by unit
    capacity: dict[str, int]  # slots a cycle

    def fill(self, unit: str = MATRIX) -> float:
        """The share of a unit's slots that are used."""
        return self.used[unit] / (self.cycles * self.capacity[unit])


@dataclass(frozen=True)
class Schedule:
    """A compiled kernel."""

    kernel: str
    bodies: tuple[Body, ...]

    @property
    def cycles(self) -> int:
        return sum(body.cycles for body in self.bodies)

    def products(self) -> list[Body]:
        """The bodies that multiply matrices."""
        return [body for body in self.bodies if body.used[MATRIX]]


def schedules(
    target: str, arguments: Mapping[str, Any], kernel: str = "", python: str = sys.executable
) -> list[Schedule]:
    """Compiles what `target` ("module:function") returns for `arguments`, and reads the schedules of its kernels.

    Args:
        kernel: a part of the kernels' names; only those are read.
        python: the interpreter to compile in; it needs jax and libtpu, and this project's root is put on its path.

    Raises:
        RuntimeError: it doesn't compile; the message ends with the compiler's.
    """
    root = Path(__file__).parents[2]  # of the import name, which reaches this file through a link in a checkout
    command = [python, "-m", "opencoder_jax.kernels.schedule", target, json.dumps(arguments)]
    command += [f"--kernel={kernel}", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{target} {dict(arguments)} doesn't compile: {done.stderr.strip()[-800:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return [Schedule(each["kernel"], tuple(Body(**body) for body in each["bodies"])) for each in found]


def read(dump: Path, kernel: str = "") -> list[Schedule]:
    """The schedules in a folder of the compiler's dumps, in the order of compiling."""
    found = []
    for table in sorted(dump.glob("*-pre-delay_hlo-static-per-bundle-utilization.txt")):
        stem = re.sub(r"-\d+-pre-delay_hlo.*", "", table.name)
        name = stem.partition("-")[2]  # after the module's number
        listings = dump.glob(f"{glob.escape(stem)}-*-packed-bundles-post-ra.txt")
        listing = next((path for path in listings if "schedule-analysis" not in path.name), None)
        if listing and kernel in name and not name.startswith(("<", "TLP")):
            found.append(Schedule(name, _bodies(table.read_text(), listing.read_text())))
    return found


def _bodies(table: str, listing: str) -> tuple[Body, ...]:
    head, rows = table.split("== UTILIZATION:\n")
    names, sizes = head.splitlines()[1:3]
    units = [name.strip() for name in names.split(",")]
    capacity = dict(zip(units, map(int, sizes.split()), strict=True))
    used = [list(map(int, row.split())) for row in rows.splitlines() if row.strip()]
    cuts, cycle = {0, len(used)}, 0
    for line in listing.splitlines():
        if entry := re.match(r" *(0x[0-9a-f]+|0) +(\w\w)?[^{]*\{", line):
            cycle = int(entry[1], 16)
            if entry[2]:
                cuts.add(cycle)
        if "sbr.rel" in line:
            cuts.add(cycle + 1)
    edges = sorted(cut for cut in cuts if cut <= len(used))
    return tuple(
        Body(end - start, dict(zip(units, map(sum, zip(*used[start:end], strict=True)), strict=True)), capacity)
        for start, end in pairwise(edges)
    )


def printed(schedule: Schedule, least: int = 100) -> str:
    """A table of the bodies of at least so many cycles."""
    lines = [f"{schedule.kernel}: {schedule.cycles:,} cycles if each body ran once", "  cycles  matrix  vector  spills"]
    lines += [
        f"  {body.cycles:6,}  {body.fill():6.2f}  {body.fill('VALU'):6.2f}  {body.used[SPILLS]:6,}"
        for body in schedule.bodies
        if body.cycles >= least
    ]
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="MODULE:FUNCTION that returns a function and its abstract arguments")
    parser.add_argument("arguments", nargs="?", default="{}", help="a JSON object: FUNCTION's arguments")
    parser.add_argument("--kernel", default="", help="a part of the names of the kernels to print")
    parser.add_argument("--json", action="store_true", help="everything, on one line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as dump:
        os.environ.update(ENVIRONMENT)
        flags = f"--xla_jf_dump_to={dump} --xla_jf_dump_hlo_text=true --xla_jf_dump_llo_text=true"
        os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {flags}"
        jax = importlib.import_module("jax")  # only now: libtpu reads the flags once
        module, function = options.target.split(":")
        compute, abstract = getattr(importlib.import_module(module), function)(**json.loads(options.arguments))
        jax.jit(compute).lower(*abstract).compile()
        found = read(Path(dump), options.kernel)
    if options.json:
        print(json.dumps([asdict(schedule) for schedule in found]))
    else:
        print("\n".join(map(printed, found)) or "no kernel of that name was compiled")


if __name__ == "__main__":
    main()
