"""Input that went wrong when it was tried, through the whole chain: alone, and beside units that are sound.

It ends in documents or in one line, every stage's counts balance, and of the sound units nothing is lost.
"""

import shutil
import subprocess
import sysconfig
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pygit2
import pytest

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.manifest import Manifest, check_balance
from opencoder_jax.recipe import ROOT, UserError

SHARED = ROOT.parent / "shared/cases/data"
GOOD = ["textwrap.py", "heapq.py", "fractions.py", "bisect.py", "queue.py", "shlex.py"]
FLAGS = {
    "archives": (),
    "tables": tuple(f"--gin.TablesConfig.{name}={name}" for name in ("path", "repository", "stars", "commit_time")),
    "folders": (),
    "repositories": (),
}
ALL_MAY_BREAK = "--gin.QuarantineConfig.max_share=1.0"


def good_archive(place: Path) -> None:
    with tarfile.open(place / "zz_good.tar", "w") as archive:
        for name in GOOD:
            archive.add(Path(sysconfig.get_paths()["stdlib"]) / name, f"good/{name}")


def good_table(place: Path) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    rows = [{"text": (library / name).read_text(), "path": f"good/{name}", "repository": "zz/good"} for name in GOOD]
    pq.write_table(pa.Table.from_pylist(rows), place / "zz_good.parquet")


def good_folder(place: Path) -> None:
    (place / "zz_good/good").mkdir(parents=True)
    for name in GOOD:
        shutil.copy(Path(sysconfig.get_paths()["stdlib"]) / name, place / "zz_good/good")


def good_repository(place: Path) -> None:
    good_folder(place)
    repository = pygit2.init_repository(place / "zz_good")
    repository.index.add_all()
    who = pygit2.Signature("A Tester", "tester@example.com", 1000, 0)
    repository.create_commit("HEAD", who, who, "all", repository.index.write_tree(), [])


MAKE: dict[str, Callable[[Path], None]] = {
    "archives": good_archive,
    "tables": good_table,
    "folders": good_folder,
    "repositories": good_repository,
}


def chain(kind: str, source: Path, output: Path, *flags: str) -> tuple[dict[str, bytes], str]:
    """The texts that come out, by their paths, and what the user is told if it ends by an error."""
    said = ""
    try:
        main(["refinecode", f"--{kind}={source}", f"--output={output}", "--direct_num_workers=1", *FLAGS[kind], *flags])
    except UserError as error:
        said = str(error)
        assert len(said.splitlines()) == 1
    finished = [file.parent for file in output.rglob("stage.json")]
    for stage in finished:
        manifest = Manifest.read(str(stage))
        check_balance(manifest.stage, manifest.tally)
    if not (output / "sample/stage.json").exists():
        assert said
        return {}, said
    shards = [pq.read_table(output / "sample" / name) for name in Manifest.read(str(output / "sample")).shards()]
    return {row["path"]: row["text"] for table in shards for row in table.to_pylist()}, said


def cases() -> list[tuple[str, Path]]:
    kinds = {"archives": "archives", "tables": "tables", "collect": "folders", "redact": "folders"}
    found = [
        (kind, case)
        for name, kind in kinds.items()
        for case in (sorted((SHARED / name).iterdir()) if (SHARED / name).is_dir() else [])
    ]
    names = ["sha256", "unborn", "deep", "linked", "head", "name", "partial", "object", "lfs"]
    return found + [("repositories", Path("git") / name) for name in names if (SHARED / "make_git_cases.sh").exists()]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("repositories")
    subprocess.run(["bash", str(SHARED / "make_git_cases.sh"), str(place / "git")], check=True, capture_output=True)
    return place


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """What the chain makes of the sound unit of a kind by itself."""

    @cache
    def made(kind: str) -> dict[str, bytes]:
        place = tmp_path_factory.mktemp("good")
        (place / "in").mkdir()
        MAKE[kind](place / "in")
        texts, said = chain(kind, place / "in", place / "out")
        assert len(texts) >= len(GOOD) - 1, said
        return texts

    return made


def copied(case: Path, place: Path) -> Path:
    """A case as the input of a chain; a file in a folder of its own, as it's a repository's."""
    if case.is_dir():
        return Path(shutil.copytree(case, place, symlinks=True))
    (place / case.stem).mkdir(parents=True)
    shutil.copy(case, place / case.stem)
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "case"),
    [found for found in cases() if found[0] != "repositories"],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_case_alone(kind: str, case: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chain(kind, copied(case, tmp_path / "in"), tmp_path / "out")
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the cases lie elsewhere")
@pytest.mark.parametrize("kind", ["archives", "tables", "folders"])
def test_all_cases_of_a_kind_beside_a_sound_unit(
    kind: str, expected: Callable[[str], dict[str, bytes]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for of_kind, case in cases():
        if of_kind == kind:
            copied(case, tmp_path / "in" / case.stem)
    MAKE[kind](tmp_path / "in")
    found, said = chain(kind, tmp_path / "in", tmp_path / "out", ALL_MAY_BREAK)
    assert said == ""
    assert expected(kind).items() <= found.items()
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for kind, case in cases() if kind == "repositories"], ids=lambda case: case.name)
def test_a_case_of_git_beside_a_sound_repository(
    case: Path,
    repositories: Path,
    expected: Callable[[str], dict[str, bytes]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(repositories / "git", tmp_path / "git", symlinks=True)
    good_repository(tmp_path / case)
    found, said = chain("repositories", tmp_path / case, tmp_path / "out", ALL_MAY_BREAK)
    assert said == ""
    assert expected("repositories").items() <= found.items()
    assert "Traceback" not in "".join(capfd.readouterr())
