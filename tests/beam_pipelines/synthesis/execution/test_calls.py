"""Executed items: what is asserted was returned, twice; what reaches outside, remembers or is drawn isn't asserted."""

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.synthesis.execution import signatures
from opencoder_jax.beam_pipelines.synthesis.execution.calls import CallsConfig, RunCalls
from opencoder_jax.beam_pipelines.synthesis.execution.functions import functions
from opencoder_jax.beam_pipelines.synthesis.execution.seed_functions import SeedFunctions, SeedFunctionsConfig
from opencoder_jax.beam_pipelines.synthesis.execution.signatures import SignaturesConfig
from opencoder_jax.beam_pipelines.synthesis.instructions import chats
from opencoder_jax.recipe import UserError

Batch = Callable[..., pa.RecordBatch]

MODULE = '''
import math, os, random
SEEN = {}
COUNT = [0]

def half(n):
    """Half of a number, rounded down, or nothing of a negative one."""
    if n < 0:
        return 0
    return math.floor(n / 2)

def shout(text: str, mark="!") -> str:
    """A text in capitals."""
    return text.upper() + mark

def remembers(x):
    """How many were seen before this one."""
    return SEEN.setdefault(repr(x), len(SEEN))

def drawn(x):
    """By chance."""
    return random.random()

def ordered(text: str):
    """In whatever order."""
    return list(set(text))

def changes(xs: list):
    """The list, longer."""
    xs.append(1)
    return xs

def constant(x):
    """Always one."""
    return 1

def removes(path):
    """Takes a file away."""
    os.remove(path)
    return path

def reads(path):
    """Opens a file."""
    return open(path).read()

def half_again(n):
    """Half of a number, rounded down, or nothing of a negative one."""
    return half(n)
'''


ENDLESS = "\ndef endless(n):\n    while True:\n        pass\n    return n\n"


@pytest.mark.slow
def test_what_never_ends_is_ended(batch: Batch) -> None:
    result = RunCalls(CallsConfig(cpu_seconds=1))(batch(ENDLESS + "\ndef twice(n: int):\n    return 2 * n\n"))
    assert result.table.column("path").to_pylist() == ["0.py#twice"]
    assert result.counts["calls: takes no input"] == 1


def test_only_what_depends_on_its_arguments_alone_is_asserted(batch: Batch) -> None:
    result = RunCalls(CallsConfig(cpu_seconds=1))(batch(MODULE, {"text": MODULE, "language": "C"}))
    paths, sources = (result.table.column(name).to_pylist() for name in ("path", "text"))
    texts = {path.split("#")[1]: text for path, text in zip(paths, sources, strict=True)}
    assert set(texts) == {"half", "shout", "half_again"}
    for text in texts.values():
        space: dict[str, Any] = {}
        exec(text, space)  # its assertions hold
        assert 2 <= text.count("\nassert ") <= 5
    kinds = [kind for kind, _ in chats(texts["shout"], 3)]
    assert kinds == ["write", "explain", "value0", "value1", "value2"]
    counts = result.counts
    assert counts["calls: flaky"] == 2  # remembers, ordered
    assert counts["calls: always returns the same"] == 1  # constant
    assert counts["calls: takes no input"] == 1  # changes
    assert counts["left out: imports what reaches outside"] == 2
    assert counts["left out: reaches outside"] == 1


def test_seeds_are_documented_functions_that_stand_alone_and_differ(batch: Batch) -> None:
    twice = MODULE + "\ndef short(x):\n    return x\n"
    result = SeedFunctions(SeedFunctionsConfig(least_lines=4))(batch(MODULE, twice))
    assert result.table.column("path").to_pylist() == ["0.py#half"]
    assert result.table.column("text")[0].as_py().startswith("import math\n\n\ndef half(n):")
    assert result.counts["functions: seen before"] == 1
    assert sum(result.counts.values()) == 21


def test_nothing_comes_of_what_is_no_python() -> None:
    assert list(functions("def f(:", 1, 9)) == []
    assert list(functions("", 1, 9)) == []


PACKAGES = (
    "numpy",
    "pyarrow",
    "fractions",
    "tqdm",
    "gin",
    "yaml",
    "json",
    "statistics",
    "difflib",
    "textwrap",
    "heapq",
)


def resolve(name: str) -> Any:
    package, *path = name.split(".")
    found: Any = importlib.import_module(package)
    for part in path:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("packages", [PACKAGES[-4:], pytest.param(PACKAGES, marks=pytest.mark.slow)])
def test_signatures_are_those_of_inspect(tmp_path: Path, packages: tuple[str, ...]) -> None:
    made = signatures.run(
        output=str(tmp_path), config=SignaturesConfig(packages=packages, most=40), options=BeamOptions()
    )
    rows = [row for file in sorted(tmp_path.glob("documents-*")) for row in pq.read_table(file).to_pylist()]
    assert {row["repository"] for row in rows} == set(packages)
    assert made.total("out", "documents") == len(rows) > 5 * len(packages)
    for row in rows:
        about = json.loads(row["text"])
        value = resolve(about["name"])
        assert about["signature"] == str(inspect.signature(value)), about["name"]
        assert (inspect.getdoc(value) or "").startswith(about["documentation"])
        names, least, most, others = about["accepts"]
        kinds = [parameter.kind for parameter in inspect.signature(value).parameters.values()]
        assert others == (inspect.Parameter.VAR_KEYWORD in kinds)
        assert (most is None) == (inspect.Parameter.VAR_POSITIONAL in kinds)
        assert least <= len(kinds)
        assert set(names) <= set(inspect.signature(value).parameters)
        if (
            hasattr(package := importlib.import_module(row["repository"]), "__version__")
            and row["repository"] != "json"
        ):
            assert about["version"] == package.__version__


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere_found: no such package is installed"):
        signatures.run(
            output=str(tmp_path), config=SignaturesConfig(packages=("nowhere_found",)), options=BeamOptions()
        )
    with pytest.raises(ValueError, match="without dots"):
        SignaturesConfig(packages=("numpy.linalg",))
