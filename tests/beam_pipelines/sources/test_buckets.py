"""Sources in buckets give what the same files on a disk give, and workers list folders as one process does."""

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pygit2
import pytest
from buckets import SCHEMES, bucket, objects
from pyarrow import fs
from pygit2.enums import FileMode

from opencoder_jax.beam_pipelines.core import storage
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.core.stores import systems
from opencoder_jax.beam_pipelines.core.stores.systems import Unreachable
from opencoder_jax.beam_pipelines.sources import archives, collect, conversations, git_repositories, tables
from opencoder_jax.beam_pipelines.sources.archives import ArchivesConfig
from opencoder_jax.beam_pipelines.sources.collect import CollectConfig
from opencoder_jax.beam_pipelines.sources.conversations import ConversationsConfig
from opencoder_jax.beam_pipelines.sources.git_repositories import GitConfig
from opencoder_jax.beam_pipelines.sources.tables import TablesConfig
from opencoder_jax.beam_pipelines.sources.units import QuarantineConfig
from opencoder_jax.beam_pipelines.web import pages
from opencoder_jax.beam_pipelines.web.pages import PagesConfig
from opencoder_jax.recipe import UserError

LOCAL = BeamOptions()
WORKERS = BeamOptions(("--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",))
CODE = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module", params=SCHEMES)
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    with bucket(request.param) as (address, _):
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Repositories with what listings have to decide about."""
    files: dict[str, str | bytes] = {
        "one/a.py": CODE,
        "one/.gitattributes": "*.h linguist-language=Objective-C\n",
        "one/deep/er/b.h": "int x;\n",
        "one/node_modules/m/index.js": "let y = 1;\n",
        "two/.git/HEAD": "ref: refs/heads/main\n",
        "two/c.md": "# Title\n",
        "two/latin.c": "// Gerät\nint x;\n".encode("latin-1"),
        "two/sub/.git/HEAD": "ref: refs/heads/main\n",
        "two/sub/d.go": "package d\n",
        "two/empty.py": b"",
        "two/large.py": "x = 1\n" * 300,
        "two/picture.png": b"\x89PNG",
        "done/stage.json": json.dumps(dict.fromkeys(("stage", "config", "code", "inputs"))),
        "done/e.py": CODE,
        "100% ü#?/f.py": CODE,
        "loose.c": "int main(void) { return 0; }\n",
    }
    for name, content in files.items():
        place = tmp_path / "corpus" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / "corpus"


def put(folder: Path, place: str) -> str:
    """Copies what lies in a folder into a bucket."""
    for file in folder.rglob("*"):
        if file.is_file():
            Directory(place).write_bytes(file.relative_to(folder).as_posix(), file.read_bytes())
    return place


def local_objects(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_manifest(files: dict[str, bytes]) -> dict[str, bytes]:
    """The times of files differ, and so what a manifest knows its input by."""
    return {name: content for name, content in files.items() if name not in ("stage.json", "parts.json")}


@pytest.mark.slow
def test_folders_of_a_bucket_are_collected_as_those_of_a_disk(store: str, folder: Path, tmp_path: Path) -> None:
    config = CollectConfig(max_file_bytes=1000, shards=2)
    here = collect.run(folders=[str(folder)], output=str(tmp_path / "out"), config=config, options=LOCAL)
    there = put(folder, f"{store}/in/corpus")
    manifests = [
        collect.run(folders=[there], output=f"{store}/{name}", config=config, options=options)
        for name, options in (("here", LOCAL), ("workers", WORKERS))
    ]
    assert [each.files for each in manifests] == [here.files, here.files]
    assert manifests[0].tally == manifests[1].tally == here.tally
    assert manifests[0].config == manifests[1].config
    assert here.table("count")["skipped folder node_modules"] == 1
    expected = without_manifest(local_objects(tmp_path / "out"))
    for name in ("here", "workers"):
        found = {path: data for path, data in objects(f"{store}/{name}").items() if not path.endswith("/")}
        assert without_manifest(found) == expected


def test_workers_list_as_one_process_does(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = CollectConfig(max_file_bytes=1000, shards=3)
    (folder / "two/link.py").symlink_to("c.md")
    for name, options in (("one", LOCAL), ("many", WORKERS)):
        collect.run(folders=[str(folder)], output=str(tmp_path / name), config=config, options=options)
    assert local_objects(tmp_path / "one") == local_objects(tmp_path / "many")
    capfd.readouterr()
    collect.run(folders=[str(folder)], output=str(tmp_path / "one"), config=config, options=WORKERS)
    assert "up to date" in capfd.readouterr().err
    assert not (tmp_path / "one/listing/").exists() or not list((tmp_path / "one/listing/").iterdir())


@pytest.mark.slow
def test_workers_know_archives_as_one_process_does(folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    shutil.make_archive(str(packed / "two"), "zip", folder / "two")
    (packed / "notes").write_text("no archive")
    for name, options in (("here", LOCAL), ("there", WORKERS)):
        archives.run([str(packed)], str(tmp_path / name), ArchivesConfig(), options)
    assert local_objects(tmp_path / "here") == local_objects(tmp_path / "there")


def test_a_bucket_that_does_not_answer_costs_no_unit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't the fault of what lies there, so that nothing may be dropped: the next run goes on."""
    answers = [True]

    def read_or_not(system: fs.FileSystem, path: str) -> pa.NativeFile:
        if not answers[0]:
            raise Unreachable(f"{path}: AWS Error NETWORK_CONNECTION")
        return systems.read(system, path)

    shutil.make_archive(str(tmp_path / "packed/two"), "zip", folder / "two")
    monkeypatch.setattr(storage, "fetched", read_or_not)
    units = archives.list_units([str(tmp_path / "packed")], archives.ENDINGS)
    monkeypatch.setattr(archives, "list_units", lambda *_: units)
    for reaches in (False, True):
        answers[0] = reaches
        run = partial(archives.run, [str(tmp_path / "packed")], str(tmp_path / "out"), ArchivesConfig(), LOCAL)
        if reaches:
            assert run().total("quarantine", "documents") == 0
        else:
            with pytest.raises(UserError, match=r"archives: .*two\.zip: AWS Error NETWORK_CONNECTION"):
                run()
    monkeypatch.setattr(collect, "opened", partial(read_or_not, None))
    answers[0] = False
    with pytest.raises(UserError, match=r"collect: .*: AWS Error NETWORK_CONNECTION"):
        collect.run(folders=[str(folder)], output=str(tmp_path / "all"), config=CollectConfig(), options=LOCAL)


