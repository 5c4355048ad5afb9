"""The house stands as its plan says: who may import whom, what no file may hold.

Everything is read from the source, nothing of the house is imported. A failure prints the line to add or to delete.
"""

import ast
import graphlib
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from opencoder_jax.configurables import catalog

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "opencoder_jax"
FOLDERS = ("opencoder_jax", "beam_pipelines", "kernels")  # the last two are reached as opencoder_jax.…, by links
PIPELINES = "opencoder_jax.beam_pipelines"

# The rooms from the ground up: each may import those that it names, itself, and the ground. Knowledge goes up, so no
# room is named by one that stands before it.
GROUND = tuple(
    f"{PACKAGE}.{name}"
    for name in ("configurables", "recipe", "checks", "files", "progress", "code_version", "machine")
)
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(GROUND, ()),
    f"{PACKAGE}.verbs": (),
    f"{PACKAGE}.chain": (f"{PACKAGE}.verbs",),
    f"{PACKAGE}.clients": (),
    f"{PACKAGE}.reports": (),
    f"{PACKAGE}.statistics": (),
    f"{PACKAGE}.sandbox": (),
    f"{PACKAGE}.doctor": (f"{PACKAGE}.sandbox",),
    f"{PACKAGE}.benchmarks": (f"{PACKAGE}.sandbox",),
    f"{PACKAGE}.kernels": (),
    f"{PACKAGE}.tokenization": (),
    f"{PACKAGE}.data": (f"{PACKAGE}.benchmarks", f"{PACKAGE}.tokenization"),
    f"{PACKAGE}.model": (f"{PACKAGE}.kernels",),
    f"{PACKAGE}.parallel": (f"{PACKAGE}.model", f"{PACKAGE}.data"),
    f"{PACKAGE}.distillation": tuple(f"{PACKAGE}.{name}" for name in ("parallel", "model", "data", "tokenization")),
    f"{PACKAGE}.training": tuple(
        f"{PACKAGE}.{name}" for name in ("distillation", "parallel", "model", "data", "tokenization")
    ),
    f"{PACKAGE}.exchange": tuple(f"{PACKAGE}.{name}" for name in ("parallel", "model", "data", "tokenization")),
    f"{PACKAGE}.inference": tuple(
        f"{PACKAGE}.{name}" for name in ("exchange", "parallel", "model", "kernels", "tokenization")
    ),
    f"{PACKAGE}.compile": tuple(
        f"{PACKAGE}.{name}"
        for name in ("training", "distillation", "inference", "parallel", "model", "data", "kernels")
    ),
    f"{PACKAGE}.launch": (),
    f"{PACKAGE}.evaluation": tuple(
        f"{PACKAGE}.{name}"
        for name in ("inference", "tokenization", "data", "benchmarks", "sandbox", "statistics", "reports", "clients")
    ),
    f"{PACKAGE}.serving": (f"{PACKAGE}.inference", f"{PACKAGE}.data", f"{PACKAGE}.tokenization"),
    f"{PIPELINES}.core": (),
    f"{PIPELINES}.languages": (),
    **{
        f"{PIPELINES}.{name}": (f"{PIPELINES}.core", *(f"{PIPELINES}.{room}" for room in below), *beside)
        for name, below, beside in (
            ("sources", ("languages",), (f"{PACKAGE}.tokenization",)),
            ("deduplication", (), (f"{PACKAGE}.tokenization",)),
            ("redaction", ("languages",), ()),
            ("signals", ("languages",), ()),
            ("filtering", ("signals",), ()),
            ("inspection", ("signals", "filtering"), (f"{PACKAGE}.reports",)),
            (
                "decontamination",
                ("deduplication",),
                (f"{PACKAGE}.reports", f"{PACKAGE}.benchmarks", f"{PACKAGE}.tokenization"),
            ),
            ("synthesis", (), tuple(f"{PACKAGE}.{name}" for name in ("sandbox", "benchmarks", "clients"))),
            ("web", ("sources", "languages"), (f"{PACKAGE}.reports", f"{PACKAGE}.tokenization")),
            ("experiments", ("filtering", "web"), ()),
            ("tokens", (), (f"{PACKAGE}.reports", f"{PACKAGE}.data", f"{PACKAGE}.tokenization")),
        )
    },
    # Chains, tools, and the table of verbs.
    PIPELINES: (
        f"{PIPELINES}.core",
        f"{PACKAGE}.chain",
        f"{PACKAGE}.verbs",
        f"{PACKAGE}.data",
        f"{PACKAGE}.tokenization",
    ),
    # These stand above both halves: a verb's room is imported when the verb is called.
    f"{PACKAGE}.reference": (f"{PACKAGE}.verbs",),
    f"{PACKAGE}.__main__": (f"{PACKAGE}.verbs",),
    f"{PACKAGE}.cookbook": (PACKAGE,),
    f"{PACKAGE}.ablations": (PACKAGE,),
}

