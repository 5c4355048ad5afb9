"""Archives as a source: real tar and zip bytes, friendly and hostile."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources.archives import ArchivesConfig, run
from opencoder_jax.beam_pipelines.sources.units import QuarantineConfig
from opencoder_jax.recipe import UserError

FILES = {"tool/main.py": b"print(1)\n", "tool/lib/a.c": b"int a;\n", "tool/.git/config": b"x", "tool/x.bin": b"\0\1"}


def collect(
    source: Path, output: Path, allowed: float = 0.01, **config: Any
) -> tuple[Manifest, dict[str, dict[str, Any]], dict[str, str]]:
    """The manifest, documents by path, and the reason of each drop by path."""
    manifest = run(
        archives=[str(source)],
        output=str(output),
        config=ArchivesConfig(**config),
        options=BeamOptions(),
        quarantine=QuarantineConfig(allowed),
    )

    def rows(table: str) -> list[dict[str, Any]]:
        return [row for name in manifest.shards(table) for row in pq.read_table(output / name).to_pylist()]

    return (
        manifest,
        {row["path"]: row for row in rows("documents")},
        {row["path"]: row["reason"] for row in rows("drops")},
    )


def tar(place: Path, mode: str, files: dict[str, bytes], more: Callable[[tarfile.TarFile], None] | None = None) -> None:
    with tarfile.open(place, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000
            archive.addfile(member, io.BytesIO(content))
        if more:
            more(archive)


def zipped(place: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2023, 11, 14, 22, 13, 20)), content)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "zip", "whl"])
def test_every_kind_of_archive(ending: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    place = tmp_path / "in" / f"tool-1.0.{ending}"
    if ending in ("zip", "whl"):
        zipped(place, FILES)
    else:
        packed = {"tar": "w", "tgz": "w:gz"}.get(ending, f"w:{ending[4:]}")
        tar(place, packed, FILES)
    _, documents, drops = collect(tmp_path / "in", tmp_path / "out")
    assert documents.keys() == {"tool/main.py", "tool/lib/a.c"}
    assert documents["tool/lib/a.c"] == documents["tool/lib/a.c"] | {
        "text": "int a;\n",
        "language": "C",
        "repository": "tool-1.0",
        "commit_time": 1_700_000_000,
        "source": f"tool-1.0.{ending}",
    }
    assert drops.keys() == {"tool/x.bin"}


def test_stars_come_from_a_side_table_by_the_name_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    tar(tmp_path / "in" / "tool-1.0.tgz", "w:gz", FILES)
    zipped(tmp_path / "in" / "other.zip", {"a.py": b"x = 1\n"})
    (tmp_path / "stars.csv").write_text("repository,stars\ntool-1.0,9\n")
    _, documents, _ = collect(tmp_path / "in", tmp_path / "out", stars_table=str(tmp_path / "stars.csv"))
    assert {path: row["stars"] for path, row in documents.items()} == {"tool/main.py": 9, "tool/lib/a.c": 9, "a.py": 0}


def links(archive: tarfile.TarFile) -> None:
    for name, kind, target in [("link.py", tarfile.SYMTYPE, "/etc/passwd"), ("hard.py", tarfile.LNKTYPE, "a.py")]:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)
    device = tarfile.TarInfo("device.py")
    device.type = tarfile.CHRTYPE
    archive.addfile(device)


def test_a_hostile_tar(tmp_path: Path) -> None:
    names = {"/etc/evil.py": b"x = 1\n", "../up.py": b"x = 1\n", "a/../../b.py": b"x = 1\n", "fine.py": b"x = 1\n"}
    tar(tmp_path / "h.tar", "w", names | {"large.py": b"x" * 1000}, links)
    manifest, documents, drops = collect(tmp_path / "h.tar", tmp_path / "out", max_file_bytes=100)
    assert documents.keys() == {"fine.py"}
    assert drops == {
        "/etc/evil.py": "unsafe_path",
        "../up.py": "unsafe_path",
        "a/../../b.py": "unsafe_path",
        "large.py": "too_large",
        "link.py": "symbolic_link",
        "hard.py": "symbolic_link",
        "device.py": "unreadable",
    }
    assert manifest.total("in", "documents") == len(documents) + len(drops)


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    """The directory says ten bytes, the data unpack to a million."""
    zipped(tmp_path / "bomb.zip", {"a.py": b"0" * 1_000_000})
    data = (tmp_path / "bomb.zip").read_bytes()
    (tmp_path / "bomb.zip").write_bytes(data.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"bomb\.zip: damaged"):
        collect(tmp_path / "bomb.zip", tmp_path / "out")


def test_an_archive_is_left_at_its_limit(tmp_path: Path) -> None:
    zipped(tmp_path / "many.zip", {f"{number}.py": b"x = 1\n" * 10 for number in range(100)})
    _, documents, drops = collect(tmp_path / "many.zip", tmp_path / "out", max_archive_bytes=600)
    assert len(documents) == 10
    assert list(drops.values()) == ["archive_too_large"]


def test_an_encrypted_member_is_a_drop(tmp_path: Path) -> None:
    zipped(tmp_path / "e.zip", {"a.py": b"x = 1\n", "b.py": b"y = 1\n"})
    data = bytearray((tmp_path / "e.zip").read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + offset] |= 1
    (tmp_path / "e.zip").write_bytes(bytes(data))
    _, documents, drops = collect(tmp_path / "e.zip", tmp_path / "out")
    assert documents.keys() == {"b.py"}
    assert drops == {"a.py": "encrypted"}


@pytest.mark.parametrize("name", ["cut.tar.gz", "cut.tar.xz", "cut.zip", "cut.tar"])
def test_a_truncated_archive_is_told_once_the_rest_is_done(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    tar(tmp_path / "in" / "good.tar", "w", FILES)
    files = {f"{number}.py": bytes(str(hash(number)), "ascii") * 200 for number in range(50)}
    place = tmp_path / "in" / name
    if name.endswith("zip"):
        zipped(place, files)
    else:
        tar(place, "w" if name.endswith(".tar") else f"w:{name[8:]}", files)
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 2 + 100])
    with pytest.raises(UserError, match=f"1 of 2 units as a whole .*more than 1.*{name}: damaged or cut short"):
        collect(tmp_path / "in", tmp_path / "out")
    manifest, documents, _ = collect(tmp_path / "in", tmp_path / "out", allowed=1.0)  # which reads nothing again
    assert {"tool/main.py", "tool/lib/a.c"} <= documents.keys()
    if not name.endswith("zip"):  # what stands before the cut is kept
        assert "0.py" in documents
        assert "49.py" not in documents
    [file] = (tmp_path / "out/quarantine").iterdir()
    [fault] = map(json.loads, file.read_text().splitlines())
    assert fault["unit"] == name
    assert fault["exception"] == "Damaged"
    assert manifest.total("quarantine", "units") == 1
    assert manifest.total("in", "documents") == sum(manifest.total(kind, "documents") for kind in ("out", "drop")) + 1


def test_no_archives(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        collect(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match=r"no file ends in \.tar"):
        collect(tmp_path, tmp_path / "out")
    tar(tmp_path / "empty.tar", "w", {})
    with pytest.raises(UserError, match=r"no document in empty\.tar; dropped as nothing at all"):
        collect(tmp_path / "empty.tar", tmp_path / "out")
