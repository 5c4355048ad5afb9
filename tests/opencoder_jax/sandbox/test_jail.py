"""Attacks on the walls: each must fail on a machine that has the layer, and fail loudly to be built where it cannot."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opencoder_jax.sandbox import _jail, pool
from opencoder_jax.sandbox.pool import Sandbox, SandboxError

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


# Memory beyond the limit: each piece is small, and bounded to twice the limit where the wall fails.
MEMORY = {
    "System V shared memory": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "piece = libc.shmget(0, ctypes.c_size_t(1 << 20), 0o1600)\n"
        "libc.shmctl(piece, 0, None)\nassert piece < 0, 'shared memory was given'"
    ),
    "System V semaphores": (
        "import ctypes\nfound = ctypes.CDLL(None).semget(0, 1, 0o1600)\nctypes.CDLL(None).semctl(found, 0, 0)\n"
        "assert found < 0, 'a semaphore was given'"
    ),
    "System V messages": (
        "import ctypes\nfound = ctypes.CDLL(None).msgget(0, 0o1600)\nctypes.CDLL(None).msgctl(found, 0, None)\n"
        "assert found < 0, 'a queue was given'"
    ),
    "files in memory": (
        "import os\ntry: os.memfd_create('x')\nexcept PermissionError: pass\nelse: raise AssertionError('was given')"
    ),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_no_memory_beside_the_address_space(sandbox: Sandbox, needs: Callable[..., None], kind: str) -> None:
    needs("seccomp")
    assert sandbox.run(MEMORY[kind]).status == "ok"


def test_the_project_and_what_is_hidden_cannot_be_read(needs: Callable[..., None], tmp_path: Path) -> None:
    """Although both lie in a directory of the interpreter's path, as an installed package does."""
    needs("landlock")
    packages = tmp_path / "packages"
    for name in "answers", "other":
        (packages / name).mkdir(parents=True)
        (packages / name / "data.txt").write_text(name)
    report = list(_jail._beside([str(packages), str(ROOT)], {str(packages / "answers"), str(ROOT / "opencoder_jax")}))
    assert str(packages / "other") in report
    assert not [path for path in report if "answers" in path or Path(path) in (ROOT, ROOT / "opencoder_jax")]
    # Python's own library is readable, but for what is hidden in it.
    with Sandbox(hidden=[json.__file__]) as hiding:
        assert hiding.run("import decimal").status == "ok"
        assert hiding.run(f"open({json.__file__!r}).read()").error == "PermissionError"


def test_a_wall_that_nothing_replaces_is_not_done_without_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "NECESSARY", ("no such wall", "seccomp"))
    monkeypatch.setattr(pool._Zygote, "layers", {"no such wall": "missing: too old a kernel"}, raising=False)
    real = pool._Zygote.start

    def start(zygote: pool._Zygote) -> pool._Zygote:
        real(zygote)
        zygote.layers["no such wall"] = "missing: too old a kernel"
        return zygote

    monkeypatch.setattr(pool._Zygote, "start", start)
    with pytest.raises(
        SandboxError, match=r"no such wall is missing: too old a kernel.*without_walls=\('no such wall',\)"
    ):
        Sandbox()
    with Sandbox(without=["no such wall"]) as sandbox:
        assert sandbox.run("print(1)").stdout == "1\n"


def test_other_processes_are_out_of_reach(sandbox: Sandbox, needs: Callable[..., None]) -> None:
    needs("pid namespace")
    outcome = sandbox.run(
        "import os\nassert os.getpid() == 1 and os.getppid() == 0\n"
        "for process in range(2, 5000):\n"
        "    try: os.kill(process, 9)\n"
        "    except PermissionError: continue\n"
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
own = Path("own")
own.write_text("x")
before = own.stat()
ATTACKS = [
    "os.chmod(PATH, 0o777)", "os.chown(PATH, os.getuid(), os.getgid())", "os.utime(PATH, (1, 1))",
    "os.setxattr(PATH, 'user.x', b'1')", "os.kill(PARENT, 0)",
    "resource.prlimit(PARENT, resource.RLIMIT_NOFILE, (64, 64))", "os.setpriority(os.PRIO_PROCESS, PARENT, 19)",
    "os.sched_setaffinity(PARENT, {0})", "fcntl.fcntl(0, fcntl.F_SETOWN, PARENT)",
]
with Sandbox(Limits(cpu_seconds=1, idle_seconds=2)) as sandbox:
    head = f"import fcntl, os, resource\\nPATH, PARENT = {str(own.resolve())!r}, {os.getpid()}\\n"
    done = [attack for attack in ATTACKS if sandbox.run(head + attack).error != "PermissionError"]
    assert own.stat() == before
    print("done:", *done)
    print(*[f"{layer}: {state}" for layer, state in sandbox.layers.items()], sep="\\n")
    print(sandbox.run("open('mine', 'w').write('x')").status, sandbox.run("open('/tmp/escaped', 'w')").error)
    print(sandbox.run("import time; time.sleep(60)").status, sandbox.run("import os; os.fork()").error)
    print(sandbox.run("import os; print(os.listdir())").stdout)
"""


def test_a_machine_without_namespaces_is_told_apart_and_still_guarded(
    needs: Callable[..., None], tmp_path: Path
) -> None:
    needs("user namespace")
    needs("landlock")
    needs("seccomp")
    done = subprocess.run(
        [sys.executable, "-c", REFUSING],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "done:"
    for namespace in "user namespace", "network namespace", "pid namespace", "ipc namespace", "read-only mounts":
        assert any(line.startswith(f"{namespace}: missing: ") for line in lines), done.stdout
    assert "landlock: active" in lines
    assert lines[-4:] == ["exception PermissionError", "timeout PermissionError", "[]", ""]
