"""Reads every file of finished stages and token records and says which aren't as they were written."""

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from opencoder_jax.beam_pipelines.chains import SUMMARIES, summary_of
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, PARTS, PLAN, Manifest, damage
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.data.token_records import BLOCK, METADATA, ShardSummary, TokenRecords, metadata_files, shard_names
from opencoder_jax.progress import Progress
from opencoder_jax.recipe import UserError, parse_flags, refuse_unknown
from opencoder_jax.tokenization.tokenizer_files import TOKENIZER, read_tokenizer

SHOWN = 20  # damaged files in the last line


class Damage(NamedTuple):
    """A file that isn't as it was written; whether it's one of a stage, which can make it again."""

    directory: Directory
    name: str
    why: str
    of_stage: bool = False

    def __str__(self) -> str:
        return f"{self.directory.uri}/{self.name}: {self.why}"


def main(argv: list[str]) -> None:
    """Prints a line a directory and a line a damaged file.

    Raises:
        UserError: there is nothing to verify, or a file is damaged or missing.
    """
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipelines verify",
        description="Reads all files of finished stages, of chains of them and of token records, at any depth, and "
        "says which aren't as they were written. Exit codes: 0 all whole, 2 not.",
        epilog="Example: python -m beam_pipelines verify runs/refinecode\n"
        "For the checkpoints of a model: python -m opencoder_jax verify --checkpoint=DIR",
    )
    parser.add_argument("directories", nargs="+", metavar="DIR", help="what is read, with all folders in it")
    parser.add_argument(
        "--delete",
        action="store_true",
        help="delete what is damaged of stages; the commands that wrote it make just that again",
    )
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    damaged = [each for directory in flags.directories for each in verify(Directory(directory))]
    if flags.delete:
        for each in damaged:
            if each.of_stage:
                delete(each)
    if damaged:
        named = "; ".join(map(str, damaged[:SHOWN])) + (" …" if len(damaged) > SHOWN else "")
        then = "deleted; run the commands that wrote them again" if flags.delete else "--delete deletes them"
        raise UserError(f"{len(damaged)} files aren't as they were written ({then}): {named}")


def verify(root: Directory) -> Iterator[Damage]:
    """What is damaged in a directory and all below it; prints a line for each directory that is whole.

    Raises:
        UserError: there is nothing to verify.
    """
    held: dict[str, set[str]] = {}  # names by folder
    for path in root.tree() if root.uri else ():
        folder, _, name = path.rpartition("/")
        held.setdefault(folder, set()).add(name)
    some = False
    for folder, names in sorted(held.items()):
        directory = root.child(folder) if folder else Directory(root.uri.rstrip("/") or "/")
        found: Iterator[Damage] | None = None
        if MANIFEST in names:
            found = _damaged_stage(directory)
        elif METADATA in names and directory.local():
            found = _damaged_records(directory)
        elif summaries := names & set(SUMMARIES.values()):
            found = _damaged_summaries(directory, sorted(summaries))
        elif PLAN in names:
            print(f"{directory.uri}: isn't finished")
        if found is not None:
            some = True
            damaged = list(found)
            print("\n".join(map(str, damaged)) or f"{directory.uri}: whole", flush=True)
            yield from damaged
    if not some:
        raise UserError(f"{root.uri}: holds no finished stage and no token records")


def delete(damaged: Damage) -> None:
    """Deletes a damaged file. Without its manifest a stage counts as one that has to be made again from its start."""
    if damaged.name == MANIFEST:
        damaged.directory.write_json(PLAN, {})
    damaged.directory.remove(damaged.name)


def _damaged_stage(directory: Directory) -> Iterator[Damage]:
    try:
        manifest = Manifest.read(directory.uri)
    except UserError as error:
        yield Damage(directory, MANIFEST, str(error).removeprefix(f"{directory.uri}/{MANIFEST}: "), True)
        return
    sizes = directory.sizes()
    names = sorted(manifest.files)

    def look(name: str) -> str:
        return damage(directory, name, manifest.files[name])

    total = sum(sizes.get(name, 0) for name in names)
    with Progress(f"verify {directory.uri}", total, "B") as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        read = 0
        for name, why in zip(names, pool.map(look, names), strict=True):
            progress.update_to(read := read + sizes.get(name, 0))
            if why:
                yield Damage(directory, name, why, True)
    if directory.exists(PARTS):  # which has a seal of its own
        try:
            directory.read_sealed(PARTS)
        except UserError as error:
            yield Damage(directory, PARTS, str(error).removeprefix(f"{directory.uri}/{PARTS}: "), True)


def _damaged_summaries(directory: Directory, names: Sequence[str]) -> Iterator[Damage]:
    """The summary of a chain says again what the manifests say, which stand for themselves."""
    for name in names:
        try:
            told = directory.read_sealed(name)
            if told != summary_of(directory.uri, [stage["directory"] for stage in told["stages"]]):
                yield Damage(directory, name, "isn't the summary of the stages beside it; run the chain again")
        except (UserError, KeyError, TypeError):
            yield Damage(directory, name, "it, or a manifest that it sums up, was damaged after it was written")


def _damaged_records(directory: Directory) -> Iterator[Damage]:
    """Token records that no stage wrote, or that were copied without its manifest."""
    root = Path(directory.uri)
    try:
        tokenizer = read_tokenizer(TokenRecords.open(root).directory)
    except UserError as error:
        place, _, why = str(error).partition(": ")
        name = os.path.basename(place)
        yield Damage(directory, name, f"{why}, unless {METADATA} is damaged" if name == TOKENIZER else why)
        return
    shards = [ShardSummary(*shard) for shard in json.loads((root / METADATA).read_bytes())["shards"]]
    for name, content in metadata_files(shards, tokenizer).items():
        if not (root / name).is_file() or (root / name).read_bytes() != content:
            yield Damage(directory, name, "damaged after it was written, or of another version")
    with Progress(f"verify {root}", sum(shard.bytes for shard in shards), "B") as progress:
        read = 0
        for number, shard in enumerate(shards):
            names = shard_names(number, len(shards))
            sums = (root / names.checksums).read_bytes()
            if hashlib.blake2b(sums, digest_size=16).hexdigest() != shard.checksums:
                yield Damage(directory, names.checksums, "damaged after it was written")
                continue
            for name in (names.places, names.tokens):
                found = _block_sums(root / name)
                if found != sums[: len(found)]:
                    yield Damage(directory, name, "damaged after it was written")
                sums = sums[len(found) :]
            progress.update_to(read := read + shard.bytes)


def _block_sums(file: Path) -> bytes:
    """CRC-32C of each block of a file, as token records keep them."""
    with file.open("rb") as stream:
        blocks = iter(lambda: stream.read(BLOCK), b"")
        return b"".join(google_crc32c.value(block).to_bytes(4, "little") for block in blocks)
