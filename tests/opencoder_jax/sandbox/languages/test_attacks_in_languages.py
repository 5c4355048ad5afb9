"""No program out of `attacks.py` reads, writes or connects outside, or outlives its run: as root and as another user.

The fast half is of languages that start and compile at once.
"""

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opencoder_jax.sandbox.languages.table import LANGUAGES
from opencoder_jax.sandbox.languages.toolchains import ToolchainError, find
from opencoder_jax.sandbox.pool import Sandbox

ROOT = Path(__file__).resolve().parents[4]
ATTACKS: dict[str, tuple[str, str, str]] = runpy.run_path(str(Path(__file__).parent / "attacks.py"))["ATTACKS"]
QUICK = ("C", "Bash", "Perl", "Lua", "PHP", "AWK")
# Those whose own compiler refuses them, so that they say nothing.
SILENT = ("include", "embed", "import", "reference", "compiler", "compile time", "preprocessor", "path", "package net")

# In a process of its own, since a sandbox belongs to the user who starts it.
_RUN = """
import json, os, sys
from opencoder_jax.sandbox.languages.polyglot import Polyglot
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits
attacks, place, user = json.load(open(sys.argv[1])), sys.argv[2], int(sys.argv[3])
mark = sys.stdin.buffer.read()  # not an argument, where this process itself would be found by it
if user:
    os.setgroups([]); os.setgid(user); os.setuid(user)
ends = {}
with Sandbox(Limits(cpu_seconds=5, idle_seconds=2, memory_bytes=512 << 20), workers=2) as sandbox:
    polyglot = Polyglot(sandbox)
    for name, (language, program) in attacks.items():
        outcome = polyglot.build(language, program).run()
        numbers = filter(str.isdigit, os.listdir("/proc"))
        left = [number for number in numbers if mark in _read(f"/proc/{number}/cmdline")]
        ends[name] = [outcome.status, outcome.stdout + outcome.stderr, os.path.lexists(place), left, outcome.error]
    honest = polyglot.build("C", "int main(void) { return 7; }").run()
    ends[""] = [honest.status, str(honest.exit_code), False, [], ""]
print(json.dumps(ends))
"""
_READ = """
def _read(path):
    try:
        return open(path, "rb").read()
    except OSError:
        return b""
"""


def present(language: str) -> bool:
    try:
        find(language)
    except ToolchainError:
        return False
    return True


def ran(
    folder: Path, languages: list[str], user: int, python: str = sys.executable, project: Path = ROOT
) -> tuple[dict[str, Any], int, str]:
    """How the attacks of some languages ended, how many were heard, and the secret word."""
    word = f"word{os.getpid()}of{user}secrets"
    # Seconds to sleep that no other process of this machine sleeps: the same attacks may run side by side.
    seconds = str(10**6 + 2 * os.getpid() + bool(user))
    (folder / "secret").write_text(word)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        names = {
            "@SECRET@": str(folder / "secret"),
            "@PATH@": str(folder / "made"),
            "@PORT@": str(server.getsockname()[1]),
            "31415": seconds,
        }
        attacks = {}
        for name, (language, _, program) in ATTACKS.items():
            if language in languages and present(language):
                for mark, value in names.items():
                    program = program.replace(mark, value)
                attacks[name] = language, program
        (folder / "attacks.json").write_text(json.dumps(attacks))
        done = subprocess.run(
            [python, "-c", _READ + _RUN, str(folder / "attacks.json"), names["@PATH@"], str(user)],
            input=seconds,
            env=os.environ | {"PYTHONPATH": str(project)},
            capture_output=True,
            text=True,
            timeout=580,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        heard = 0
        while True:
            try:
                server.accept()[0].close()
            except BlockingIOError:
                break
            heard += 1
    return json.loads(done.stdout), heard, word


def held(ends: dict[str, Any], heard: int, word: str) -> Iterator[str]:
    """What went wrong, in words."""
    if heard:
        yield f"{heard} connections"
    if ends.pop("") != ["exited", "7", False, [], ""]:
        yield "an honest program behind them failed"
    for name, (status, said, made, left, error) in ends.items():
        if word in said:
            yield f"{name}: read it: {said}"
        if made:
            yield f"{name}: made it"
        if left:
            yield f"{name}: left {left}"
        if status == "sandbox_error":
            yield f"{name}: {error}"
        tried = "tried" in said or status in ("killed", "timeout") or any(word in name for word in SILENT)
        if not tried and status != "compile_error" and "AWK" not in name:
            yield f"{name}: did not even try: {status} {said[-300:]}"


@pytest.fixture(scope="module", autouse=True)
def walls() -> None:
    with Sandbox() as sandbox:
        for layer, state in sandbox.layers.items():
            if state != "active":
                pytest.skip(f"{layer} {state}")


def test_quick_languages(tmp_path: Path) -> None:
    assert list(held(*ran(tmp_path, list(QUICK), 0))) == []


@pytest.mark.slow
@pytest.mark.parametrize("language", sorted({language for language, _, _ in ATTACKS.values()} - set(QUICK)))
def test_slow_languages(tmp_path: Path, language: str) -> None:
    if not present(language):
        pytest.skip(f"{language} is not here")
    assert list(held(*ran(tmp_path, [language], 0))) == []


def test_an_ordinary_users_walls_hold_too() -> None:
    if os.getuid() != 0:
        pytest.skip("the other tests are run by one already")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o777)
        # The interpreter and the project may lie where only root can go.
        shutil.copytree(ROOT / "opencoder_jax/sandbox", folder / "opencoder_jax/sandbox")
        (folder / "opencoder_jax/__init__.py").touch()
        here = (sys.executable, "/usr/bin/python3")
        python = next((each for each in here if ordinary(each, folder)), None)
        if python is None:
            pytest.skip(f"an ordinary user can run neither of {', '.join(here)}")
        assert list(held(*ran(folder, list(QUICK), 65534, python, folder))) == []


def ordinary(python: str, folder: Path) -> bool:
    """Whether an ordinary user can run an interpreter, and one that the sandbox knows."""
    probe = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    try:
        return subprocess.run(probe, user=65534, group=65534, extra_groups=[], cwd=folder, check=False).returncode == 0
    except OSError:
        return False


def test_there_are_enough_of_them() -> None:
    assert len(ATTACKS) >= 100
    assert len({language for language, _, _ in ATTACKS.values()}) >= 25
    assert {language for language, _, _ in ATTACKS.values()} <= set(LANGUAGES)
