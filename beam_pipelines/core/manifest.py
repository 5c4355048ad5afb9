"""What a finished stage says of itself, and how its counts add up.

`stage.json` holds what ran (stage, configuration, a digest of the code), on what (fingerprints of the inputs), what
came out (documents and bytes in and out per language, drops per reason, counters), the size and the digest of every
file, and a seal of its own. Nothing in it depends on the place, the time, the runner or the number of workers.

Who reads a file of a finished stage reads all of it first, for its digest (`open_finished`). A check of single pages,
as Parquet has it, leaves out their headers and the file's tables, where a flipped bit gives other rows without a word.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

MANIFEST = "stage.json"
QUARANTINE = "quarantine"  # the folder of what broke its reader, and the tally's branch
PARTS = "parts.json"  # what became of each part of the input, so that a run with another input can keep it
PLAN = "plan.json"  # the head of the manifest, while the stage isn't finished

DAMAGED = "damaged after it was written"
_REASONS = 12  # for drops that are told by name; all are in the manifest

# A tree of counts: {"in": {"documents": {"Python": 3}}, "drop": {"bytes": {"too_large": 9}}, "count": {...}}
Tally = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """What a finished stage says of itself (`stage.json`).

    Attributes:
        stage, config: what ran.
        code: digests of the definitions that made it, by their modules (opencoder_jax/code_version.py).
        inputs: the fingerprints of its inputs.
        tally: what came in and out.
        files: the digest of each file.
        sizes: the bytes of each file; older versions didn't say.
        stale: why an older output in the same place was made again; empty where there was none.
        accepted: what had changed when the user accepted this output all the same (`--accept`).
    """

    stage: str
    config: dict[str, Any]
    code: dict[str, str]
    inputs: list[str]
    tally: Tally
    files: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """A digest of what came out: what the next stage calls its input."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.files, sort_keys=True).encode())

    @classmethod
    def read(cls, directory: str) -> "Manifest":
        """Raises UserError where no finished stage is, or its manifest is damaged."""
        place = Directory(directory)
        try:
            found = place.read_sealed(MANIFEST)
        except (FileNotFoundError, NotADirectoryError):
            state = "isn't finished" if place.exists(PLAN) else "holds no stage.json"
            raise UserError(f"{directory}: {state}; run the stage that writes it first") from None
        known = {each.name for each in fields(cls)}
        trees = ("config", "tally", "files", "sizes")
        if (
            not isinstance(found, dict)
            or not {"stage", "config", "code", "inputs", "tally"} <= found.keys() <= known
            or not all(isinstance(found.get(name, {}), dict) for name in trees)
        ):
            raise UserError(
                f"{directory}/{MANIFEST}: no manifest of a stage, or a damaged one; delete the directory and run the "
                "command that wrote it again"
            )
        return cls(**found)

    def write(self, directory: Directory) -> None:
        """Finishes a stage."""
        directory.write_sealed(MANIFEST, asdict(self))
        _finished.cache_clear()  # the times of a bucket's objects are whole seconds

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


def changes(manifest: Manifest, head: dict[str, Any]) -> list[str]:
    """What differs between a finished stage and one that is about to run with `head`, each in a few words."""
    if manifest.stage != head["stage"]:
        return [f"it was written by the stage {manifest.stage}"]
    was, now = _leaves(manifest.config), _leaves(head["config"])
    found = [
        f"{name} was {was.get(name, 'not there')}, is {now.get(name, 'not there')}"
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    ]
    if not isinstance(manifest.code, dict):
        found.append("an older version of this project made it")
    elif changed := sorted(
        module
        for module in manifest.code.keys() | head["code"].keys()
        if manifest.code.get(module) != head["code"].get(module)
    ):
        found.append(f"the code of {', '.join(changed)} changed")
    if manifest.inputs != head["inputs"]:
        pairs = zip_longest(manifest.inputs, head["inputs"])
        numbers = [str(number) for number, (old, new) in enumerate(pairs, 1) if old != new]
        found.append(f"input {' and '.join(numbers)} changed")
    return found


def _leaves(tree: Any, name: str = "") -> dict[str, Any]:
    """The values of nested dictionaries and lists, by their dotted names."""
    if isinstance(tree, list):
        tree = {str(index): value for index, value in enumerate(tree)}
    if not isinstance(tree, dict) or not tree:
        return {name: tree}
    return {
        leaf: value
        for key, branch in tree.items()
        for leaf, value in _leaves(branch, f"{name}.{key}".lstrip(".")).items()
    }


