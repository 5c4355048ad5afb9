"""Writes BUILD from the imports of the sources: `make build-file`, or `python -m tests.make_build`.

A library is a room: a folder's modules, with the files beside them as data. A module that lies in no room, or needs
what most users of its room needn't install (`APART`), is a library of its own. Deps are what the sources import, read
and not run; a program depends on all that it can start. Files have the paths of their import names, through the links.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "opencoder_jax"
PIPELINES = f"{PACKAGE}.beam_pipelines"
# Packages without a room's modules: everything below them depends on their `__init__.py`.
HALLS = (PACKAGE, PIPELINES, f"{PACKAGE}.kernels")
# Who trains, answers or makes token records needs no TensorFlow.
APART = (f"{PACKAGE}.data.tasks",)
# The programs, by the names of the console scripts, with what each can start.
PROGRAMS = {"opencoder-jax": PACKAGE, "opencoder-beam": PIPELINES}

HEAD = '''"""The libraries, programs and tests of the house, as `make build-file` writes them from the imports."""

load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])

filegroup(
    name = "recipes",
    srcs = glob(["opencoder_jax/gin_configs/**/*.gin"]),
)
'''

TESTS = """
[
    py_test(
        name = file[:-3].replace("/", "."),
        size = "large",
        srcs = [
            file,
            "tests/conftest.py",
            "tests/run_pytest.py",
        ],
        args = [file],
        data = glob([folder + "/**/*"]) + [
            "pyproject.toml",
            ":recipes",
        ],
        main = "tests/run_pytest.py",
        deps = deps,
    )
    for folder, deps in TESTS.items()
    for file in glob([folder + "/test_*.py"])
]

# These read the whole house.
[
    py_test(
        name = file[:-3].replace("/", "."),
        size = "large",
        srcs = [
            file,
            "tests/conftest.py",
            "tests/make_build.py",
            "tests/run_pytest.py",
        ],
        args = [file],
        data = glob([
            "*",
            "beam_pipelines/**/*",
            "docs/**/*",
            "gin_configs/**/*",
            "kernels/**/*",
            "opencoder_jax/**/*",
            "tests/**/*",
        ]),
        main = "tests/run_pytest.py",
        deps = HOUSE,
    )
    for file in glob(["tests/test_*.py"])
]
"""


def folders(top: Path) -> Iterator[Path]:
    """`top` and the folders below it, sorted, through links."""
    yield top
    for entry in sorted(top.iterdir()):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from folders(entry)


def module_name(file: Path) -> str:
    """`opencoder_jax/data/fim.py` is opencoder_jax.data.fim; a package's `__init__.py` is the package."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FOLDERS = tuple(folders(ROOT / PACKAGE))
MODULES = {module_name(file): file for folder in FOLDERS for file in sorted(folder.glob("*.py"))}
HELPERS = {file.stem for file in (ROOT / "tests").rglob("*.py")} | {"tests"}


def owner(module: str) -> str:
    """The library that a module is part of; none has the programs."""
    if module.endswith("__main__"):
        return ""
    parent = module.rpartition(".")[0]
    alone = module in APART or parent in HALLS or MODULES[module].name == "__init__.py"
    return module if alone else parent


@cache
def installed() -> dict[str, str]:
    """The distribution of each library that can be imported: gin is gin-config."""
    found = {name: min(names, key=len).lower().replace("_", "-") for name, names in packages_distributions().items()}
    return found | {"google": "google-cloud-storage"}  # a name that many share


@cache
def imports(file: Path, named: bool = True) -> tuple[frozenset[str], frozenset[str]]:
    """What a file imports: modules of the house, with those that it names in a string to run or import; libraries."""
    found = set()
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in MODULES else str(node.module) for name in inner)
        elif named and isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            found.update({node.value} & MODULES.keys())
    libraries = {name.split(".")[0] for name in found} - HELPERS - sys.stdlib_module_names - {PACKAGE}
    if file.is_relative_to(ROOT / "tests"):
        libraries &= installed().keys()  # the others are modules that a test itself writes
    if missing := libraries - installed().keys():
        raise LookupError(f"{file} imports {', '.join(missing)}: not installed; is it in pyproject.toml?")
    return frozenset(found & MODULES.keys()), frozenset(libraries)


