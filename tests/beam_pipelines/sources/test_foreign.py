"""Input that nobody here made: whatever is in it, every unit is documents, drops or quarantine, and no more is lost.

The mutations run without Beam, the reader and the one place that catches alone, as they're thousands.
"""

import bz2
import gzip
import io
import json
import lzma
import shutil
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import py7zr
import pyarrow as pa
import pyarrow.parquet as pq
import pygit2
import pytest
import zstandard

from opencoder_jax.beam_pipelines.core.manifest import Manifest, check_balance, merge_tallies
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources import archives, collect, conversations, git_repositories, tables
from opencoder_jax.beam_pipelines.sources.builder import document
from opencoder_jax.beam_pipelines.sources.formats.batches import batches, guarded, write_batches
from opencoder_jax.beam_pipelines.sources.formats.members import Late, Row, Unit, Untrusted
from opencoder_jax.beam_pipelines.sources.formats.repositories import tree_entries
from opencoder_jax.beam_pipelines.sources.units import QuarantineConfig
from opencoder_jax.recipe import UserError

SHARED = Path(__file__).parents[4] / "shared/cases/data"
MUTATIONS = 2000  # a source
CODE = {f"lib/{number}.py": f"def f{number}(a):\n    return a + {number}\n".encode() * 20 for number in range(12)}


def survives(unit: Unit, read: Callable[[], Iterable[Row | Late]], place: Path) -> dict[str, Any]:
    """The tally of a unit, written as the stage writes it; never longer than some seconds."""
    began = time.monotonic()
    try:
        tally, names = write_batches(Directory(str(place)), "x", batches(guarded(unit, read())))
    except Untrusted:
        return {}
    check_balance(unit.name, merge_tallies([{"in": {}, "out": {}}, tally]))
    assert time.monotonic() - began < 20
    assert all((place / name).exists() for name in names)
    return tally


def mutations(data: bytes, number: int, seed: int) -> Iterable[bytes]:
    """Bits and bytes that are others, numbers that are huge, parts that are missing, doubled or moved."""
    random = np.random.Generator(np.random.PCG64(seed))
    for _ in range(number):
        changed = bytearray(data)
        for _ in range(int(random.integers(1, 4))):
            place = int(random.integers(len(changed) or 1))
            length = int(random.integers(1, 40))
            match int(random.integers(7)):
                case 0:
                    changed[place : place + 1] = bytes([data[place % len(data)] ^ (1 << int(random.integers(8)))])
                case 1:
                    changed[place : place + length] = random.bytes(length)
                case 2:
                    changed[place : place + 4] = b"\xff\xff\xff\x7f" if random.integers(2) else b"\0\0\0\0"
                case 3:
                    del changed[place:]
                case 4:
                    del changed[place : place + length * 20]
                case 5:
                    changed[place:place] = changed[place // 2 : place // 2 + length * 20]
                case _:
                    changed[place : place + 12] = b"77777777777\0"
        yield bytes(changed)


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in CODE.items():
            member = tarfile.TarInfo(name if name != "lib/3.py" else "long/" * 40 + "3.py")
            member.size, member.mtime = len(content), 1.5
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in CODE.items():
            archive.writestr(name, content)
    return stream.getvalue()


def seven() -> bytes:
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w") as archive:
        for name, content in CODE.items():
            archive.writestr(content, name)
    return stream.getvalue()


def parquet() -> bytes:
    table = pa.table(
        {
            "text": [content.decode() for content in CODE.values()],
            "path": list(CODE),
            "stars": list(range(len(CODE))),
            "commit_time": pa.array([1_700_000_000_123_456_789] * len(CODE), pa.timestamp("ns", "UTC")),
            "license": [["mit", "bsd"]] * len(CODE),
        }
    )
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=5)
    return stream.getvalue()


def lines() -> bytes:
    return "".join(
        json.dumps({"text": code.decode(), "path": path, "stars": 3}) + "\n" for path, code in CODE.items()
    ).encode()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "a.tar": tarred,
    "a.tar.gz": lambda: gzip.compress(tarred()),
    "a.tar.bz2": lambda: bz2.compress(tarred()),
    "a.tar.xz": lambda: lzma.compress(tarred()),
    "a.tar.zst": lambda: zstandard.compress(tarred()),
    "stored.zip": lambda: zipped(zipfile.ZIP_STORED),
    "a.zip": lambda: zipped(zipfile.ZIP_DEFLATED),
    "lzma.zip": lambda: zipped(zipfile.ZIP_LZMA),
    "a.7z": seven,
}
TABLES: dict[str, Callable[[], bytes]] = {
    "a.parquet": parquet,
    "a.jsonl": lines,
    "a.jsonl.gz": lambda: gzip.compress(lines()),
    "a.json": lambda: b"[" + lines().replace(b"\n", b",")[:-1] + b"]",
}


