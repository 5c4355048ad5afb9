"""Collecting folders: every file is a document or a drop with its reason; the same files give the same bytes."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources.collect import CollectConfig, read_files, run
from opencoder_jax.beam_pipelines.sources.formats.encodings import decode
from opencoder_jax.beam_pipelines.sources.formats.members import Late
from opencoder_jax.beam_pipelines.sources.listing.folders import Root, python_library
from opencoder_jax.beam_pipelines.sources.listing.listings import list_files
from opencoder_jax.recipe import UserError

CODE = "def add(a, b):\n    return a + b\n"


def made(found: Iterable[Late]) -> list[dict[str, Any]]:
    return [late.make() for late in found]


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file of every kind that may lie in a folder."""
    root = write(
        tmp_path / "corpus",
        {
            "one/a.py": CODE,
            "one/deep/b.js": "let x = 1;\n",
            "two/c.md": "# Title\n",
            "loose.c": "int main(void) { return 0; }\n",
            "two/bom.py": b"\xef\xbb\xbfx = 1\n",
            "two/latin.c": "// Gerät für Größe\nint x;\n".encode("latin-1"),
            "two/cookie.py": "# -*- coding: koi8-r -*-\ns = 'привет'\n".encode("koi8-r"),
            "two/wide.cs": "class Wide {}\n".encode("utf-16"),
            "two/gbk.c": ("// " + "中文注释" * 20 + "\nint x;\n").encode("gbk"),
            "two/null.py": b"x = 1\0\n",
            "two/empty.py": b"",
            "two/blank.py": b" \n\n",
            "two/big.py": "x = 1\n" * 400,
            "two/picture.png": b"\x89PNG",
            "two/drawing.svg": "<svg/>",
            "one/__pycache__/a.pyc": b"\0",
            "one/node_modules/m/index.js": "let y = 1;\n",
            "nested/lib/.git/HEAD": "ref",
            "nested/lib/src/d.go": "package d\n",
            "run/stage.json": json.dumps({"stage": "collect", "config": {}, "code": {}, "inputs": []}),
            "two/infra/plan.json": '{"planned": 1}',  # another program's
            "run/e.py": CODE,
        },
    )
    (root / "one/link.py").symlink_to(root / "one/a.py")
    (root / "one/loop").symlink_to(root / "one", target_is_directory=True)
    (root / "one/dangling.py").symlink_to(root / "nowhere")
    os.mkfifo(root / "one/pipe.py")
    return root


MAX_BYTES = 2000
CONFIG = CollectConfig(max_file_bytes=MAX_BYTES, shards=2)


def test_every_file_of_a_folder_is_accounted_for(folder: Path, tmp_path: Path) -> None:
    manifest = run(folders=[str(folder)], output=str(tmp_path / "out"), config=CONFIG, options=BeamOptions())

    tables = [pq.read_table(tmp_path / "out" / name).to_pylist() for name in manifest.shards()]
    documents = {row["path"]: row for table in tables for row in table}
    assert {(row["repository"], row["path"], row["language"], row["kind"]) for row in documents.values()} == {
        ("one", "a.py", "Python", "code"),
        ("one", "deep/b.js", "JavaScript", "code"),
        ("two", "c.md", "Markdown", "text"),
        ("two", "infra/plan.json", "JSON", "data"),
        ("corpus", "loose.c", "C", "code"),
        ("two", "bom.py", "Python", "code"),
        ("two", "latin.c", "C", "code"),
        ("two", "cookie.py", "Python", "code"),
        ("two", "wide.cs", "C#", "code"),
        ("nested/lib", "src/d.go", "Go", "code"),
    }
    assert documents["a.py"]["text"] == CODE
    assert documents["bom.py"]["text"] == "x = 1\n"
    assert documents["latin.c"]["text"].startswith("// Gerät für Größe")
    assert "привет" in documents["cookie.py"]["text"]
    encodings = {name: documents[name]["encoding"] for name in ("bom.py", "latin.c", "cookie.py")}
    assert encodings == {"bom.py": "utf-8", "latin.c": "cp1252", "cookie.py": "koi8-r"}
    assert all(row["bytes"] == len(row["text"].encode()) for row in documents.values())
    assert all(row["source"] == "corpus" for row in documents.values())
    assert [row["id"] for row in tables[0]] == sorted(row["id"] for row in tables[0])

    drops = [row for name in manifest.shards("drops") for row in pq.read_table(tmp_path / "out" / name).to_pylist()]
    assert {(row["path"], row["reason"]) for row in drops} == {
        ("gbk.c", "not_utf8"),
        ("null.py", "binary"),
        ("empty.py", "empty"),
        ("blank.py", "empty"),
        ("big.py", "too_large"),
        ("picture.png", "unknown_language"),
        ("drawing.svg", "excluded_language"),
        ("link.py", "symbolic_link"),
        ("loop", "symbolic_link"),
        ("dangling.py", "symbolic_link"),
        ("pipe.py", "unreadable"),
    }
    assert manifest.total("in", "documents") == len(documents) + len(drops)
    assert manifest.table("count") == {
        "decoded cp1252": 1,
        "decoded koi8-r": 1,
        "decoded utf-16": 1,
        "skipped folder .git": 1,
        "skipped folder node_modules": 1,
    }


