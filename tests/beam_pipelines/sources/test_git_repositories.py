"""Git repositories as a source: real ones, made by libgit2, checked out and bare."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pygit2
import pytest

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources.git_repositories import GitConfig, run
from opencoder_jax.recipe import UserError

Documents = dict[str, dict[str, Any]]


def collect(source: Path, output: Path, **config: Any) -> tuple[Manifest, Documents, dict[str, str]]:
    """The manifest, documents by path, and the reason of each drop by path."""
    manifest = run(repositories=[str(source)], output=str(output), config=GitConfig(**config), options=BeamOptions())

    def rows(table: str) -> list[dict[str, Any]]:
        return [row for name in manifest.shards(table) for row in pq.read_table(output / name).to_pylist()]

    return (
        manifest,
        {row["path"]: row for row in rows("documents")},
        {row["path"]: row["reason"] for row in rows("drops")},
    )


def commit(repository: pygit2.Repository, files: dict[str, bytes | None], time: int, *more: pygit2.Oid) -> pygit2.Oid:
    """Commits changes to files (None removes one) at a time; `more` are further parents of a merge."""
    index = repository.index
    for path, content in files.items():
        if content is None:
            index.remove(path)
        else:
            mode = 0o120000 if path.endswith(".link") else 0o100644
            index.add(pygit2.IndexEntry(path, repository.create_blob(content), pygit2.enums.FileMode(mode)))
    tree = index.write_tree()
    who = pygit2.Signature("A Tester", "tester@example.com", time, 0)
    first = [] if repository.head_is_unborn else [repository.head.target]
    return repository.create_commit("HEAD", who, who, "change", tree, [*first, *more])


def history(repository: pygit2.Repository) -> None:
    commit(repository, {"a.py": b"x = 1\n", "old.py": b"y = 1\n", "lib/b.c": b"int b;\n"}, 1000)
    commit(repository, {"a.py": b"x = 2\n"}, 2000)
    # A rename, a symbolic link and what is no text.
    commit(repository, {"old.py": None, "new.py": b"y = 1\n", "l.link": b"/etc/passwd", "z.py": b"\0\1"}, 3000)


@pytest.mark.parametrize("bare", [False, True])
def test_files_of_head_with_the_times_of_their_last_change(bare: bool, tmp_path: Path) -> None:
    repository = pygit2.init_repository(tmp_path / "clones" / "tool.git", bare=bare)
    history(repository)
    if not bare:
        (tmp_path / "clones" / "tool.git" / "uncommitted.py").write_text("z = 1\n")
    manifest, documents, drops = collect(tmp_path / "clones", tmp_path / "out")
    assert {path: row["commit_time"] for path, row in documents.items()} == {
        "a.py": 2000,
        "new.py": 3000,
        "lib/b.c": 1000,
    }
    assert documents["a.py"]["text"] == "x = 2\n"
    assert documents["lib/b.c"]["language"] == "C"
    assert {row["repository"] for row in documents.values()} == {"tool"}
    assert drops == {"l.link": "symbolic_link", "z.py": "binary"}
    assert manifest.total("in", "documents") == len(documents) + len(drops)


def test_the_name_is_that_of_the_origin(tmp_path: Path) -> None:
    repository = pygit2.init_repository(tmp_path / "x")
    history(repository)
    repository.remotes.create("origin", "git@example.com:someone/tool.git")
    (tmp_path / "stars.csv").write_text("repository,stars\nsomeone/tool,12\n")
    _, documents, _ = collect(tmp_path / "x", tmp_path / "out", stars_table=str(tmp_path / "stars.csv"))
    assert {(row["repository"], row["stars"]) for row in documents.values()} == {("someone/tool", 12)}


def test_what_a_repository_says_of_its_languages_counts(tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {
        ".gitattributes": b"*.inc linguist-language=Pascal\n",
        "a.inc": b"int a;\n",
        "lib/.gitattributes": b"b.inc linguist-language=cpp\n",
        "lib/b.inc": b"int b;\n",
    }
    commit(pygit2.init_repository(tmp_path / "tool"), files, 1000)
    _, documents, _ = collect(tmp_path / "tool", tmp_path / "out")
    assert {path: documents[path]["language"] for path in ("a.inc", "lib/b.inc")} == {
        "a.inc": "Pascal",
        "lib/b.inc": "C++",
    }


def test_a_merge_counts_when_it_was_merged(tmp_path: Path) -> None:
    repository = pygit2.init_repository(tmp_path / "x")
    base = commit(repository, {"a.py": b"x = 1\n"}, 1000)
    branch = repository.create_commit(
        "refs/heads/branch",
        pygit2.Signature("A Tester", "tester@example.com", 1500, 0),
        pygit2.Signature("A Tester", "tester@example.com", 1500, 0),
        "aside",
        repository[base].peel(pygit2.Tree).id,
        [base],
    )
    commit(repository, {"b.py": b"y = 1\n"}, 2000, branch)
    _, documents, _ = collect(tmp_path / "x", tmp_path / "out")
    assert {path: row["commit_time"] for path, row in documents.items()} == {"a.py": 1000, "b.py": 2000}


def test_a_configuration_that_names_a_program_runs_nothing(tmp_path: Path) -> None:
    repository = pygit2.init_repository(tmp_path / "x")
    history(repository)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    with open(tmp_path / "x" / ".git" / "config", "a") as config:
        config.write(f"[core]\n\tfsmonitor = {program}\n\tpager = {program}\n[diff]\n\texternal = {program}\n")
    collect(tmp_path / "x", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_the_same_commit_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        history(pygit2.init_repository(tmp_path / name / "tool"))
    assert collect(tmp_path / "a", tmp_path / "one")[0].files == collect(tmp_path / "b", tmp_path / "two")[0].files
    # Of an unchanged repository nothing is read again; a new commit is.
    before = (tmp_path / "one" / "stage.json").stat().st_mtime_ns
    collect(tmp_path / "a", tmp_path / "one")
    assert (tmp_path / "one" / "stage.json").stat().st_mtime_ns == before
    commit(pygit2.Repository(tmp_path / "a" / "tool"), {"c.py": b"new = 1\n"}, 4000)
    assert "c.py" in collect(tmp_path / "a", tmp_path / "one")[1]


def test_what_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        collect(tmp_path / "nowhere", tmp_path / "out")
    pygit2.init_repository(tmp_path / "unborn")
    with pytest.raises(UserError, match="no git repository with a commit"):
        collect(tmp_path, tmp_path / "out")
    for name in ("one", "two"):
        history(pygit2.init_repository(tmp_path / name / "tool"))
    with pytest.raises(UserError, match="are both tool"):
        collect(tmp_path, tmp_path / "out")


def test_a_missing_object_costs_its_file(tmp_path: Path) -> None:
    repository = pygit2.init_repository(tmp_path / "x")
    history(repository)
    blob = str(repository.head.peel(pygit2.Tree)["a.py"].id)
    (tmp_path / "x" / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(UserError, match=r"1 of 5 in quarantine.* x/a\.py: .*NotFound.*the rest is done"):
        collect(tmp_path / "x", tmp_path / "out")
    manifest = Manifest.read(str(tmp_path / "out"))
    assert manifest.total("out", "documents") == 2
    assert manifest.total("in", "documents") == 5
