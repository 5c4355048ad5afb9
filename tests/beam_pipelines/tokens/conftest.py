"""What the room's tests share: directories of documents, as a stage leaves them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, batches_of, document_id, shard_name, write_shard
from opencoder_jax.beam_pipelines.core.manifest import Tally, digest, merge_tallies, tally_documents
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory

WriteDocuments = Callable[..., str]


@dataclass(frozen=True)
class _NoConfig:
    pass


@pytest.fixture(scope="session")
def write_documents() -> WriteDocuments:
    """`write_documents(directory, texts, shards=2, kind="code")` writes documents 0, 1, 2, … dealt to the shards."""

    def write(directory: Path, texts: Sequence[str], shards: int = 2, kind: str = "code") -> str:
        rows: list[dict[str, Any]] = [
            dict.fromkeys(SCHEMA.names, "")
            | {"id": document_id("here", str(number)), "text": text, "path": str(number), "repository": "here"}
            | {"stars": 0, "commit_time": 0, "language": "Python", "kind": kind, "bytes": len(text.encode())}
            for number, text in enumerate(texts)
        ]

        def work(place: Directory) -> tuple[Tally, dict[str, str]]:
            tallies = []
            names = [shard_name("documents", shard, shards) for shard in range(shards)]
            for shard, name in enumerate(names):
                batches = list(batches_of(pa.RecordBatch.from_pylist(rows[shard::shards], schema=SCHEMA)))
                write_shard(place, name, batches, SCHEMA)
                tallies += [tally_documents("out", batch) for batch in batches]
            return merge_tallies(tallies), {name: digest(place, name) for name in names}

        Stage("documents", "opencoder_jax.beam_pipelines.core.documents", _NoConfig(), (), str(directory)).run(
            work, BeamOptions()
        )
        return str(directory)

    return write
