"""Where a user's caches lie, and that what a command compiled is there for the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opencoder_jax import __main__, machine

VARIABLES = [name for name in os.environ if name.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))]


def compiled_at(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str | None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    try:
        __main__.keep_compiled_programs()
        return os.environ.get("JAX_COMPILATION_CACHE_DIR")
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_programs_are_kept_for_this_processor_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Machines of two kinds may share a home."""
    home = str(tmp_path)
    here = compiled_at(monkeypatch, XDG_CACHE_HOME=home)
    assert here is not None
    assert Path(here).parent == tmp_path / "opencoder_jax" / "jax"
    monkeypatch.setattr(__main__, "processor", lambda: "another")
    assert compiled_at(monkeypatch, XDG_CACHE_HOME=home) != here


def test_jaxs_own_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled_at(monkeypatch, JAX_COMPILATION_CACHE_DIR="/mine") == "/mine"


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(machine.Path, "home", no_home)
    assert compiled_at(monkeypatch) is None


@pytest.mark.slow
def test_jax_finds_what_was_compiled(tmp_path: Path) -> None:
    """Of two processes the second adds no program."""
    code = (
        "from opencoder_jax.__main__ import keep_compiled_programs as keep; keep();"
        "import jax; print(jax.jit(lambda x: x * 3 + 1)(2))"
    )
    found = []
    for _ in range(2):
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        environment |= {"XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "7\n"
        found.append({file.name for file in tmp_path.rglob("*-cache")})
    assert found[0] == found[1] != set()
