"""What one installs: one import name, every data file, and only the dependencies that one's half of the house needs."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import opencoder_jax
from tests.make_build import FOLDERS, MODULES, ROOT, imports, installed
from tests.miniature import TINY, copy_source

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LOCKS = {
    name: (ROOT / f"requirements{suffix}.txt").read_text()
    for name, suffix in (("dev", ""), ("data", "-data"), ("train", "-train"))
}

JAX = {"jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "libtpu"}
TENSORFLOW = {"tensorflow", "tensorflow-datasets", "seqio", "keras"}
BEAM = {"apache-beam"}

# The extras that a room's modules may need when they are imported. The longest name that a module's name starts with.
NEEDS: dict[str, tuple[str, ...]] = {
    "opencoder_jax": (),
    "opencoder_jax.reports": ("report",),
    "opencoder_jax.data.tasks": ("seqio",),
    "opencoder_jax.tokenization.chat_template": ("huggingface",),
    "opencoder_jax.tokenization.hugging_face": ("huggingface",),
    **dict.fromkeys(
        (
            f"opencoder_jax.{room}"
            for room in ("kernels", "model", "parallel", "distillation", "training", "inference", "compile")
        ),
        ("train",),
    ),
    "opencoder_jax.evaluation": ("train",),
    "opencoder_jax.exchange": ("train",),
    "opencoder_jax.serving": ("train", "serving"),
    "opencoder_jax.cookbook": ("cookbook",),
    "opencoder_jax.ablations": ("cookbook",),
    "opencoder_jax.beam_pipelines": ("data",),
    "opencoder_jax.beam_pipelines.inspection": ("data", "report"),
    "opencoder_jax.beam_pipelines.tokens.compression": ("data", "report"),
}

# What a file imports only for what few users have: packed by zstd, or at gs://, where a message names what to install.
SELDOM = {"files.py": {"pyarrow"}, "google.py": {"google"}}


# ---------------------------------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without what was made in it: building leaves files beside the sources."""
    copy = tmp_path_factory.mktemp("wheel") / "checkout"
    unwanted = shutil.ignore_patterns(".*", "runs", "build", "dist", "tests", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=unwanted)
    return copy


def build(kind: str, source: Path, into: Path) -> Path:
    """A `wheel` or an `sdist` of a source tree, by the build backend that is installed here."""
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    into.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", code, into], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return max(into.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    return build("wheel", checkout, checkout.parent / "from_checkout")


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_the_wheel_owns_one_name_and_ships_every_file(wheel: Path) -> None:
    names = [name for name in names_in(wheel) if ".dist-info/" not in name]
    files = {str(file.relative_to(ROOT)) for folder in FOLDERS for file in folder.iterdir() if file.is_file()}
    assert names == sorted(file for file in files if not file.endswith(".pyc"))
    assert {name.split("/")[0] for name in names} == {"opencoder_jax"}
    endings = {Path(name).suffix for name in names}
    assert {
        ".py",
        ".gin",
        ".css",
        ".html",
        ".js",
        ".sh",
        ".json",
        ".jsonl",
        ".toml",
        ".LICENSE",
        ".typed",
    } - endings <= {".typed"}
    assert "opencoder_jax/py.typed" in names


