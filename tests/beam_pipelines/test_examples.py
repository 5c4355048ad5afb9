"""The example in every stage's help runs as printed, one after the other: each reads what those before it wrote."""

import json
import shlex
import shutil
import sysconfig
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pygit2
import pytest

from opencoder_jax.beam_pipelines.__main__ import CHAINS, COMMANDS, VERBS, main
from tests.generated_crawl import CrawlSize, write_crawl

# What the examples call by a name of the user's own.
PLACES = ("/path/to/repositories", "/path/to/clones", "/path/to/archives", "/path/to/warc")
MODULES = ("heapq.py", "textwrap.py", "statistics.py", "string.py", "difflib.py", "bisect.py", "random.py")
# A vocabulary that so little text can fill, and more that nobody's example would say.
SMALL = {
    "train_tokenizer": ["--gin.TokenizerConfig.vocab_size=600", "--gin.TokenizerConfig.minimum_count=1"],
    "compression": ["--gin.CompressionConfig.megabytes=0.1"],
    "web": ["--gin.TokenizerConfig.vocab_size=1000", "--rounds=1"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the examples begin with."""
    home = tmp_path_factory.mktemp("home")
    library = Path(sysconfig.get_paths()["stdlib"])
    repository = home / "repositories" / "one"
    repository.mkdir(parents=True)
    for name in MODULES:
        shutil.copy(library / name, repository / name)

    clone = pygit2.init_repository(home / "clones" / "tool")
    clone.index.add(pygit2.IndexEntry("a.py", clone.create_blob(b"x = 1\n"), pygit2.enums.FileMode.BLOB))
    who = pygit2.Signature("A Tester", "tester@example.com", 1000, 0)
    clone.create_commit("HEAD", who, who, "first", clone.index.write_tree(), [])

    (home / "archives").mkdir()
    with zipfile.ZipFile(home / "archives" / "tool-1.0.zip", "w") as archive:
        archive.writestr("tool/a.py", "x = 1\n")

    for folder in ("stack", "metadata", "sft_stage1"):
        (home / "data" / folder).mkdir(parents=True)
    stack = {
        "content": ["x = 1\n"],
        "max_stars_repo_path": ["a.py"],
        "max_stars_repo_name": ["one/tool"],
        "max_stars_count": [3],
        "lang": ["Python"],
        "max_stars_repo_licenses": [["mit"]],
    }
    pq.write_table(pa.table(stack), home / "data" / "stack" / "part.parquet")
    metadata = {"repo_name": ["one/tool"], "sub_path": ["a.py"], "file_size_in_byte": [6], "program_lang": ["python"]}
    pq.write_table(pa.table(metadata), home / "data" / "metadata" / "part.parquet")
    chat = {"instruction": "Add one and one.", "output": "Two."}
    (home / "data" / "sft_stage1" / "part.jsonl").write_text(json.dumps(chat) + "\n")

    write_crawl(home / "crawl", CrawlSize(pages=200, sites=60, files=1, broken=0.0, seeds=0.9, others=0.5))
    (home / "crawl" / "training").rename(home / "warc")
    seeds = [json.loads(line) for line in (home / "crawl" / "seeds.jsonl").open()]
    pq.write_table(pa.Table.from_pylist(seeds), home / "data" / "seeds.parquet")
    return home


def words(example: str, home: Path) -> list[str]:
    for place in PLACES:
        example = example.replace(place, str(home / Path(place).name))
    return shlex.split(example)


# (That of released_tokenizer is run where a released one is made: tokens/test_released_tokenizer.py.)
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in {*COMMANDS, "released_tokenizer"}])
def test_the_example_of_a_stage_runs_as_printed(
    verb: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the table, so that each finds what the others left."""
    monkeypatch.chdir(home)
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert f"Example: python -m beam_pipelines {verb} {VERBS[verb].example}\n" in capsys.readouterr().out
    flags = words(VERBS[verb].example, home)
    main([verb, *flags, *SMALL.get(verb, [])])
    output = next(flag for flag in flags if flag.startswith("--output=")).removeprefix("--output=")
    assert (home / output / "stage.json").exists()


@pytest.mark.parametrize("verb", ["refinecode", pytest.param("web", marks=pytest.mark.slow)])
def test_the_example_of_a_chain(verb: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verb in CHAINS
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(home / "data")
    main([verb, *words(VERBS[verb].example, home), *SMALL.get(verb, [])])
    assert (tmp_path / "runs" / verb / f"{verb}.json").exists()
