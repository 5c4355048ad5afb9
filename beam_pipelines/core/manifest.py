"""What a finished stage says of itself, and how its counts add up.

`stage.json` holds what ran (stage, configuration, a digest of the code), on what (fingerprints of the inputs), what
came out (documents and bytes in and out per language, drops per reason, counters) and the digest of every file. Nothing
in it depends on the place, the time, the runner or the number of workers.
"""

import ast
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

MANIFEST = "stage.json"
PLAN = "plan.json"  # the head of the manifest, while the stage isn't finished
PACKAGES = ("beam_pipelines", "kernels", "opencoder_jax")

# A tree of counts: {"in": {"documents": {"Python": 3}}, "drop": {"bytes": {"too_large": 9}}, "count": {...}}
Tally = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """What a finished stage says of itself (`stage.json`)."""

    stage: str
    config: dict[str, Any]
    code: str
    inputs: list[str]
    tally: Tally
    files: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A digest of what came out: what the next stage calls its input."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.files, sort_keys=True).encode())

    @classmethod
    def read(cls, directory: str) -> "Manifest":
        """Raises UserError where no finished stage is."""
        place = Directory(directory)
        if not place.exists(MANIFEST):
            state = "isn't finished" if place.exists(PLAN) else "holds no stage.json"
            raise UserError(f"{directory}: {state}; run the stage that writes it first")
        return cls(**place.read_json(MANIFEST))

    def shards(self, table: str = "documents") -> list[str]:
        """The names of a table's shards, in order."""
        return [name for name in sorted(self.files) if name.startswith(f"{table}-")]

    def total(self, *path: str) -> int:
        """The sum of all counts below a path: `total("out", "bytes")`."""
        return _total(self.table(*path))

    def table(self, *path: str) -> dict[str, Any]:
        """The counts below a path: `table("drop", "documents")` is documents per reason."""
        tree = self.tally
        for step in path:
            tree = tree.get(step, {})
        return tree


def describe(manifest: Manifest) -> str:
    """A line for people: documents and megabytes in and out (a tokenizer has no documents out), and why some fell."""

    def side(name: str) -> str:
        return f"{manifest.total(name, 'documents')} documents ({manifest.total(name, 'bytes') / 1e6:.1f} MB) {name}"

    drops = sorted(manifest.table("drop", "documents").items(), key=lambda item: -item[1])
    reasons = ", ".join(f"{reason} {count}" for reason, count in drops[:4])
    sides = [side(name) for name in ("in", "out") if name in manifest.tally]
    return f"{manifest.stage}: {', '.join(sides)}" + (f"; dropped: {reasons}" if reasons else "")


def digest(directory: Directory, name: str) -> str:
    """128 bits of a file's content, in hexadecimal."""
    hasher = xxhash.xxh3_128()
    with directory.read(name) as stream:
        while block := stream.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def tally_documents(side: str, documents: pa.RecordBatch) -> Tally:
    """Documents and bytes per language of a batch, under `side` ("in" or "out")."""
    return {side: _tally_by(documents, "language")}


def tally_drops(drops: pa.RecordBatch) -> Tally:
    """Documents and bytes per reason of a batch of drops."""
    return {"drop": _tally_by(drops, "reason")}


def _tally_by(batch: pa.RecordBatch, column: str) -> Tally:
    if batch.num_rows == 0:
        return {}
    keys = batch.column(column).dictionary_encode()
    names, places = keys.dictionary.to_pylist(), keys.indices.to_numpy()
    sums = np.zeros(len(names), np.int64)
    np.add.at(sums, places, batch.column("bytes").to_numpy())
    counts = np.bincount(places, minlength=len(names))
    return {
        "documents": dict(zip(names, counts.tolist(), strict=True)),
        "bytes": dict(zip(names, sums.tolist(), strict=True)),
    }


def merge_tallies(tallies: Iterable[Tally]) -> Tally:
    """Adds trees of counts, key by key."""
    merged: Tally = {}
    for tally in tallies:
        for key, value in tally.items():
            if isinstance(value, dict):
                merged[key] = merge_tallies([merged.get(key, {}), value])
            else:
                merged[key] = merged.get(key, 0) + value
    return merged


def _total(tree: Tally | int) -> int:
    return sum(_total(branch) for branch in tree.values()) if isinstance(tree, dict) else tree


@cache
def code_version(module: str) -> str:
    """A digest of a module's source, of all sources of ours that it imports, and of the data files beside them.

    A module `x.py` may keep data files in its own folder and in a folder `x`. Imports are read, not run.
    """
    seen: dict[str, Path] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        spec = importlib.util.find_spec(name)
        if name in seen or spec is None or spec.origin is None:
            continue
        seen[name] = Path(spec.origin)
        for node in ast.walk(ast.parse(seen[name].read_bytes())):
            if isinstance(node, ast.Import):
                queue += [alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                # `from package import module` or `from module import name`: the second has no module of that name
                members = [f"{node.module}.{alias.name}" for alias in node.names]
                queue += [node.module or "", *(member for member in members if _is_module(member))]
    hasher = xxhash.xxh3_128()
    data: set[Path] = set()
    for source in seen.values():
        found = [*source.parent.glob("*.*"), *source.with_suffix("").rglob("*.*")]
        data |= {path for path in found if path.suffix in (".json", ".jsonl", ".toml")}
    for path in [*(seen[name] for name in sorted(seen)), *sorted(data)]:
        hasher.update(path.name.encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