def test_the_source_distribution_makes_the_same_wheel(checkout: Path, wheel: Path) -> None:
    sdist = build("sdist", checkout, checkout.parent / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(checkout.parent / "unpacked", filter="data")
    (tree,) = (checkout.parent / "unpacked").iterdir()
    assert names_in(build("wheel", tree, checkout.parent / "from_sdist")) == names_in(wheel)
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= {file.name for file in tree.iterdir()}


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert f"\nVersion: {opencoder_jax.__version__}\n" in info["METADATA"]
    assert "\nClassifier: Typing :: Typed\n" in info["METADATA"]
    assert "opencoder-jax = opencoder_jax.__main__:console" in info["entry_points.txt"]
    assert "opencoder-beam = opencoder_jax.beam_pipelines.__main__:console" in info["entry_points.txt"]
    assert {"LICENSE", "languages.LICENSE"} <= info.keys()


def test_one_version_everywhere() -> None:
    version = opencoder_jax.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()


# ----------------------------------------------------------------------------------------------------- the dependencies


def name_of(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


@cache
def distributions(extras: tuple[str, ...]) -> frozenset[str]:
    """What the project requires with these extras, by name."""
    found = {name_of(line) for line in PROJECT["dependencies"]}
    for line in (line for extra in extras for line in EXTRAS[extra]):
        if name_of(line) == PROJECT["name"]:
            found |= distributions(tuple(re.findall(r"[\w-]+", line.partition("[")[2].partition("]")[0])))
        else:
            found.add(name_of(line))
    return frozenset(found)


def pins(lock: str) -> dict[str, set[str]]:
    """The versions of each distribution in a lock, with their markers."""
    found: dict[str, set[str]] = {}
    for name, pin in re.findall(r"^([\w.-]+)(==[^\\\n]+)", LOCKS[lock], re.MULTILINE):
        found.setdefault(name_of(name), set()).add(pin.strip())
    return found


def reached_from(module: str) -> set[str]:
    """The distributions that importing a module brings in through modules of the house."""
    reached, waiting, libraries = {module}, [module], set[str]()
    while waiting:
        file = MODULES[waiting.pop()]
        modules, found = imports(file, False)
        libraries |= found - SELDOM.get(file.name, set())
        waiting += modules - reached
        reached |= modules
    return {installed()[library] for library in libraries}


@pytest.mark.parametrize("room", NEEDS)
def test_a_room_needs_only_its_extras(room: str) -> None:
    for module in MODULES:
        if max((name for name in NEEDS if f"{module}.".startswith(f"{name}.")), key=len) == room:
            assert reached_from(module) <= distributions(NEEDS[room]), module


def test_tests_need_only_what_the_lock_for_them_holds() -> None:
    for file in (ROOT / "tests").rglob("*.py"):
        peers = distributions(("peers",)) if file.is_relative_to(ROOT / "tests" / "benchmarks") else set()
        assert {installed()[library] for library in imports(file)[1]} <= distributions(("dev",)) | peers, file


def test_neither_half_needs_the_others_libraries() -> None:
    assert not distributions(("data",)) & (JAX | TENSORFLOW)
    assert not distributions(("train",)) & (BEAM | TENSORFLOW)
    assert not distributions(()) & (BEAM | JAX | TENSORFLOW)


@pytest.mark.parametrize(("lock", "unwanted"), [("data", JAX | TENSORFLOW), ("train", BEAM | TENSORFLOW)])
def test_the_lock_of_a_half_holds_it_and_nothing_of_the_other(lock: str, unwanted: set[str]) -> None:
    assert distributions((lock, "build")) <= pins(lock).keys()
    assert not pins(lock).keys() & unwanted
    everything = pins("dev")
    for name, found in pins(lock).items():
        # What is everywhere in the whole lock may be needed on fewer systems in a half of it.
        general = {pin.partition(" ;")[0] for pin in found}
        assert everything[name] in (found, general), name


# -------------------------------------------------------------------------------------------------------- installed


class Environment:
    """A new virtual environment, outside of the checkout, and an empty folder to run in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.empty = folder / "empty"
        self.empty.mkdir(parents=True)
        self.variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.variables["PATH"] = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)

    def run(self, *command: str | Path) -> str:
        """What a command in the environment prints; it must succeed."""
        done = subprocess.run(command, cwd=self.empty, env=self.variables, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def pip(self, *arguments: str | Path) -> None:
        self.run("python", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def imports(self, names: Iterable[str]) -> set[str]:
        """Which of these libraries can be found."""
        code = "import importlib.util, sys; print(*filter(importlib.util.find_spec, sys.argv[1:]))"
        return set(self.run("python", "-c", code, *names).split())


@pytest.mark.slow
def test_installed_it_cooks_anywhere_and_leaves_other_packages_alone(wheel: Path, tmp_path: Path) -> None:
    """Beside Hugging Face's package `kernels`, whose name an import of ours had once."""
    there = Environment(tmp_path)
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"{name}{pin}\n" for name, found in pins("dev").items() for pin in found))
    there.pip("install", "--constraint", constraints, "kernels", f"{wheel}[cookbook]")
    whose = "import kernels; print(kernels.get_kernel.__module__, kernels.__file__)"
    theirs = there.run("python", "-c", whose)
    assert theirs.startswith("kernels.")
    assert not there.imports(["beam_pipelines", "gin_configs", "tensorflow"])

    copy_source(tmp_path / "source")
    there.run("opencoder-jax", "cookbook", f"--source={tmp_path / 'source'}", "--output=cooked", *TINY)
    assert "pass@1" in (there.empty / "cooked" / "report.html").read_text()
    assert [file.name for file in there.empty.iterdir()] == ["cooked"]

    there.pip("uninstall", "--yes", "opencoder-jax")
    assert there.run("python", "-c", whose) == theirs
    # What numba compiled stays, in our own folder: pip deletes only what it brought.
    left = {file.suffix for file in (tmp_path / "venv").rglob("site-packages/opencoder_jax/**/*") if file.is_file()}
    assert left <= {".nbi", ".nbc"}


