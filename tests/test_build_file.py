"""BUILD is what `make build-file` writes, it hangs together, and Bazel itself can build and run a program by it."""

import graphlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.make_build import APART, FOLDERS, MODULES, ROOT, build_file

# The newest Bazel that a package registry brings (with the program in the package). It knows no modules yet, so what
# MODULE.bazel names is stood in for: rules_python by the rules that were part of Bazel then, libraries by empty ones.
BAZEL = "@bazel/bazel-linux_x64@2.1.0"
STAND_INS = {
    "rules_python/python": ("py_binary", "py_library", "py_test"),
    "rules_java/java": (
        *("java_binary", "java_import", "java_library", "java_package_configuration", "java_runtime"),
        *("java_test", "java_toolchain"),
    ),
    "rules_cc/cc": (
        *("cc_binary", "cc_import", "cc_library", "cc_proto_library", "cc_test", "cc_toolchain", "cc_toolchain_suite"),
        *("fdo_prefetch_hints", "fdo_profile", "objc_import", "objc_library"),
    ),
}


class Target(NamedTuple):
    """A rule of BUILD."""

    kind: str
    srcs: frozenset[str]
    data: frozenset[str]
    deps: frozenset[str]


@cache
def targets() -> dict[str, Target]:
    """The targets of BUILD by name. Starlark this plain is Python, too: it is run, with rules that only take notes."""
    found: dict[str, Target] = {}

    def rule(kind: str) -> Callable[..., None]:
        def note(
            name: str, srcs: Iterable[str] = (), data: Iterable[str] = (), deps: Iterable[str] = (), **_: Any
        ) -> None:
            assert name not in found, f"BUILD: two targets are called {name}"
            found[name] = Target(kind, frozenset(srcs), frozenset(data), frozenset(deps))

        return note

    def glob(include: list[str], exclude: Iterable[str] = ()) -> list[str]:
        left_out = {file for pattern in exclude for file in ROOT.glob(pattern)}
        files = {file for pattern in include for file in ROOT.glob(pattern) if file.is_file()} - left_out
        return sorted(str(file.relative_to(ROOT)) for file in files)

    words: dict[str, Any] = dict.fromkeys(["load", "package"], lambda *_, **__: None)
    words |= {kind: rule(kind) for kind in ("py_library", "py_binary", "py_test", "filegroup")}
    exec(compile((ROOT / "BUILD").read_text(), "BUILD", "exec"), words | {"glob": glob})
    return found


def test_build_is_up_to_date() -> None:
    assert (ROOT / "BUILD").read_text() == build_file(), "BUILD is not what the imports say: make build-file"


def test_every_module_is_in_exactly_one_target() -> None:
    held = [source for target in targets().values() if target.kind != "py_test" for source in target.srcs]
    assert sorted(source for source in held if source.endswith(".py")) == sorted(
        str(file.relative_to(ROOT)) for file in MODULES.values()
    )


def test_every_test_has_its_target() -> None:
    held = {source for target in targets().values() if target.kind == "py_test" for source in target.srcs}
    assert {str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("test_*.py")} <= held


def test_every_file_beside_the_modules_is_the_data_of_a_target() -> None:
    held = {file for target in targets().values() if target.kind != "py_test" for file in target.srcs | target.data}
    files = {str(file.relative_to(ROOT)) for folder in FOLDERS for file in folder.iterdir() if file.is_file()}
    assert {file for file in files if not file.endswith((".py", ".pyc"))} <= held


def test_targets_depend_on_targets_and_in_no_circle() -> None:
    graph = {name: {dep[1:] for dep in target.deps if dep[0] == ":"} for name, target in targets().items()}
    assert {dep for deps in graph.values() for dep in deps} <= graph.keys()
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_only_who_asks_for_it_gets_tensorflow() -> None:
    names = {name for name, target in targets().items() if target.kind != "py_test"}
    assert {name for name in names if "@pypi//tensorflow" in targets()[name].deps} == set(APART)
    assert not {name for name in names if targets()[name].deps & {f":{apart}" for apart in APART}}


@pytest.mark.slow
def test_bazel_builds_and_runs_the_pipelines(tmp_path: Path) -> None:
    """The program runs from the files that BUILD gives it, among them those that are reached through links."""
    house = tmp_path / "house"
    shutil.copytree(ROOT, house, symlinks=True, ignore=shutil.ignore_patterns(".*", "runs", "build", "MODULE.bazel"))
    (house / "WORKSPACE").write_text(
        'workspace(name = "opencoder_jax")\n'
        + "".join(
            f'local_repository(name = "{name}", path = "{tmp_path / name}")\n'
            for name in ("pypi", *(folder.split("/")[0] for folder in STAND_INS))
        )
    )
    for folder, rules in STAND_INS.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "BUILD").touch()
        (tmp_path / folder / ".." / "WORKSPACE").touch()
        (tmp_path / folder / "defs.bzl").write_text("".join(f"{rule} = native.{rule}\n" for rule in rules))
    (tmp_path / "pypi").mkdir()
    (tmp_path / "pypi" / "WORKSPACE").touch()
    for library in {dep.removeprefix("@pypi//") for target in targets().values() for dep in target.deps if "@" in dep}:
        (tmp_path / "pypi" / library).mkdir()
        (tmp_path / "pypi" / library / "BUILD").write_text(
            f'py_library(name = "{library}", visibility = ["//visibility:public"])\n'
        )
    if shutil.which("npm") is None:
        pytest.skip("npm, which brings Bazel here, is not installed")
    subprocess.run(["npm", "pack", "--silent", BAZEL], cwd=tmp_path, check=True, timeout=300)
    subprocess.run(["tar", "xzf", *(file.name for file in tmp_path.glob("*.tgz"))], cwd=tmp_path, check=True)
    (bazel,) = (tmp_path / "package").glob("bazel-*-linux-x86_64")
    bazel.chmod(0o755)
    start = [str(bazel), f"--output_user_root={tmp_path / 'out'}", "--max_idle_secs=60"]
    try:
        subprocess.run(
            [
                *(*start, "build", "//:opencoder-beam", "--incompatible_default_to_explicit_init_py"),
                *("--incompatible_use_python_toolchains=false", f"--python_path={sys.executable}"),
                *(f"--override_repository={name}={tmp_path / name}" for name in ("rules_cc", "rules_java")),
            ],
            cwd=house,
            check=True,
            timeout=600,
        )
    finally:
        subprocess.run([*start, "shutdown"], cwd=house, check=False, timeout=60)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "one.py").write_text("print(1)\n" * 20)
    program = house / "bazel-bin" / "opencoder-beam"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [program, "collect", f"--folders={tmp_path / 'code'}", f"--output={tmp_path / 'documents'}"],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        check=True,
        timeout=300,
    )
    assert (tmp_path / "documents" / "stage.json").is_file()