def mutate(name: str, data: bytes, number: int, place: Path) -> None:
    config = tables.TablesConfig(path="path", stars="stars", commit_time="commit_time", license="license")
    unit = Unit(str(place), name, len(data))
    sound = True
    for changed in [data, *mutations(data, number, len(data))]:
        (place / name).write_bytes(changed)
        if name in ARCHIVES:
            tally = survives(unit, lambda: archives.read_archive(unit, archives.ArchivesConfig()), place)
        else:
            tally = survives(unit, lambda: tables.read_table(unit, config), place)
        assert not sound or tally["out"]["documents"] == {"Python": len(CODE)}
        sound = False


@pytest.mark.parametrize("name", [*ARCHIVES, *TABLES])
def test_some_mutations_of_a_file(name: str, tmp_path: Path) -> None:
    mutate(name, (ARCHIVES | TABLES)[name](), 12, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ARCHIVES, *TABLES])
def test_mutations_of_a_file(name: str, tmp_path: Path) -> None:
    number = MUTATIONS // len(ARCHIVES if name in ARCHIVES else TABLES)
    mutate(name, (ARCHIVES | TABLES)[name](), number, tmp_path)


NOTEBOOK = {
    "nbformat": 4,
    "cells": [
        {"cell_type": "markdown", "source": ["# A\n", "b"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"output_type": "stream", "text": ["1\n"]}]},
        {"cell_type": "code", "source": ["y"], "outputs": [{"data": {"text/plain": "2"}}]},
    ],
}


@pytest.mark.slow
def test_mutations_of_a_notebook(tmp_path: Path) -> None:
    unit = Unit("", "notebooks", 0)
    data = json.dumps(NOTEBOOK).encode()
    found = [
        Late("a.ipynb", lambda content=content: document("r", "a.ipynb", content))
        for content in mutations(data, MUTATIONS, 1)
    ]
    tally = survives(unit, lambda: found, tmp_path)
    assert "quarantine" not in tally, (tmp_path / "quarantine/x.jsonl").read_text()