def test_the_same_files_give_the_same_bytes_wherever_they_lie_and_go(folder: Path, tmp_path: Path) -> None:
    first = run(folders=[str(folder)], output=str(tmp_path / "first"), config=CONFIG, options=BeamOptions())
    copy = tmp_path / "elsewhere" / "corpus"
    copy.parent.mkdir()
    (folder / "one/pipe.py").unlink()  # shutil cannot copy it
    shutil.copytree(folder, copy, symlinks=True)
    os.mkfifo(copy / "one/pipe.py")
    second = run(folders=[str(copy)], output=str(tmp_path / "second"), config=CONFIG, options=BeamOptions())
    assert first.files == second.files
    for name in first.files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert b"elsewhere" not in (tmp_path / "second" / "stage.json").read_bytes()


def test_a_repositorys_attributes_name_languages_and_change_what_is_up_to_date(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"r/a.inc": "int a;\n", "s/a.inc": "int a;\n", "r/x.odd": "x = 1\n"}
    folder = write(tmp_path / "in", files)
    for declared in ("Pascal", "Lua"):
        write(folder, {"r/.gitattributes": f"*.inc linguist-language={declared}\n*.odd linguist-language=Python"})
        (folder / "s" / ".gitattributes").unlink(missing_ok=True)
        (folder / "s" / ".gitattributes").symlink_to(folder / "r" / ".gitattributes")  # git follows none
        manifest = run(folders=[str(folder)], output=str(tmp_path / "out"), config=CONFIG, options=BeamOptions())
        rows = [row for name in manifest.shards() for row in pq.read_table(tmp_path / "out" / name).to_pylist()]
        found = {(row["repository"], row["path"]): row["language"] for row in rows}
        assert found[("r", "a.inc")] == declared
        assert found[("r", "x.odd")] == "Python"
        assert found[("s", "a.inc")] == "C++"


def test_the_order_of_inputs_changes_no_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(write(tmp_path / side, {f"{side}/{n}.py": CODE for n in range(9)})) for side in ("left", "right")]
    first = run(folders=folders, output=str(tmp_path / "out"), config=CONFIG, options=BeamOptions())
    capsys.readouterr()
    assert run(folders=folders[::-1], output=str(tmp_path / "out"), config=CONFIG, options=BeamOptions()) == first
    assert "up to date" in capsys.readouterr().err


def test_a_shard_is_written_in_batches_of_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencoder_jax.beam_pipelines.sources.formats.batches.BATCH_BYTES", 3 * len(CODE))
    folder = write(tmp_path / "in", {f"r/{n}.py": CODE for n in range(8)})
    manifest = run(
        folders=[str(folder)], output=str(tmp_path / "out"), config=CollectConfig(shards=1), options=BeamOptions()
    )
    file = pq.ParquetFile(tmp_path / "out" / manifest.shards()[0])
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [3, 3, 2]
    ids = file.read(["id"])["id"].to_pylist()
    assert len(ids) == 8
    assert ids == sorted(ids)