def describe(manifest: Manifest) -> str:
    """A line for people: documents and megabytes in and out (a tokenizer has no documents out), and why some fell."""

    def side(name: str) -> str:
        return f"{manifest.total(name, 'documents')} documents ({manifest.total(name, 'bytes') / 1e6:.1f} MB) {name}"

    drops = sorted(manifest.table("drop", "documents").items(), key=lambda item: -item[1])
    shown, rest = drops[:_REASONS], sum(count for _, count in drops[_REASONS:])
    told = [*shown, *([(f"{len(drops) - _REASONS} other reasons", rest)] if rest else [])]
    reasons = ", ".join(f"{reason} {count}" for reason, count in told)
    sides = [side(name) for name in ("in", "out") if name in manifest.tally]
    if broken := manifest.total(QUARANTINE, "documents"):
        sides.append(f"{broken} in {QUARANTINE}")
    return f"{manifest.stage}: {', '.join(sides)}" + (f"; dropped: {reasons}" if reasons else "")


def digest(directory: Directory, name: str) -> str:
    """128 bits of a file's content, in hexadecimal."""
    with directory.fetch(name) as stream:
        return _digest(stream)


def _digest(stream: pa.NativeFile) -> str:
    hasher = xxhash.xxh3_128()
    while block := stream.read(1 << 20):
        hasher.update(block)
    return hasher.hexdigest()


def open_finished(directory: Directory, name: str) -> pa.NativeFile:
    """Opens a file once all of it was found as the stage that wrote it left it; a process looks once at each.

    What comes from a bucket is a copy on this machine, looked at each time. Files of directories that aren't finished
    stages, or that a stage doesn't count as its own, are opened as they are.

    Raises:
        UserError: the file, or the stage's manifest, is damaged or missing.
    """
    if directory.exists(MANIFEST):
        known = _finished(directory.uri, directory.changed(MANIFEST)).files.get(name)
        if known is not None:
            return open_whole(directory, name, known)
    return directory.read(name)


def open_whole(directory: Directory, name: str, known: str) -> pa.NativeFile:
    """Opens a file of a stage, finished or not, once all of it was found to have the digest `known`.

    Raises:
        UserError: it's damaged or missing.
    """
    if directory.local():
        _refuse_damaged(directory.uri, name, known, directory.size(name), directory.changed(name))
        return directory.read(name)
    try:
        stream = directory.fetch(name)
    except FileNotFoundError:
        raise _damaged(directory, name, "missing") from None
    if _digest(stream) != known:
        raise _damaged(directory, name, DAMAGED)
    stream.seek(0)
    return stream


def read_finished(directory: Directory, name: str) -> bytes:
    """The content of a file, as `open_finished` opens it."""
    with open_finished(directory, name) as stream:
        return stream.read()


@lru_cache(16)
def _finished(uri: str, changed: int) -> Manifest:
    return Manifest.read(uri)


@lru_cache(1 << 16)
def _refuse_damaged(uri: str, name: str, known: str, size: int, changed: int) -> None:
    if why := damage(Directory(uri), name, known):
        raise _damaged(Directory(uri), name, why)


def _damaged(directory: Directory, name: str, why: str) -> UserError:
    return UserError(
        f"{directory.uri}/{name}: {why}; delete it and run the command that wrote it again, which makes only what is "
        f"missing (python -m beam_pipelines verify {directory.uri} --delete looks at every file)"
    )


def damage(directory: Directory, name: str, known: str) -> str:
    """What is wrong with a file whose digest should be `known`, in a few words; nothing where it's whole."""
    if not directory.exists(name):
        return "missing"
    return "" if digest(directory, name) == known else DAMAGED


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


def check_balance(stage: str, tally: Tally) -> None:
    """Asserts that what came in is what came out, was dropped, or broke its reader: nothing vanishes.

    A stage that makes documents of its own counts what it `read` for them and what it `made`.
    """
    if "in" not in tally or "out" not in tally:
        return
    seen, out, dropped, broken, read, made = (
        _total(tally.get(side, {}).get("documents", {})) for side in ("in", "out", "drop", QUARANTINE, "read", "made")
    )
    assert seen + made == out + dropped + broken + read, (
        f"{stage}: {seen} in and {made} made, but {out} out, {dropped} dropped, {broken} in quarantine, {read} read"
    )


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