@pytest.mark.slow
def test_mutations_of_conversations(tmp_path: Path) -> None:
    data = json.dumps(
        [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 3
    ).encode()
    unit = Unit(str(tmp_path), "a.json", len(data))
    config = conversations.ConversationsConfig("messages")
    for changed in mutations(data, MUTATIONS, 2):
        (tmp_path / "a.json").write_bytes(changed)
        survives(unit, lambda: conversations.read_conversations(unit, config), tmp_path)


def repository(place: Path) -> Path:
    """A repository of two commits, one of them packed."""
    made = pygit2.init_repository(place)
    who = pygit2.Signature("A Tester", "tester@example.com", 1000, 0)
    for number in range(2):
        for name, content in list(CODE.items())[: 4 + number]:
            made.index.add(
                pygit2.IndexEntry(name, made.create_blob(content + b"#%d\n" % number), pygit2.enums.FileMode.BLOB)
            )
        parents = [] if made.head_is_unborn else [made.head.target]
        made.create_commit("HEAD", who, who, "change", made.index.write_tree(), parents)
        if number == 0:
            made.pack()
    return place


def test_an_object_that_is_cut_off_costs_itself_or_its_repository(tmp_path: Path) -> None:
    """Reading it, libgit2 waits for ever for what is missing."""
    sound = repository(tmp_path / "sound")
    made = pygit2.Repository(sound)
    head = made.head.peel(pygit2.Commit)
    files = dict(tree_entries(head.tree))
    lost = next(path for path, blob in files.items() if (sound / ".git/objects" / object_file(blob.id)).exists())
    for broken, kept, quarantined in ((files[lost].id, len(files) - 1, lost.decode()), (head.tree_id, 0, "")):
        folder = tmp_path / str(broken)
        for name in ("broken", "sound"):
            shutil.copytree(sound, folder / name)
        file = folder / "broken/.git/objects" / object_file(broken)
        file.chmod(0o644)
        file.write_bytes(file.read_bytes()[:-10])
        output = tmp_path / "out" / str(broken)
        manifest = git_repositories.run(
            [str(folder)], str(output), git_repositories.GitConfig(), BeamOptions(), QuarantineConfig(max_share=1.0)
        )
        assert manifest.total("out", "documents") == len(files) + kept
        lines = [json.loads(line) for file in (output / "quarantine").iterdir() for line in file.open()]
        assert [line["path"] for line in lines] == [quarantined], lines


def object_file(name: pygit2.Oid) -> str:
    return f"{str(name)[:2]}/{str(name)[2:]}"


@pytest.mark.slow
def test_mutations_of_git_objects(tmp_path: Path) -> None:
    sound = repository(tmp_path / "sound")
    files = [file for file in sorted(sound.rglob("*")) if file.is_file() and "hooks" not in file.parts]
    number = MUTATIONS // len(files) + 1
    config = git_repositories.GitConfig()
    copy = tmp_path / "copy"
    shutil.copytree(sound, copy)
    for file in files:
        place, data = copy / file.relative_to(sound), file.read_bytes()
        for changed in mutations(data or b"\n", number, len(data)):
            place.unlink()  # libgit2 may have the last one in its memory still, which must not shrink
            place.write_bytes(changed)
            try:
                units = git_repositories.list_repositories([str(copy)])
            except UserError:  # no commit in it
                continue
            for unit in units:
                survives(unit, lambda unit=unit: git_repositories.read_repository(unit, config), tmp_path / "out")
        place.unlink()
        place.write_bytes(data)


def cases(kind: str) -> list[Path]:
    return sorted((SHARED / kind).iterdir()) if (SHARED / kind).is_dir() else []


RUN: dict[str, Callable[[Path, Path], Manifest]] = {
    "archives": lambda source, output: archives.run(
        [str(source)], str(output), archives.ArchivesConfig(), BeamOptions()
    ),
    "tables": lambda source, output: tables.run(
        [str(source)],
        str(output),
        tables.TablesConfig(path="path", repository="repository", stars="stars", commit_time="commit_time"),
        BeamOptions(),
    ),
    "collect": lambda source, output: collect.run(
        folders=[str(source)], output=str(output), config=collect.CollectConfig(shards=1), options=BeamOptions()
    ),
    "git": lambda source, output: git_repositories.run(
        [str(source)], str(output), git_repositories.GitConfig(), BeamOptions()
    ),
}


def ends_well(kind: str, source: Path, output: Path) -> set[str]:
    """The paths of the documents; what a user is told is one line."""
    said = ""
    try:
        RUN[kind](source, output)
    except UserError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1
    if not (output / "stage.json").exists():
        return set()
    manifest = Manifest.read(str(output))
    check_balance(kind, manifest.tally)
    assert manifest.total("in", "documents") > 0
    tables_read = [pq.read_table(output / name) for name in manifest.shards()]
    assert sum(table.num_rows for table in tables_read) == manifest.total("out", "documents")
    return {path for table in tables_read for path in table["path"].to_pylist()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "case"), [(kind, case) for kind in ("archives", "tables", "collect") for case in cases(kind)], ids=str
)
def test_a_shared_case_alone_and_beside_good_units(kind: str, case: Path, tmp_path: Path) -> None:
    alone = ends_well(kind, case, tmp_path / "alone")
    shutil.copytree(case, tmp_path / "in")
    good = {
        "archives": ("good.tar", tarred),
        "tables": ("good.jsonl", lines),
        "collect": ("g/good.py", lambda: b"x = 1"),
    }
    name, make = good[kind]
    (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "in" / name).write_bytes(make())
    beside = ends_well(kind, tmp_path / "in", tmp_path / "beside")
    assert beside == alone | ({"good.py"} if kind == "collect" else {"long/" * 40 + "3.py", *CODE} & beside)
    assert "lib/5.py" in beside or kind == "collect"


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "make_git_cases.sh").exists(), reason="the cases lie elsewhere")
def test_the_shared_git_cases(tmp_path: Path) -> None:
    subprocess.run(["bash", str(SHARED / "make_git_cases.sh"), str(tmp_path / "git")], check=True, capture_output=True)
    for case in sorted((tmp_path / "git").iterdir()):
        paths = ends_well("git", case, tmp_path / f"out-{case.name}")
        assert {"a.py", "b.c"} <= paths, case.name
