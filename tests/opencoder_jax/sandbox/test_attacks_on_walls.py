"""No program out of `attacks/walls.py` gets out of the walls, or more than the limits: also where walls are missing."""

import json
import os
import platform
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opencoder_jax.sandbox.pool import Sandbox

ROOT = Path(__file__).resolve().parents[3]
WALLS = Path(__file__).parent / "attacks/walls.py"
_FILE: dict[str, Any] = runpy.run_path(str(WALLS))
ATTACKS: dict[str, str] = _FILE["ATTACKS"]
FINDS: dict[str, tuple[str, tuple[str, ...]]] = _FILE["FINDS"]
LOST: dict[str, set[str]] = _FILE["LOST"]
_PROJECT = ROOT / "opencoder_jax/sandbox/pool.py"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of calls are those of x86-64")

# How a machine comes to lack a layer: statements of the process that starts the sandbox.
_REFUSED = """
from opencoder_jax.sandbox import pool
pool._START = (
    "import sys; sys.path.insert(0, sys.argv[1])\\nfrom opencoder_jax.sandbox import _linux\\n"
    "def refuse(*_, **__): raise OSError(38, 'refused')\\n_linux.{function} = refuse\\n"
    "from opencoder_jax.sandbox._zygote import main; main(*sys.argv[1:])"
)
"""
CONFIGURATIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {  # statements, a layer that is missing, `without`
    "full": ("", "", ()),
    "no namespaces": (
        """
from opencoder_jax.sandbox import _linux
user, group = os.getuid(), os.getgid()
_linux.unshare(_linux.NEW_USER)
for file, line in ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1"):
    Path("/proc/self", file).write_text(line)
for kind in "user", "net", "ipc", "mnt", "pid":
    Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
""",
        "user namespace",
        (),
    ),
    "no landlock": (_REFUSED.format(function="landlock_rules"), "landlock", ("landlock",)),
    "no seccomp": (_REFUSED.format(function="seccomp"), "seccomp", ("seccomp",)),
}
_RUN = """
import json, os, runpy, subprocess, sys
from pathlib import Path
{prepare}
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits
walls = runpy.run_path(sys.argv[1])
victim = subprocess.Popen(["/bin/sleep", "100"])
limits = Limits(cpu_seconds=2, idle_seconds=1, memory_bytes=256 << 20)
try:
    with Sandbox(limits, without={without!r}) as sandbox:
        base = Path(sandbox._zygotes[0]._directory)
        path = base / "marker"
        path.write_text("unchanged")
        def look():
            state, shown = path.stat(), path.read_text()
            return shown, state.st_mode, state.st_uid, state.st_mtime_ns, state.st_ctime_ns, os.listxattr(path)
        before = look()
        head = f"PATH, PARENT, PROJECT = {{str(path)!r}}, {{victim.pid}}, {{sys.argv[2]!r}}\\n" + walls["HELP"]
        ends, changed = {{}}, {{}}
        for name, source in walls["ATTACKS"].items():
            outcome = sandbox.run(head + source)
            ends[name] = [outcome.status, outcome.error, outcome.stderr[-300:] + outcome.stdout[-300:]]
            left = sorted(entry for entry in os.listdir(base) if entry != "marker" and not entry.isdigit())
            if left or not path.exists() or look() != before:
                changed[name] = [left, look() if path.exists() else None]
                for entry in left:
                    own = base / entry  # in the sandbox's own directory
                    own.rmdir() if own.is_dir() and not own.is_symlink() else own.unlink()
                path.write_text("unchanged")
                before = look()
        honest = sandbox.run("print(sum(range(10)))")
        ends[""] = [honest.status, honest.stdout, ""]
        print(json.dumps([sandbox.layers, ends, changed, victim.poll()]))
finally:
    victim.kill()
"""


@pytest.fixture(scope="module")
def needs_all(sandbox: Sandbox) -> None:
    for layer, state in sandbox.layers.items():
        if state != "active":
            pytest.skip(f"{layer} {state}")


@pytest.fixture(scope="module")
def runs(needs_all: None) -> dict[str, Any]:
    """One process for each configuration, side by side."""
    started = {}
    for name, (prepare, _, without) in CONFIGURATIONS.items():
        started[name] = subprocess.Popen(
            [sys.executable, "-c", _RUN.format(prepare=prepare, without=without), str(WALLS), str(_PROJECT)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ends: dict[str, Any] = {}
    for name, process in started.items():
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        ends[name] = json.loads(out)
    return ends


def attacks() -> Iterator[Any]:
    for configuration in CONFIGURATIONS:
        for name in ATTACKS.keys() - LOST[configuration]:
            why, where = FINDS.get(name, ("", ()))
            found = why and (not where or configuration in where)
            marks = [pytest.mark.xfail(strict=True, reason=why)] if found else []
            yield pytest.param(configuration, name, marks=marks, id=f"{configuration}-{name}")


@pytest.mark.parametrize(("configuration", "name"), sorted(attacks(), key=lambda case: str(case.id)))
def test_it_gets_nothing(runs: dict[str, Any], configuration: str, name: str) -> None:
    status, error, said = runs[configuration][1][name]
    assert status not in ("ok", "sandbox_error"), (status, error, said)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_outside_is_unchanged_and_an_honest_program_passes(runs: dict[str, Any], configuration: str) -> None:
    layers, ends, changed, victim = runs[configuration]
    if missing := CONFIGURATIONS[configuration][1]:
        assert layers[missing] != "active"
    assert ends[""][:2] == ["ok", "45\n"]
    assert victim is None
    assert not changed.keys() - FINDS.keys(), changed