def test_an_unchanged_folder_is_not_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write(tmp_path / "in", {"r/a.py": CODE}), str(tmp_path / "out")
    run(folders=[str(folder)], output=out, config=CONFIG, options=BeamOptions())
    stamp = (tmp_path / "out" / "stage.json").stat().st_mtime_ns
    run(folders=[str(folder)], output=out, config=CONFIG, options=BeamOptions())
    assert "up to date" in capsys.readouterr().err
    assert (tmp_path / "out" / "stage.json").stat().st_mtime_ns == stamp
    write(folder, {"r/b.py": CODE})
    assert run(folders=[str(folder)], output=out, config=CONFIG, options=BeamOptions()).total("out", "documents") == 2


def test_a_folder_without_source_says_what_it_holds(tmp_path: Path) -> None:
    folder = write(tmp_path / "pictures", {"a.png": b"\x89PNG", "b.png": b"\x89PNG", "e.py": b""})
    with pytest.raises(UserError, match=r"no source code; found \.png \(2\), \.py \(1\).*empty 1, unknown_language 2"):
        run(folders=[str(folder)], output=str(tmp_path / "out"), config=CONFIG, options=BeamOptions())
    with pytest.raises(UserError, match="isn't finished"):
        Manifest.read(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("name", "message"), [("missing", "no such folder"), ("file.py", "is a file"), ("empty", "no files in it")]
)
def test_a_wrong_input_is_one_clear_line(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path, {"file.py": CODE})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        list_files([Root(str(tmp_path / name), "x")], MAX_BYTES)


def test_two_files_are_never_one_document(tmp_path: Path) -> None:
    for side in ("left", "right"):
        write(tmp_path / side / "code", {"r/a.py": CODE})
    roots = [Root(str(tmp_path / side / "code"), "code") for side in ("left", "right")]
    with pytest.raises(UserError, match=r"both a\.py of a repository r"):
        list_files(roots, MAX_BYTES)


def test_a_repository_is_the_nearest_folder_with_git(tmp_path: Path) -> None:
    root = write(tmp_path / "work", {"a.py": CODE, ".git/HEAD": "x", "sub/b.py": CODE, "vendor/v/.git": "gitdir: x"})
    write(root, {"vendor/v/c.py": CODE})
    files, _ = list_files([Root(str(root), "work")], MAX_BYTES)
    assert {(file.repository, file.path) for file in files} == {
        ("work", "a.py"),
        ("work", "sub/b.py"),
        ("vendor/v", ".git"),
        ("vendor/v", "c.py"),
    }


def test_the_smallest_repositories_come_first_until_the_corpus_is_full(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"large/a.py": CODE * 9, "small/b.py": CODE, "middle/c.py": CODE * 3})
    files, counts = list_files([Root(str(root), "in")], MAX_BYTES, max_corpus_bytes=len(CODE) * 4)
    assert [(file.repository, file.reason) for file in files] == [("small", ""), ("middle", "")]
    assert counts == {"files beyond max_corpus_bytes": 1}
    rows = made(read_files(files, CONFIG))
    assert {row["repository"] for row in rows} == {"small", "middle"}
    assert not any("reason" in row for row in rows)


def test_a_name_that_is_no_utf8_is_kept_readable(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / os.fsdecode(b"caf\xe9.py")).write_text(CODE)
    [row] = made(read_files(list_files([Root(str(root), "in")], MAX_BYTES)[0], CONFIG))
    assert "reason" not in row
    assert row["path"] == "caf\\xe9.py"