JAX = ("jax", "flax", "optax", "orbax")
TENSORFLOW = ("seqio", "tensorflow", "tensorflow_datasets")
BEAM = ("apache_beam",)
SERVER = ("starlette", "uvicorn", "prometheus_client")

# The libraries that only some rooms may import.
ONLY_IN: dict[tuple[str, ...], tuple[str, ...]] = {
    TENSORFLOW: (f"{PACKAGE}.data.tasks",),
    BEAM: (PIPELINES,),
    SERVER: (f"{PACKAGE}.serving",),
}

# What must not be reached by any chain of imports: Beam's workers load no JAX, and accelerator machines have neither
# Beam nor TensorFlow installed.
NEVER_REACHES: dict[str, tuple[str, ...]] = {
    PIPELINES: JAX + TENSORFLOW,
    f"{PACKAGE}.chain": JAX + TENSORFLOW + BEAM,
    f"{PACKAGE}.verbs": JAX + TENSORFLOW + BEAM,
    f"{PACKAGE}.data.batches": JAX + TENSORFLOW,
    f"{PACKAGE}.model.config": JAX,
    f"{PACKAGE}.training": TENSORFLOW + BEAM,
    f"{PACKAGE}.inference": TENSORFLOW + BEAM,
    f"{PACKAGE}.evaluation": TENSORFLOW + BEAM,
    f"{PACKAGE}.serving": TENSORFLOW + BEAM,
}


# ---------------------------------------------------------------------------------------------- modules and imports


def module_name(file: Path) -> str:
    """`opencoder_jax/data/fim.py` is opencoder_jax.data.fim, `kernels/schedule.py` opencoder_jax.kernels.schedule."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == PACKAGE else (PACKAGE, *parts)).removesuffix(".__init__")


MODULES = {module_name(file): file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))}
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
# What tests and benchmarks import from beside them.
HELPERS = {file.stem for file in (ROOT / "tests").rglob("*.py")} | {"tests"}


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), str(file))


@cache
def imports_of(file: Path) -> frozenset[str]:
    """The modules that a file imports anywhere in it; `from package import module` is package.module."""
    found = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, (
                f"{file.relative_to(ROOT)}:{node.lineno}: write the import with the package's full name"
            )
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return frozenset(found)


def within(module: str, names: Iterable[str]) -> bool:
    """Whether a module is one of `names`, or lies in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def third_party(modules: Iterable[str]) -> set[str]:
    roots = {module.split(".")[0] for module in modules}
    return {root for root in roots - HELPERS if root not in sys.stdlib_module_names and root != PACKAGE}


def reached_from(module: str) -> set[str]:
    """Every module, of the house or not, that importing `module` can bring in through modules of the house."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        for found in imports_of(MODULES[waiting.pop()]) - reached:
            reached.add(found)
            if found in MODULES:
                waiting.append(found)
    return reached


def complain(problems: Iterable[str]) -> None:
    """Fails with all problems, one a line."""
    if lines := sorted(set(problems)):
        pytest.fail("\n".join(lines), pytrace=False)


# ------------------------------------------------------------------------------------------------------ import rules


def room_of(module: str) -> str:
    """The longest name of a room that a module's name starts with."""
    return max((room for room in MAY_IMPORT if within(module, [room])), key=len, default=PACKAGE)


def ours(module: str) -> set[str]:
    return {found for found in imports_of(MODULES[module]) if within(found, [PACKAGE])}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_what_it_may(module: str) -> None:
    room = room_of(module)
    allowed = (*MAY_IMPORT.get(room, ()), *GROUND, *([room] if room != PACKAGE else []))
    complain(
        f"{module} imports {found}, but {room} may import only {', '.join(allowed)}"
        for found in ours(module)
        if not within(found, allowed)
    )
    complain(f"{module} imports {found}, which doesn't exist" for found in ours(module) - MODULES.keys())


def test_knowledge_goes_up_between_the_rooms() -> None:
    """A room names only rooms before it; of those that name their own parent, the cookbook and the court alone."""
    rooms = list(MAY_IMPORT)
    complain(
        f"{room} names {below}, which doesn't stand before it"
        for index, room in enumerate(rooms)
        for below in MAY_IMPORT[room]
        if below != PACKAGE and below not in rooms[:index]
    )


def test_no_import_runs_back_up() -> None:
    """Neither files nor folders import each other in a circle."""

    def folder(module: str) -> str:
        parts = MODULES[module].relative_to(ROOT).parts[:-1]
        return "/".join(parts) if len(parts) > 1 else module  # a file beside the rooms is a room of its own

    files = {module: ours(module) - {module} for module in MODULES}
    folders: dict[str, set[str]] = {}
    for module, found in files.items():
        folders.setdefault(folder(module), set()).update(folder(other) for other in found if other in MODULES)
    for graph in (files, {name: found - {name} for name, found in folders.items()}):
        graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", sorted({file.parent for file in MODULES.values()}), ids=lambda f: f.name)