def test_workers_tell_what_is_wrong_with_an_input(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty/folder").mkdir(parents=True)
    (tmp_path / "other/corpus/one").mkdir(parents=True)
    (tmp_path / "other/corpus/one/a.py").write_text(CODE)
    for folders, message in (
        (["empty"], "no files in it"),
        (["missing"], "no such folder"),
        (["corpus", "other/corpus"], r"are both a\.py of a repository one; collect them in two runs"),
    ):
        with pytest.raises(UserError, match=message):
            collect.run(
                folders=[f"{tmp_path}/{each}" for each in folders],
                output=str(tmp_path / "out"),
                config=CollectConfig(),
                options=WORKERS,
            )
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_archives_tables_crawls_and_chats_of_a_bucket(store: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "sub").mkdir(parents=True)
    with zipfile.ZipFile(raw / "one.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(50):
            packed.writestr(f"src/{number}.py", CODE * (number + 1))
    with tarfile.open(raw / "sub/two.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("b.py")
        member.size = len(CODE)
        tar.addfile(member, io.BytesIO(CODE.encode()))
    (raw / "README").write_text("no archive\n")
    html = "<html><body><main><p>" + "A page about sorting and searching. " * 20 + "</p></main></body></html>"
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{html}"
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://example.org/\r\nContent-Type: application/http\r\n"
    )
    record = f"{head}WARC-Date: 2024-05-06T07:08:09Z\r\nContent-Length: {len(answer)}\r\n\r\n{answer}\r\n\r\n"
    chat = {"instruction": "What is 1 + 1?", "output": "2"}
    for name, content in (
        ("tables/a.jsonl", "".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(20)).encode()),
        ("crawl/b.warc.gz", gzip.compress(record.encode())),
        ("chats/c.jsonl", json.dumps(chat).encode()),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    put(tmp_path, f"{store}/units")

    def manifests(where: str) -> list[Manifest]:
        return [
            archives.run([f"{where}/raw"], f"{where}/out/archives", ArchivesConfig(), LOCAL),
            tables.run([f"{where}/tables/a.jsonl"], f"{where}/out/tables", TablesConfig(), LOCAL),
            pages.run([f"{where}/crawl"], f"{where}/out/pages", PagesConfig(), LOCAL),
            conversations.run([f"{where}/chats"], f"{where}/out/chats", ConversationsConfig(), LOCAL),
        ]

    for here, there in zip(manifests(str(tmp_path)), manifests(f"{store}/units"), strict=True):
        assert here.total("out", "documents") > 0
        assert here.files == there.files
        assert here.tally == there.tally


def repositories(folder: Path) -> None:
    """A bare one whose references are packed, so that it has empty folders; one that is checked out; a broken one."""
    for name in ("bare.git", "checked_out"):
        made = pygit2.init_repository(str(folder / name), bare=name == "bare.git")
        tree = made.TreeBuilder()
        tree.insert(f"{name[:4]}.py", made.create_blob(f"{CODE}# {name}\n".encode()), FileMode.BLOB)
        who = pygit2.Signature("a", "a@example.org", 1_600_000_000)
        commit = made.create_commit("refs/heads/main", who, who, "first", tree.write(), [])
        made.set_head("refs/heads/main")
        if name == "bare.git":
            (folder / name / "packed-refs").write_text(f"{commit} refs/heads/main\n")
            (folder / name / "refs/heads/main").unlink()
    for name in ("objects", "refs"):
        (folder / "broken/.git" / name).mkdir(parents=True)
    (folder / "broken/.git/HEAD").write_text("nonsense")


@pytest.mark.slow
def test_git_repositories_of_a_bucket(store: str, tmp_path: Path) -> None:
    repositories(tmp_path / "git")
    there = put(tmp_path / "git", f"{store}/repositories/git")
    quarantine = QuarantineConfig(max_share=1.0)
    manifests = [
        git_repositories.run([place], output, GitConfig(), options, quarantine)
        for place, output, options in (
            (str(tmp_path / "git"), str(tmp_path / "out"), LOCAL),
            (there, f"{store}/git_here", LOCAL),
            (there, f"{store}/git_workers", WORKERS),
        )
    ]
    assert manifests[0].total("out", "documents") == 2
    assert manifests[0].total("quarantine", "units") == 1
    for manifest in manifests[1:]:
        assert manifest.config == manifests[0].config
        assert manifest.tally == manifests[0].tally
        assert manifest.files == manifests[0].files
