"""`doctor` tells what stands here, and writes the same as JSON."""

import json
import platform
from pathlib import Path

import pytest

from opencoder_jax import doctor
from opencoder_jax.recipe import UserError
from opencoder_jax.sandbox.languages import toolchains
from opencoder_jax.sandbox.languages.table import LANGUAGES
from opencoder_jax.sandbox.pool import SandboxError


def row(name: str) -> toolchains.Toolchain:
    return toolchains.Toolchain(LANGUAGES[name], f"{name} 1.2.3", ("/usr/bin",))


@pytest.fixture(autouse=True)
def three_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("C", row("C")), ("Lua", row("Lua")), ("Swift", "Swift: swiftc not found")]
    monkeypatch.setattr(toolchains, "found", lambda: iter(rows))


def test_walls_and_languages_are_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.main([f"--output={tmp_path / 'machine.json'}"])
    found = json.loads((tmp_path / "machine.json").read_text())
    assert found["toolchains"] == {"C": "C 1.2.3", "Lua": "Lua 1.2.3"}
    assert found["missing"] == {"Swift": "swiftc not found"}
    assert {"seccomp", "landlock", "pid namespace"} <= found["sandbox"].keys()
    printed = capsys.readouterr().out
    assert f"  Python  {platform.python_version()}\n  C       C 1.2.3\n" in printed
    assert "Languages that can't:\n  Swift  swiftc not found\n" in printed


def test_a_machine_without_a_sandbox_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise SandboxError("seccomp is missing: too old a kernel")

    monkeypatch.setattr(doctor, "Sandbox", refuse)
    doctor.main([])
    assert "sandbox  missing: seccomp is missing: too old a kernel" in capsys.readouterr().out


def test_what_cannot_be_prepared_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> toolchains.Toolchain:
        raise toolchains.ToolchainError(f"{name}: no space left")

    monkeypatch.setattr(toolchains, "find", fail)
    with pytest.raises(UserError, match=r"^C: no space left$"):
        doctor.main(["--prepare"])