def test_a_room_can_be_overlooked(folder: Path) -> None:
    """At most 12 files and 2,000 lines of Python in a folder, 500 in a file."""
    files = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
    lines = {file.name: len(file.read_text().splitlines()) for file in files}
    assert len(files) <= 12
    assert sum(lines.values()) <= 2000
    assert {name: count for name, count in lines.items() if count > 500} == {}


def test_some_libraries_stay_in_their_rooms() -> None:
    complain(
        f"{module} imports {library}, which only {', '.join(rooms)} may"
        for module, file in MODULES.items()
        for libraries, rooms in ONLY_IN.items()
        for library in third_party(imports_of(file)) & set(libraries)
        if not within(module, rooms)
    )


def test_no_chain_of_imports_reaches_what_a_room_must_not_load() -> None:
    complain(
        f"importing {module} brings in {library}, which nothing in {room} may"
        for room, libraries in NEVER_REACHES.items()
        for module in MODULES
        if within(module, [room])
        for library in third_party(reached_from(module)) & set(libraries)
    )


def test_kernels_know_jax_and_numpy_and_the_sandbox_at_most_numpy() -> None:
    allowed = {f"{PACKAGE}.kernels": {"jax", "jaxtyping", "numpy"}, f"{PACKAGE}.sandbox": {"numpy"}}
    complain(
        f"{module} imports {library}, which {room} may not"
        for room, libraries in allowed.items()
        for module, file in MODULES.items()
        if within(module, [room])
        for library in third_party(imports_of(file)) - libraries
    )


# --------------------------------------------------------------------------------------------------- files and names


def repository_files() -> Iterator[Path]:
    """The files of the repository, relative to its root: what git would track."""
    made = re.compile(r"\.(?!ci$|git\w|bazel)|(__pycache__|build|dist|runs)$|bazel-|.*\.egg-info$")
    for top in sorted(ROOT.iterdir()):
        if not made.match(top.name):
            for file in [top] if top.is_file() else sorted(top.rglob("*")):
                path = file.relative_to(ROOT)
                if file.is_file() and not any(made.match(part) for part in path.parts):
                    yield path


def test_no_file_names_a_place_on_its_authors_machine() -> None:
    place = re.compile(rb"(?<![\w.:/<-])/(?:home|root|work|Users)/\w")
    complain(
        f"{path}:{number}: an absolute path of one machine: {line.strip()[:80].decode('utf-8', 'replace')}"
        for path in repository_files()
        for number, line in enumerate((ROOT / path).read_bytes().splitlines(), 1)
        if place.search(line)
    )


def test_the_root_holds_the_rooms_and_nothing_else() -> None:
    """What a command or a test left there by mistake is seen before it is committed."""
    rooms = {"opencoder_jax", "beam_pipelines", "gin_configs", "kernels", "tests", "docs", ".ci", ".github"}
    complain(
        f"{top}/ is no room of the house"
        for top in sorted({path.parts[0] for path in repository_files() if len(path.parts) > 1} - rooms)
    )


def test_every_folder_with_modules_is_a_package() -> None:
    complain(
        f"{folder.relative_to(ROOT)}/__init__.py is missing"
        for folder in {file.parent for file in MODULES.values()}
        if not (folder / "__init__.py").is_file()
    )


def test_a_package_imports_nothing() -> None:
    complain(
        f"{file.relative_to(ROOT)} imports {found}: what imports one module of a package would load it too"
        for file in MODULES.values()
        if file.name == "__init__.py"
        for found in imports_of(file)
        if found.split(".")[0] not in sys.stdlib_module_names
    )


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    complain(
        f"{path}: a module is called by what it does"
        for path in repository_files()
        if path.suffix == ".py" and path.stem in ("utils", "util", "helpers", "misc", "common")
    )


def test_tests_have_names_of_their_own() -> None:
    """Test folders are no packages, so pytest tells two files of one name apart only by luck."""
    first: dict[str, Path] = {}
    complain(
        f"{file} and {first[file.name]} have one name" for file in TESTS if first.setdefault(file.name, file) != file
    )


def test_every_field_of_a_recipe_says_what_it_means() -> None:
    complain(
        f"{entry.module}: {entry.name}.{field.name} has no meaning, in the docstring's Attributes or a comment"
        for entry in catalog().values()
        for field in entry.fields.values()
        if not field.meaning
    )


def test_no_two_classes_have_one_name() -> None:
    """A name has one meaning: a reader who searches for it finds one class."""
    places: dict[str, list[str]] = {}
    for module, file in MODULES.items():
        for node in tree_of(file).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    complain(f"{name} is a class of {' and of '.join(found)}" for name, found in places.items() if len(found) > 1)
