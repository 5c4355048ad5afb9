"""What sources read: the files of their inputs, each a unit that is named by its content."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, PLAN, digest
from opencoder_jax.beam_pipelines.core.runner import LOCAL, BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.core.stores.systems import Unreachable
from opencoder_jax.beam_pipelines.core.stores.trees import files_below, is_remote
from opencoder_jax.beam_pipelines.sources.formats.members import Unit
from opencoder_jax.beam_pipelines.sources.formats.rows import Rows, read_rows
from opencoder_jax.beam_pipelines.sources.listing.folders import is_stage
from opencoder_jax.beam_pipelines.sources.listing.workers import looked_at
from opencoder_jax.recipe import UserError

# What lies beside tables and is none: Hugging Face's descriptions of a data set, and a stage's of itself.
_DESCRIPTIONS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", MANIFEST, PLAN)
_READERS = 8  # files whose digests are made at a time


def split_path(path: str) -> tuple[str, str]:
    """A file's folder and its name in it."""
    folder, _, name = path.rstrip("/").rpartition("/")
    return folder or ("/" if path.startswith("/") else "."), name


def list_units(
    inputs: Sequence[str], endings: tuple[str, ...], output: str = "", options: BeamOptions = LOCAL
) -> list[Unit]:
    """The files of all inputs, folders or files, by their names; those without one of some endings have a reason.

    Folders are read with all that lies in their folders, as data sets are published, but for what stages wrote there.
    A file of a disk is known by its content, and all of it is read for a digest; an object of a bucket by its size and
    time.

    Args:
        inputs: paths or URIs.
        endings: of files that there is a reader for.
        output: of the stage; on a cluster, workers that make the digests write there for a moment.

    Raises:
        UserError: an input is missing or holds no such file, or two files have one name.
    """
    if not inputs:
        raise UserError("no input is given")
    units: list[Unit] = []
    for given in inputs:
        folder, name = split_path(given)
        found = [Unit(folder, name, 0)]
        if not (name.lower().endswith(endings) and Directory(folder).exists(name)):
            found = _published(given, endings)
        if all(unit.reason for unit in found):
            known = Directory(given).exists()
            wrong = f"no file ends in {', '.join(endings)}" if known else "no such file or folder"
            raise UserError(f"input {given}: {wrong}")
        units += found
    units.sort(key=lambda unit: (unit.name, unit.directory))
    for unit, other in pairwise(units):
        if unit.name == other.name and not (unit.reason or other.reason):
            both = f"{unit.directory} and {other.directory} both hold {unit.name}"
            raise UserError(f"{both}; give a folder that holds them both")
    looked = iter(looked_at(_known, [unit for unit in units if not unit.state], output, options, _READERS))
    return [unit if unit.state else next(looked) for unit in units]


def _known(unit: Unit) -> Unit:
    """With its size, and what tells its content from others'."""
    directory = Directory(unit.directory)
    try:
        state = "" if unit.reason else _state(directory, unit.name)
        return unit._replace(size=directory.size(unit.name), state=state)
    except Unreachable:
        raise
    except (OSError, UnicodeError) as error:
        return unit._replace(state=type(error).__name__)  # its reader will say more


def _state(directory: Directory, name: str) -> str:
    return str(directory.changed(name)) if is_remote(directory.uri) else digest(directory, name)


def _published(given: str, endings: tuple[str, ...]) -> list[Unit]:
    """The files of a folder and of its folders; what no reader is for, with its reason.

    What stages of ours wrote is passed over, for they may write there now; one that is the folder itself is read.
    """
    files = files_below(given)
    holders = {split_path(file.name)[0] for file in files if split_path(file.name)[1] in (MANIFEST, PLAN)}
    stages = [folder for folder in holders if is_stage(f"{given.rstrip('/')}/{folder}".removesuffix("/."))]

    def is_ours(path: str) -> bool:
        folder = split_path(path)[0]
        return any(folder != "." if stage == "." else f"{folder}/".startswith(f"{stage}/") for stage in stages)

    def reason(path: str) -> str:
        name = split_path(path)[1]
        if any(part.startswith(".") and part != "." for part in path.split("/")):
            return "hidden"
        if name in _DESCRIPTIONS:
            return "description"
        return "" if name.lower().endswith(endings) else "unknown_format"

    remote = is_remote(given)
    return [
        Unit(given, file.name, file.size, str(file.changed) if remote else "", reason(file.name))
        for file in files
        if not is_ours(file.name)
    ]


def rows_of(
    file: Unit,
    columns: Mapping[str, str],
    required: Sequence[str],
    advice: Callable[[Sequence[str]], str] = lambda names: "name the columns that hold them by --gin.…",
) -> Rows:
    """The rows of a file (formats/rows.py).

    Args:
        columns: our name -> the column's.
        required: those of our names whose columns must be there; another that is missing is None in every row.
        advice: what to do where one isn't, for the columns that are.

    Raises:
        UserError: the file lacks a required column.
        Damaged: it can't be read.
    """

    def require(names: Sequence[str]) -> None:
        for missing in (columns[name] for name in required if columns[name].split(".")[0] not in names):
            which = f"no column {missing!r} in {', '.join(names)}"
            raise UserError(f"{file.directory}/{file.name}: {which}; {advice(names)}")

    with Directory(file.directory).fetch(file.name) as stream:
        yield from read_rows(stream, file.name, columns, require)
