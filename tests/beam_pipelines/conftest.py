"""What the pipelines' tests share: batches of documents, and directories of them as a finished stage leaves them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, document_id, shard_name, write_shard
from opencoder_jax.beam_pipelines.core.manifest import Tally, digest, merge_tallies, tally_documents
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory

MakeBatch = Callable[..., pa.RecordBatch]
MakeStage = Callable[..., str]


@dataclass(frozen=True)
class _NoConfig:
    pass


@pytest.fixture(scope="session")
def batch() -> MakeBatch:
    """`batch("x = 1", {"text": "y = 2", "stars": 3})`: documents by their text, or by the fields that matter."""

    def make(*documents: str | dict[str, Any]) -> pa.RecordBatch:
        rows = []
        for number, given in enumerate(documents):
            row = {"text": given} if isinstance(given, str) else given
            row = {"path": f"{number}.py", "repository": "here", "stars": 0, "commit_time": 0, "kind": "code"} | row
            row = {"language": "Python", "license": "", "source": "test", "url": ""} | row
            row = {"id": document_id(row["repository"], row["path"]), "bytes": len(row["text"].encode())} | row
            rows.append(row)
        return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)

    return make


@pytest.fixture(scope="session")
def stage_directory() -> MakeStage:
    """`stage_directory(place, [[batch, batch], [batch]])` writes a shard a list, a row group a batch.

    Shards may have labels: `stage_directory(place, {"a.zip": [batch]})`.
    """

    def write(place: Path, given: Sequence[Sequence[pa.RecordBatch]] | dict[str, Sequence[pa.RecordBatch]]) -> str:
        shards = list(given.values()) if isinstance(given, dict) else given

        def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
            names = [shard_name("documents", shard, len(shards)) for shard in range(len(shards))]
            if isinstance(given, dict):
                names = [f"documents-{label}.parquet" for label in given]
            for name, batches in zip(names, shards, strict=True):
                write_shard(directory, name, batches, SCHEMA)
            tally = merge_tallies(tally_documents("out", batch) for batches in shards for batch in batches)
            return tally, {name: digest(directory, name) for name in names}

        Stage("given", "opencoder_jax.beam_pipelines.core.documents", _NoConfig(), (), str(place)).run(
            work, BeamOptions()
        )
        return str(place)

    return write
