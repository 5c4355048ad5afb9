"""Seeds for exercises: documented functions of the corpus that stand alone and touch nothing outside.

OpenCoder's Educational-Instruct begins with functions of the algorithmic corpus that a small model scored (section
4.1); which model is not told. Here plain rules choose: a docstring of several words, a length that teaches something, a
branch or a loop, and no two alike.
"""

import ast
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, document_id
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.synthesis.doctests import Snippet
from opencoder_jax.beam_pipelines.synthesis.execution.functions import functions
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import configurable

_STEPS = (ast.If, ast.For, ast.While, ast.IfExp, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp)


@configurable
@dataclass(frozen=True)
class SeedFunctionsConfig:
    """Which functions are seeds.

    Attributes:
        least_lines: of a function.
        max_lines: of a seed, what the function needs included.
        least_words: of its docstring.
    """

    least_lines: int = 5
    max_lines: int = 40
    least_words: int = 5

    def __post_init__(self) -> None:
        check(self, least_lines=at_least(1), max_lines=at_least(self.least_lines), least_words=at_least(0))


@dataclass(frozen=True)
class SeedFunctions:
    """The kernel: Python documents -> a document for each function that is fit for a seed."""

    config: SeedFunctionsConfig
    makes_documents: ClassVar[bool] = True

    def __call__(self, documents: pa.RecordBatch) -> Result:
        rows: list[dict[str, Any]] = []
        counts: Counter[str] = Counter()
        seen: set[str] = set()
        config = self.config
        for document in documents.to_pylist():
            if document["language"] != "Python":
                continue
            for found in functions(document["text"], config.least_lines, config.max_lines):
                problem = found if isinstance(found, str) else _unfit(found, config.least_words, seen)
                counts[f"functions: {problem or 'seeds'}"] += 1
                if not problem and isinstance(found, Snippet):
                    path, text = f"{document['path']}#{found.name}", found.source + "\n"
                    change = {"id": document_id(document["repository"], path), "path": path, "text": text}
                    rows.append({**document, **change, "source": "seed_functions", "bytes": len(text.encode())})
        return Result(pa.RecordBatch.from_pylist(rows, schema=SCHEMA), (), counts)


def _unfit(snippet: Snippet, least_words: int, seen: set[str]) -> str:
    """Why a function is no seed; "" for one that is, which is then known."""
    module = ast.parse(snippet.source)
    function = module.body[-1]
    assert isinstance(function, ast.FunctionDef)
    if len((ast.get_docstring(function) or "").split()) < least_words:
        return "undocumented"
    if not any(isinstance(node, _STEPS) for node in ast.walk(function)):
        return "too simple"
    shape = ast.dump(module)
    if shape in seen:
        return "seen before"
    seen.add(shape)
    return ""


def run(documents: str, output: str, config: SeedFunctionsConfig, options: BeamOptions) -> Manifest:
    """Writes a document of each function that is fit for a seed.

    Args:
        documents: what seeds are cut out of.
    """
    return map_stage("seed_functions", SeedFunctions(config), [documents], output, config, options)
