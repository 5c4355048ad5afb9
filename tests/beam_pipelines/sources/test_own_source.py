"""A source of one's own is one small file: CONTRIBUTING.md shows this one."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from opencoder_jax.beam_pipelines.command import command
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.recipe import UserError

OWN_SOURCE = '''
"""Collects the snippets of SQLite databases: tables `snippets` with the columns path and code."""
import sqlite3
from collections.abc import Iterator, Sequence
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources.builder import Row, document
from opencoder_jax.beam_pipelines.sources.inputs import Unit, list_units
from opencoder_jax.beam_pipelines.sources.units import collect_units

def read(database: Unit, config: None) -> Iterator[Row]:
    for path, code in sqlite3.connect(f"{database.directory}/{database.name}").execute("SELECT * FROM snippets"):
        yield document(database.name, path, code, source="sqlite")

def run(databases: Sequence[str], output: str, options: BeamOptions) -> Manifest:
    return collect_units(__name__, list_units(databases, (".db",)), read, None, output, options)
'''


@pytest.fixture
def databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two databases; the source lies where Python finds it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "snippets.py").write_text(OWN_SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    (tmp_path / "in").mkdir()
    for name, rows in (
        ("a.db", [("one.py", "x = 1\n"), ("notes", "?"), ("two.go", "")]),
        ("b.db", [("three.c", "int x;\n".encode("utf-16"))]),  # bytes are decoded, text is taken as it is
    ):
        with sqlite3.connect(tmp_path / "in" / name) as database:
            database.execute("CREATE TABLE snippets (path, code)")
            database.executemany("INSERT INTO snippets VALUES (?, ?)", rows)
        database.close()
    return tmp_path / "in"


def test_it_is_a_stage_in_few_lines(databases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len([line for line in OWN_SOURCE.splitlines() if line]) <= 15
    flags = [f"--databases={databases}", f"--output={tmp_path / 'out'}"]
    command("snippets", "snippets", "", flags)
    assert "snippets: 4 documents (0.0 MB) in, 2 documents (0.0 MB) out; dropped: " in capsys.readouterr().out
    manifest = Manifest.read(str(tmp_path / "out"))
    shards = [pq.read_table(tmp_path / "out" / name).to_pylist() for name in manifest.shards()]
    found = [[(row["repository"], row["path"], row["language"], row["text"]) for row in rows] for rows in shards]
    assert found == [[("a.db", "one.py", "Python", "x = 1\n")], [("b.db", "three.c", "C", "int x;\n")]]
    assert manifest.table("drop", "documents") == {"unknown_language": 1, "empty": 1}
    assert manifest.table("count") == {"decoded utf-16": 1}
    command("snippets", "snippets", "", flags)
    assert "snippets: up to date" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no file ends in \.db"):
        command("snippets", "snippets", "", [f"--databases={tmp_path / 'code'}", f"--output={tmp_path / 'other'}"])


@pytest.mark.slow
def test_a_change_of_its_code_runs_it_again(databases: Path, tmp_path: Path) -> None:
    """In a process of its own each, as a user would."""

    def errors() -> str:
        program = (
            "from opencoder_jax.beam_pipelines.command import command; import sys; "
            f"sys.path.insert(0, {str(tmp_path / 'code')!r}); command('snippets', 'snippets', '', sys.argv[1:])"
        )
        flags = [f"--databases={databases}", f"--output={tmp_path / 'out'}"]
        done = subprocess.run([sys.executable, "-c", program, *flags], capture_output=True, text=True, check=True)
        return done.stderr

    errors()
    source = tmp_path / "code" / "snippets.py"
    source.write_text(source.read_text().replace('source="sqlite"', 'source="database"') + "# a comment\n")
    assert "the code of snippets changed" in errors()
    source.write_text(source.read_text() + "# another comment\n")
    assert "up to date" in errors()
