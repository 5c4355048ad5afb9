"""Joining metadata with a corpus: rows and documents a second in the parts that grow with the release's 337 M rows.

Run: python -m tests.benchmarks.join_metadata [--rows=400000]

The metadata is made: as many rows as asked for, 9 of 10 with a document in the corpus, 20 files a repository. Speeds
are by processor time on one core; "end to end" is the whole stage in one process, tiny texts, so it's rows that cost.
"""

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import unpack
from opencoder_jax.beam_pipelines.core.stage import input_shards
from opencoder_jax.beam_pipelines.sources import join_metadata, tables
from opencoder_jax.beam_pipelines.sources.inputs import TABLES, list_units
from opencoder_jax.beam_pipelines.sources.join_metadata import (
    DOCUMENT,
    ROW,
    JoinMetadataConfig,
    hash_documents,
    hash_rows,
)


def write_tables(folder: Path, rows: int) -> None:
    repositories = [f"owner{number // 400}/repository{number // 20}" for number in range(rows)]
    paths = [f"src/module{number % 7}/file{number}.py" for number in range(rows)]
    named = pa.table({"repo_name": repositories, "sub_path": paths, "file_size_in_byte": [5] * rows})
    text = named.append_column("content", pa.array(["x = 1"] * rows)).rename_columns(
        ["repo_name", "path", "file_size_in_byte", "content"]
    )
    for name, table in (("metadata", named), ("corpus", text.slice(rows // 10))):
        (folder / name).mkdir()
        half = table.num_rows // 2
        pq.write_table(table.slice(0, half), folder / name / f"{name}0.parquet")
        pq.write_table(table.slice(half), folder / name / f"{name}1.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    rows = parser.parse_args().rows
    config = JoinMetadataConfig(segments=1)
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        write_tables(folder, rows)
        one = BeamOptions(("--direct_num_workers=1",))
        stack = tables.TablesConfig(preset="the_stack_v2")
        tables.run(tables=[str(folder / "corpus")], output=str(folder / "stage"), config=stack, options=one)

        began = time.process_time()
        files = list_units([str(folder / "metadata")], TABLES)
        hashed = [value for file in range(len(files)) for _, value in hash_rows(file, files, config)]
        print(f"hash rows       {rows / (time.process_time() - began):12,.0f} rows/s a core")
        began = time.process_time()
        corpus = [(str(folder / "stage"), name) for name in input_shards(str(folder / "stage"))]
        documents = [value for shard in range(len(corpus)) for _, value in hash_documents(shard, corpus, 1)]
        print(f"hash documents  {rows * 0.9 / (time.process_time() - began):12,.0f} documents/s a core")
        left, right = unpack(hashed, ROW), unpack(documents, DOCUMENT)
        began = time.process_time()
        taken, dropped = join_metadata.join(left, right)
        print(f"join            {rows / (time.process_time() - began):12,.0f} rows/s a core")
        assert (len(taken), len(dropped)) == (rows - rows // 10, rows // 10)
        print(
            f"shuffled        {(left.nbytes + right.nbytes) / (len(left) + len(right)):12.0f} bytes a row or document"
        )

        began = time.process_time()
        manifest = join_metadata.run(
            metadata=[str(folder / "metadata")],
            corpus=[str(folder / "stage")],
            output=str(folder / "out"),
            config=JoinMetadataConfig(),
            options=one,
        )
        print(f"end to end      {rows / (time.process_time() - began):12,.0f} rows/s a core")
        print(f"documents {manifest.total('out', 'documents'):,}; dropped {manifest.table('drop', 'documents')}")


if __name__ == "__main__":
    main()