def test_content_decides_before_a_file_of_an_excluded_choice_is_dropped(tmp_path: Path) -> None:
    """.plt is Gnuplot's where nothing else tells, .1 a manual page: both are excluded."""
    root = write(
        tmp_path / "in",
        {
            "r/tests.plt": ":- begin_tests(a).\ntest(b) :- true.\n",
            "r/graph.plt": "plot sin(x)\n",
            "r/notes.1": "notes of a meeting\n",
            "r/ls.1": ".TH LS 1\n.SH NAME\n",
        },
    )
    rows = made(read_files(list_files([Root(str(root), "in")], MAX_BYTES)[0], CONFIG))
    assert {row["path"]: row.get("reason", row["language"]) for row in rows} == {
        "tests.plt": "Prolog",
        "graph.plt": "excluded_language",
        "notes.1": "Text",
        "ls.1": "excluded_language",
    }


def test_stars_come_from_a_side_table_and_another_table_is_another_plan(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"one/a.py": CODE, "two/b.py": CODE})
    table = write(tmp_path, {"stars.jsonl": '{"repository": "two", "stars": 5}\n'}) / "stars.jsonl"

    def stars(place: Path) -> dict[str, int]:
        config = CollectConfig(shards=1, stars_table=str(place))
        manifest = run(folders=[str(root)], output=str(tmp_path / "out"), config=config, options=BeamOptions())
        assert str(tmp_path) not in (tmp_path / "out" / "stage.json").read_text()
        rows = pq.read_table(tmp_path / "out" / manifest.shards()[0]).to_pylist()
        return {row["repository"]: row["stars"] for row in rows}

    assert stars(table) == {"one": 0, "two": 5}
    stamp = (tmp_path / "out" / "stage.json").stat().st_mtime_ns
    moved = tmp_path / "moved.jsonl"
    shutil.copy(table, moved)
    assert stars(moved) == {"one": 0, "two": 5}
    assert (tmp_path / "out" / "stage.json").stat().st_mtime_ns == stamp  # the same table elsewhere
    moved.write_text('{"repository": "one", "stars": 7}\n')
    assert stars(moved) == {"one": 7, "two": 0}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.csv", "", "no.csv: no such file"),
        ("a.csv", "repo,stars\na,1\n", "no column 'repository' in repo, stars"),
        ("a.jsonl", '{"repository": "a"}', "no column 'stars' in repository"),
    ],
)
def test_a_wrong_table_of_stars_is_one_clear_line(name: str, content: str, message: str, tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"one/a.py": CODE})
    if content:
        write(tmp_path, {name: content})
    with pytest.raises(UserError, match=message):
        run(
            folders=[str(root)],
            output=str(tmp_path / "out"),
            config=CollectConfig(stars_table=str(tmp_path / name)),
            options=BeamOptions(),
        )
    assert not (tmp_path / "out").exists()


def test_a_file_that_vanishes_or_grows_after_the_listing_is_a_drop(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"r/a.py": CODE, "r/b.py": CODE})
    files, _ = list_files([Root(str(root), "in")], MAX_BYTES)
    (root / "r/a.py").unlink()
    write(root, {"r/b.py": CODE * 100})
    assert {(row["path"], row["reason"]) for row in made(read_files(files, CONFIG))} == {
        ("a.py", "unreadable"),
        ("b.py", "too_large"),
    }


@pytest.mark.parametrize(
    ("data", "language", "expected"),
    [
        (b"plain", "C", ("plain", "utf-8")),
        ("grün".encode(), "C", ("grün", "utf-8")),
        ("grün".encode("latin-1"), "C", ("grün", "cp1252")),
        ("“quoted”".encode("cp1252"), "C", ("“quoted”", "cp1252")),
        (b"# coding: latin-1\n# \xc3\xa9", "Python", ("# coding: latin-1\n# Ã©", "iso8859-1")),
        (b"# coding: latin-1\n// \xc3\xa9", "C", ("# coding: latin-1\n// é", "utf-8")),
        (b"# coding: rot13\nx", "Python", ("# coding: rot13\nx", "utf-8")),  # no encoding of bytes
        (b"# coding: unheard\nx", "Python", ("# coding: unheard\nx", "utf-8")),
        (b"# coding: utf-8\n# \xe9", "Python", ("# coding: utf-8\n# é", "cp1252")),
        (b"a\0b", "C", (None, "binary")),
        (b"\xff\xfea", "C", (None, "binary")),  # half a UTF-16 character
        (b"\xe9\x01\x02", "C", (None, "binary")),
        ("中文".encode("gbk"), "C", (None, "not_utf8")),
        ("日本語".encode("shift_jis"), "C", (None, "not_utf8")),
    ],
)
def test_decode(data: bytes, language: str, expected: tuple[str | None, str]) -> None:
    found = decode(data, language)
    assert ((None, found.reason) if found.reason else (found.text, found.encoding)) == expected


