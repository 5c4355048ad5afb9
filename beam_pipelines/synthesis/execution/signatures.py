"""What installed packages offer today: the signature and documentation of each public function and class.

OpenCoder's Package-Instruct guards against outdated usage by giving the teacher what PyDoc says of a package (section
4.1). Here `inspect` says it, of the versions that are installed where this runs. Packages are imported in the sandbox:
what they do at import reaches nothing.

Cost: the import of each package.
"""

import importlib.metadata
import json
import platform
import re
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, ShardWriter, document_id, shard_name
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, merge_tallies, tally_documents
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, gather_reports, report_shard
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import UserError, configurable
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits

_LIMITS = Limits(cpu_seconds=60, idle_seconds=30.0, memory_bytes=8 << 30, output_bytes=64 << 20, file_bytes=1 << 16)
# A default that has no text of its own is shown by what it is in this process.
_OBJECT = re.compile(r"=\s*<(?!class |no value>)| at 0x")
_MARK = f"signatures-{secrets.token_hex(8)} "
# Runs in the sandbox. A module's own public names, then those of the modules that it shows; each object once, under the
# first name that it's found by.
_LOOK = """
import importlib, inspect, json, types

def _accepts(signature):
    kinds = inspect.Parameter
    fixed = [p for p in signature.parameters.values() if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    names = [p.name for p in fixed if p.kind != kinds.POSITIONAL_ONLY]
    least = sum(p.default is p.empty for p in fixed)
    every = any(p.kind == kinds.VAR_POSITIONAL for p in signature.parameters.values())
    most = None if every else sum(p.kind != kinds.KEYWORD_ONLY for p in fixed)
    return [names, least, most, any(p.kind == kinds.VAR_KEYWORD for p in signature.parameters.values())]

def _look(module, path, root, deeper, seen):
    inner = []
    for name in sorted(getattr(module, "__all__", None) or dir(module)):
        value = getattr(module, name, None)
        if name.startswith("_") or value is None:
            continue
        if isinstance(value, types.ModuleType):
            if deeper and value.__name__ == f"{path}.{name}":
                inner.append((value, f"{path}.{name}"))
            continue
        if not callable(value) or id(value) in seen or not isinstance(getattr(value, "__module__", None), str):
            continue
        if value.__module__.lstrip("_").split(".")[0] != root or not (documentation := inspect.getdoc(value)):
            continue
        try:
            signature = inspect.signature(value)
        except (ValueError, TypeError):
            continue
        seen.add(id(value))
        yield {"name": f"{path}.{name}", "signature": str(signature), "accepts": _accepts(signature),
               "documentation": documentation}
    for value, name in inner:
        yield from _look(value, name, root, False, seen)

"""
_SAY = """
_found = list(_look(importlib.import_module({name!r}), {name!r}, {name!r}, True, set()))
print({mark!r} + json.dumps(_found))
"""

# Of Python's own library, where no other package is named.
_LIBRARY: tuple[str, ...] = (
    "bisect",
    "calendar",
    "collections",
    "datetime",
    "difflib",
    "fractions",
    "functools",
    "heapq",
    "itertools",
)
_LIBRARY = (*_LIBRARY, "json", "operator", "re", "statistics", "string", "textwrap")


@configurable
@dataclass(frozen=True)
class SignaturesConfig:
    """Which packages are looked at.

    Attributes:
        packages: by the names that they're imported by; each must be installed here.
        most: functions and classes of a package.
        most_characters: of a documentation; longer ones are cut at a line's end.
        without_walls: of the sandbox, that this machine may lack though nothing else stands where they should.
    """

    packages: tuple[str, ...] = _LIBRARY
    most: int = 200
    most_characters: int = 3000
    without_walls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self, most=at_least(1), most_characters=at_least(100))
        if not self.packages or not all(name.isidentifier() for name in self.packages):
            raise ValueError(f"packages={self.packages!r}: must be names such as 'numpy', without dots, one at least")


@dataclass(frozen=True)
class SeenPackages:
    """For the manifest: another version is another input."""

    signatures: SignaturesConfig
    versions: dict[str, str]


def version(package: str) -> str:
    """Of an installed package; Python's own for a module of its library. Raises UserError where there's none."""
    if package in sys.stdlib_module_names:
        return platform.python_version()
    if not (names := _distributions().get(package)):
        raise UserError(f"{package}: no such package is installed here; pip install it, or take it out of the recipe")
    return importlib.metadata.version(names[0])


def license_of(package: str) -> str:
    """What a package's metadata say, in a line."""
    if package in sys.stdlib_module_names:
        return "PSF-2.0"
    about = importlib.metadata.metadata(_distributions()[package][0])
    return ((about["License-Expression"] or about["License"] or "").splitlines() or [""])[0][:80]


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: list(found) for name, found in importlib.metadata.packages_distributions().items()}


def signatures(package: str, sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    """What a package offers: the full name, signature and documentation of each function and class.

    Yields:
        Objects with `accepts` beside these: names of keywords, how many arguments at least and by position at most
        (None: any number), whether others are taken.

    Raises:
        UserError: it can't be imported in the sandbox.
    """
    outcome = sandbox.run(_LOOK + _SAY.format(name=package, mark=_MARK))
    for line in outcome.stdout.splitlines():
        if line.startswith(_MARK):
            yield from json.loads(line[len(_MARK) :])
            return
    why = outcome.stderr.strip().splitlines()[-1:] or [outcome.status]
    raise UserError(f"{package}: can't be imported in the sandbox ({why[0]}); take it out of the recipe")


def _document(package: str, about: dict[str, Any], config: SignaturesConfig) -> dict[str, Any]:
    documentation = about["documentation"]
    if len(documentation) > config.most_characters:
        documentation = documentation[: config.most_characters].rpartition("\n")[0]
    known = {**about, "documentation": documentation, "package": package, "version": version(package)}
    text = json.dumps(known, sort_keys=True)
    row: dict[str, Any] = dict.fromkeys(("stars", "commit_time"), 0) | dict.fromkeys(("url",), "")
    row |= {"id": document_id(package, about["name"]), "path": about["name"], "repository": package, "text": text}
    row |= {"language": "Python", "kind": "text", "license": license_of(package), "source": "signatures"}
    return {**row, "bytes": len(text)}


def run(*, output: str, config: SignaturesConfig, options: BeamOptions) -> Manifest:
    """Writes a document of each public function and class of the packages, a shard a package."""
    versions = {package: version(package) for package in config.packages}

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        shards = len(config.packages)
        with Sandbox(_LIMITS, without=config.without_walls) as sandbox:
            for shard, package in enumerate(config.packages):
                counts: Counter[str] = Counter()
                rows: list[dict[str, Any]] = []
                for about in signatures(package, sandbox):
                    full = "too many" if len(rows) >= config.most else ""
                    kind = "of objects without a text" if _OBJECT.search(about["signature"]) else full
                    counts[f"signatures: {kind or 'kept'}"] += 1
                    if not kind:
                        rows.append(_document(package, about, config))
                batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
                with ShardWriter(directory, shard_name("documents", shard, shards)) as writer:
                    writer.write(batch)
                tally = merge_tallies([tally_documents("out", batch), {"count": dict(counts)}])
                report_shard(directory, shard, tally, writer.names)
        return gather_reports(directory, shards)

    seen = SeenPackages(config, versions)
    return Stage("signatures", __name__, seen, (), output).run(work, options)