@pytest.mark.slow
def test_data_workers_need_no_jax(wheel: Path, tmp_path: Path) -> None:
    there = Environment(tmp_path)
    there.pip("install", "--require-hashes", "--requirement", ROOT / "requirements-data.txt")
    there.pip("install", "--no-deps", wheel)
    assert not there.imports(["jax", "flax", "tensorflow", "seqio"])
    copy_source(tmp_path / "source")
    there.run("opencoder-beam", "refinecode", f"--folders={tmp_path / 'source'}", "--output=refinecode")
    assert (there.empty / "refinecode" / "sample" / "stage.json").is_file()
    documents, tokenizer = "--documents=refinecode/sample", "--tokenizer=tokenizer"
    small = ["--gin.TokenizerConfig.vocab_size=700", "--gin.TokenizerConfig.minimum_count=1"]
    there.run("opencoder-beam", "train_tokenizer", documents, "--output=tokenizer", *small)
    there.run("python", "-m", "opencoder_jax.beam_pipelines", "records", documents, tokenizer, "--output=records")
    assert (there.empty / "records" / "stage.json").is_file()


@pytest.mark.slow
def test_accelerator_machines_need_neither_beam_nor_tensorflow(wheel: Path, tmp_path: Path) -> None:
    """Token records that were made elsewhere, with a recipe that ships in the wheel."""
    there = Environment(tmp_path)
    there.pip("install", "--require-hashes", "--requirement", ROOT / "requirements-train.txt")
    there.pip("install", "--no-deps", wheel)
    assert not there.imports(["apache_beam", "pyarrow", "tensorflow", "seqio"])
    copy_source(tmp_path / "source")
    here = [sys.executable, "-m", "opencoder_jax.beam_pipelines"]
    for verb, flags in (
        ("collect", [f"--folders={tmp_path / 'source'}", f"--output={tmp_path / 'documents'}"]),
        ("train_tokenizer", [f"--documents={tmp_path / 'documents'}", f"--output={tmp_path / 'tokenizer'}"]),
        (
            "records",
            [
                f"--documents={tmp_path / 'documents'}",
                f"--tokenizer={tmp_path / 'tokenizer'}",
                f"--output={tmp_path / 'tokens' / 'refinecode'}",
                "--gin.TokenRecordsConfig.heldout=0.2",
            ],
        ),
    ):
        tokenizer = [flag for flag in TINY if "TokenizerConfig" in flag] if verb == "train_tokenizer" else []
        subprocess.run([*here, verb, *flags, *tokenizer], cwd=ROOT, check=True)
    there.run("opencoder-jax", "train", "--help")
    model = [flag for flag in TINY if any(name in flag for name in ("ModelConfig", "TrainConfig", "OptimizerConfig"))]
    there.run(
        "opencoder-jax",
        "train",
        "--gin_file=gin_configs/pretrain/cookbook.gin",
        f"--data={tmp_path / 'tokens'}",
        "--output=trained",
        "--gin.TrainConfig.held_out=()",
        *model,
    )
    assert len((there.empty / "trained" / "metrics.jsonl").read_text().splitlines()) >= 6
