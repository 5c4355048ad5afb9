"""Attacks on the walls: each must fail on a machine that has the layer, and fail loudly to be built where it cannot."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opencoder_jax.sandbox.pool import Sandbox

ROOT = Path(__file__).resolve().parents[3]

# The ways past `reliability_guard` of the usual graders, and a few more: write to PATH, somewhere outside.
WRITES = {
    "open": "open(PATH, 'w')",
    "os.open": "import os; os.open(PATH, os.O_WRONLY | os.O_CREAT)",
    "os.system": "import os; assert os.system('touch ' + PATH) == 0",
    "posix.system": "import posix; assert posix.system('touch ' + PATH) == 0",
    "subprocess": "import subprocess; subprocess.run(['touch', PATH], check=True)",
    "posix_spawn": "import os; os.waitpid(os.posix_spawn('/bin/touch', ['touch', PATH], {}), 0)",
    "execv": "import os; os.execv('/bin/touch', ['touch', PATH])",
    "libc system": "import ctypes; assert ctypes.CDLL(None).system(b'touch ' + PATH.encode()) == 0",
    "symlink": "import os; os.symlink('/etc/passwd', PATH)",
    "mkdir": "import os; os.mkdir(PATH)",
    "rename": "import os; open('a', 'w'); os.rename('a', PATH)",
    "mount": "import ctypes; assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "remount": "import ctypes; assert ctypes.CDLL(None).mount(None, b'/', None, 32 | 4096, None) == 0; open(PATH, 'w')",
    "new namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10020000) == 0",
    "library": "import json; open(json.__file__, 'a')",
}


@pytest.mark.parametrize("attack", WRITES)
def test_nothing_outside_is_written(sandbox: Sandbox, needs: Callable[..., None], tmp_path: Path, attack: str) -> None:
    needs("read-only mounts", "landlock")
    outcome = sandbox.run(f"PATH = {str(tmp_path / 'escaped')!r}\n{WRITES[attack]}")
    assert outcome.status == "exception", outcome
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["/", "/root", "/home", "/proc/self/environ", "/etc/shadow", str(ROOT / "pyproject.toml")]
)
def test_what_is_not_the_interpreter_is_not_read(sandbox: Sandbox, needs: Callable[..., None], path: str) -> None:
    needs("landlock")
    read = "import os; os.listdir(PATH)" if Path(path).is_dir() else "open(PATH).read()"
    outcome = sandbox.run(f"PATH = {path!r}\n{read}")
    assert outcome.error in ("PermissionError", "FileNotFoundError"), outcome


@pytest.mark.parametrize(
    "connect",
    [
        "socket.create_connection(('127.0.0.1', 1), timeout=1)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
        "socket.socket(socket.AF_UNIX).connect('/run/docker.sock')",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    ],
)
def test_no_sockets(sandbox: Sandbox, needs: Callable[..., None], connect: str) -> None:
    needs("seccomp")
    assert sandbox.run(f"import socket\n{connect}").error == "PermissionError"


def test_a_fork_bomb_leaves_nothing(sandbox: Sandbox, needs: Callable[..., None]) -> None:
    needs("seccomp", "pid namespace")
    outcome = sandbox.run("import os\nwhile True: os.fork()")
    assert outcome.status in ("exception", "timeout")
    assert sandbox.run("print(1)").stdout == "1\n"


def test_other_processes_are_out_of_reach(sandbox: Sandbox, needs: Callable[..., None]) -> None:
    needs("pid namespace")
    outcome = sandbox.run(
        "import os\nassert os.getpid() == 1 and os.getppid() == 0\n"
        "for process in range(2, 5000):\n"
        "    try: os.kill(process, 9)\n"
        "    except ProcessLookupError: continue\n"
        "    raise SystemExit(process)"
    )
    assert outcome.status == "ok", outcome


def test_no_capability_is_left(sandbox: Sandbox, needs: Callable[..., None]) -> None:
    needs("no capabilities")
    outcome = sandbox.run(
        "import ctypes\nhead = (ctypes.c_uint32 * 2)(0x20080522, 0); sets = (ctypes.c_uint32 * 6)()\n"
        "assert ctypes.CDLL(None).capget(head, sets) == 0\nprint(list(sets))"
    )
    assert outcome.stdout == "[0, 0, 0, 0, 0, 0]\n"


# A machine that refuses every namespace, as seen from inside: the limits of a user namespace of our own are zero.
REFUSING = """
import os
from pathlib import Path
from opencoder_jax.sandbox import _linux
user, group = os.getuid(), os.getgid()
_linux.unshare(_linux.NEW_USER)
for file, text in ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1"):
    Path("/proc/self", file).write_text(text)
for kind in "user", "net", "ipc", "mnt", "pid":
    Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits
with Sandbox(Limits(cpu_seconds=1, wall_seconds=2)) as sandbox:
    print(*[f"{layer}: {state}" for layer, state in sandbox.layers.items()], sep="\\n")
    print(sandbox.run("open('mine', 'w').write('x')").status, sandbox.run("open('/tmp/escaped', 'w')").error)
    print(sandbox.run("import time; time.sleep(60)").status, sandbox.run("import os; os.fork()").error)
    print(sandbox.run("import os; print(os.listdir())").stdout)
"""


def test_a_machine_without_namespaces_is_told_apart_and_still_guarded(needs: Callable[..., None]) -> None:
    needs("user namespace")
    needs("landlock")
    needs("seccomp")
    done = subprocess.run([sys.executable, "-c", REFUSING], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for namespace in "user namespace", "network namespace", "pid namespace", "ipc namespace", "read-only mounts":
        assert any(line.startswith(f"{namespace}: missing: ") for line in lines), done.stdout
    assert "landlock: active" in lines
    assert lines[-4:] == ["ok PermissionError", "timeout PermissionError", "[]", ""]