def deps_of(files: Iterable[Path], own: str = "") -> list[str]:
    """The labels that sources need, sorted as buildifier does."""
    modules, libraries = (set().union(*found) for found in zip(*map(imports, files), strict=True))
    ours = {owner(module) for module in modules} | {hall for hall in HALLS if f"{own}.".startswith(f"{hall}.")}
    if not own and modules:
        ours |= {hall for hall in HALLS for module in modules if module.startswith(f"{hall}.")}
    return [f":{name}" for name in sorted(ours - {own, ""})] + sorted(
        f"@pypi//{installed()[library].replace('-', '_')}" for library in libraries
    )


def value_of(items: Iterable[str], indent: str) -> str:
    """A list as buildifier writes it."""
    lines = [f'"{item}"' for item in items]
    if len(lines) < 2:
        return f"[{''.join(lines)}]"
    return "[\n" + "".join(f"{indent}    {line},\n" for line in lines) + f"{indent}]"


def rule(kind: str, name: str, **attributes: str | Iterable[str]) -> str:
    """One target; a list of files or labels that is empty is left out."""
    lines = [f'    name = "{name}",']
    for key, value in attributes.items():
        if value:
            lines.append(f"    {key} = {value if isinstance(value, str) else value_of(value, '    ')},")
    return "\n".join([f"\n{kind}(", *lines, ")\n"])


def libraries() -> Iterator[str]:
    """All libraries, in the order of their names."""
    sources: dict[str, list[Path]] = {}
    for module, file in MODULES.items():
        if owner(module):
            sources.setdefault(owner(module), []).append(file)
    for name, files in sorted(sources.items()):
        folder = files[0].parent
        path = folder.relative_to(ROOT).as_posix()
        apart = [f"{each.removeprefix(f'{name}.')}.py" for each in APART if each.rpartition(".")[0] == name]
        srcs: str | list[str] = [str(file.relative_to(ROOT)) for file in files]
        data: list[str] = []
        if name not in HALLS and any(file.name == "__init__.py" for file in files):
            srcs = f'glob(["{path}/*.py"])'
            if apart:
                excluded = value_of([f"{path}/{each}" for each in apart], "        ")
                srcs = f'glob(\n        ["{path}/*.py"],\n        exclude = {excluded},\n    )'
        if any(file.name == "__init__.py" for file in files):
            data = sorted(data_of(folder))
        if name == f"{PACKAGE}.recipe":
            data = [":recipes"]
        yield rule("py_library", name, srcs=srcs, data=data, deps=deps_of(files, name))


def data_of(folder: Path) -> Iterator[str]:
    """The files beside a package's modules, also in folders below it that hold no modules; recipes stand apart."""
    for entry in folder.iterdir():
        if entry.is_file() and entry.suffix not in (".py", ".pyc"):
            yield str(entry.relative_to(ROOT))
        elif entry.is_dir() and entry.name not in ("__pycache__", "gin_configs") and not [*entry.glob("*.py")]:
            yield from data_of(entry)


def programs() -> Iterator[str]:
    """Both programs, each with every library of its part of the house."""
    for name, top in PROGRAMS.items():
        main = MODULES[f"{top}.__main__"]
        modules = [module for module in MODULES if f"{module}.".startswith(f"{top}.") and module not in APART]
        deps = sorted({f":{owner(module)}" for module in modules if owner(module)} | {*deps_of([main])})
        path = str(main.relative_to(ROOT))
        yield rule("py_binary", name, srcs=[path], main=f'"{path}"', deps=deps)


def tests() -> str:
    """The tests' deps, a folder a line, and the targets that are made of them."""
    files = {folder: sorted(folder.glob("*.py")) for folder in folders(ROOT / "tests")}
    common = [ROOT / "tests" / "conftest.py", ROOT / "tests" / "run_pytest.py"]
    lines = ["\nTESTS = {"]
    for folder, found in files.items():
        if folder != ROOT / "tests" and any(file.name.startswith("test_") for file in found):
            path = str(folder.relative_to(ROOT))
            lines.append(f'    "{path}": {value_of(deps_of([*found, *common]), "    ")},')
    lines += ["}", "", f"HOUSE = {value_of(deps_of(files[ROOT / 'tests']), '')}"]
    return "\n".join(lines) + "\n" + TESTS


def build_file() -> str:
    """The text of BUILD."""
    return HEAD + "".join(libraries()) + "".join(programs()) + tests()


if __name__ == "__main__":
    (ROOT / "BUILD").write_text(build_file())