CHINESE = "// 这是一个用来测试编码的文件，里面有很多中文字符。\nint a;\n" * 9
JAPANESE = "// これは文字コードの試験のためのファイルです。\nint a;\n" * 9
RUSSIAN = "// Этот файл написан по-русски и сохранён давно\nint a;\n" * 9
FRENCH = "// Ce fichier est écrit à la main\nint a;\n" * 9


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        *((CHINESE, "gbk", "gb18030"), (CHINESE, "gb18030", "gb18030"), (JAPANESE, "shift_jis", "cp932")),
        *((JAPANESE, "euc_jp", "euc_jp"), (RUSSIAN, "cp1251", "cp1251"), (RUSSIAN, "koi8_r", "koi8-r")),
        *((FRENCH, "utf-16-le", "utf-16-le"), (FRENCH, "utf-16-be", "utf-16-be")),
    ],
)
def test_what_only_statistics_tell_is_decoded_where_that_is_wanted(text: str, encoding: str, found: str) -> None:
    assert decode(text.encode(encoding), "C").reason in ("not_utf8", "binary")
    assert decode(text.encode(encoding), "C", detect=True) == (text, found, 0, "")


def test_mixed_and_damaged_encodings() -> None:
    mixed = FRENCH.encode() + FRENCH.encode("latin-1")
    assert decode(mixed, "C").reason == "mixed_encodings"
    assert decode(mixed, "C", detect=True) == (FRENCH * 2, "utf-8+cp1252", 0, "")
    stray = FRENCH.encode() + b"\xff" + FRENCH.encode()
    assert decode(stray, "C").reason
    assert decode(stray, "C", detect=True) == (FRENCH + "\ufffd" + FRENCH, "utf-8", 1, "")
    assert decode(FRENCH.encode("utf-32"), "C") == (FRENCH, "utf-32", 0, "")
    assert decode(b"# coding: idna\nx = 1\n", "Python").encoding == "utf-8"


def test_the_encodings_that_are_told_are_counted(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
    files: dict[str, str | bytes] = {
        "r/a.c": CHINESE.encode("gbk"),
        "r/b.c": FRENCH.encode() + b"\xff",
        "r/lfs.py": pointer,
    }
    config = CollectConfig(shards=1, detect_encodings=True)
    manifest = run(
        folders=[str(write(tmp_path / "in", files))], output=str(tmp_path / "out"), config=config, options=BeamOptions()
    )
    assert manifest.table("count") == {"decoded gb18030": 1, "bytes lost in decoding": 1}
    [found] = [pq.read_table(tmp_path / "out" / name).to_pylist() for name in manifest.shards()]
    assert {row["path"]: row["encoding"] for row in found} == {"a.c": "gb18030", "b.c": "utf-8"}
    assert manifest.table("drop", "documents") == {"lfs_pointer": 1}


@pytest.mark.parametrize("wrong", [{"max_file_bytes": 0}, {"max_corpus_bytes": -1}, {"shards": 0}, {"shards": 100_000}])
def test_a_wrong_configuration_names_its_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CollectConfig(**wrong)


def test_without_input_it_is_the_python_that_runs() -> None:
    roots = python_library()
    assert roots[0].repository == "cpython"
    assert (Path(roots[0].folder) / "argparse.py").is_file()
    assert any((Path(root.folder) / "pyarrow").is_dir() for root in roots[1:])
