"""Fetches releases of packages by pip: several versions of each, a corpus with natural forks.

    python -m opencoder_jax releases --output=runs/releases

Versions of a package share most of their files, and some packages carry others along, as forks do on code hosts. Each
archive is a repository of its own (`python -m beam_pipelines archives` reads them). What stands in the stars' place is
how many of the installed distributions, and of the fetched ones, require the package: `stars.csv` beside the archives.

What has been fetched isn't fetched again, so the versions of a finished corpus stay as they are.
"""

import argparse
import csv
import io
import re
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path

from opencoder_jax.files import write_whole
from opencoder_jax.recipe import UserError, parse_flags, refuse_unknown

STARS = "stars.csv"
AT_ONCE = 4  # fetches

# Small, well known, of nothing but Python; pip and setuptools carry copies of some of the others.
PACKAGES = (
    *("anyio", "attrs", "boltons", "bottle", "cachetools", "cerberus", "chardet", "click", "colorama", "flask"),
    *("fsspec", "h11", "httpcore", "httpx", "idna", "isort", "jinja2", "jmespath", "markdown", "marshmallow"),
    *("mistune", "more-itertools", "packaging", "parso", "peewee", "pip", "pluggy", "pycodestyle", "pydash"),
    *("pyflakes", "pyparsing", "requests", "rich", "setuptools", "six", "sortedcontainers", "starlette", "tabulate"),
    *("tomlkit", "toolz", "tornado", "tqdm", "urllib3", "wcwidth", "werkzeug"),
)


def main(argv: list[str]) -> None:
    """Fetches what isn't there yet and writes the stars.

    Raises:
        UserError: nothing could be fetched; a package that can't be is told and left out.
    """
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax releases",
        description=(__doc__ or "").split("\n\n", 1)[0],
        epilog="Example: python -m opencoder_jax releases --package=click --package=flask --output=runs/releases",
    )
    parser.add_argument(
        "--package", action="append", default=[], metavar="NAME", help="instead of our list; repeatable"
    )
    parser.add_argument("--versions", type=int, default=4, metavar="N", help="of each package, one a minor release (4)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the archives go")
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    flags.output.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        fetched = pool.map(lambda name: fetch(name, flags.versions, flags.output), flags.package or PACKAGES)
        failed = [name for name, reason in zip(flags.package or PACKAGES, fetched, strict=True) if reason]
    archives = sorted(flags.output.glob("*.whl"))
    if not archives:
        raise UserError(f"{flags.output}: nothing could be fetched; is pip allowed to, and are the names right?")
    write_whole(flags.output / STARS, stars(archives))
    left_out = f"; left out: {', '.join(failed)}" if failed else ""
    packages = {package_of(each.name) for each in archives}
    print(f"{flags.output}: {len(archives)} archives of {len(packages)} packages{left_out}")


def fetch(name: str, versions: int, output: Path) -> str:
    """Fetches the versions of a package that aren't there; what went wrong, or nothing."""
    if len([each for each in output.glob("*.whl") if package_of(each.name) == normal(name)]) >= versions:
        return ""
    listed = _pip("index", "versions", name)
    found = re.search(r"Available versions: (.+)", listed.stdout)
    if found is None:
        return _told(name, listed.stderr)
    problem = ""
    for version in spread(found.group(1).split(", "), versions):
        done = _pip("download", "--no-deps", "--only-binary=:all:", f"--dest={output}", f"{name}=={version}")
        if done.returncode:
            problem = _told(f"{name} {version}", done.stderr)
    return problem


def spread(versions: Iterable[str], wanted: int) -> list[str]:
    """The newest release of each of the newest minor series; `versions` come newest first."""
    newest: dict[tuple[str, ...], str] = {}
    for version in versions:
        newest.setdefault(tuple(version.split(".")[:2]), version)
    return list(newest.values())[:wanted]


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def _told(what: str, words: str) -> str:
    reason = next((line for line in reversed(words.splitlines()) if line.startswith("ERROR")), "pip failed")
    print(f"{what}: {reason}", file=sys.stderr)
    return reason


def normal(name: str) -> str:
    """A package's name as archives spell it (PEP 503, with underscores)."""
    return re.sub(r"[-_.]+", "_", name).lower()


def package_of(archive: str) -> str:
    """`more_itertools-10.1.0-py3-none-any.whl` is of more_itertools."""
    return normal(archive.split("-", 1)[0])


def stars(archives: Sequence[Path]) -> str:
    """A table of the columns repository and stars: who requires the package of each archive."""
    wanted = Counter(name for required in _requirements(archives) for name in required)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["repository", "stars"])
    rows.writerows([archive.name.removesuffix(".whl"), wanted[package_of(archive.name)]] for archive in archives)
    return text.getvalue()


def _requirements(archives: Sequence[Path]) -> Iterator[set[str]]:
    """The names that each distribution requires: the installed ones, and the newest fetched release of each package."""
    listed = {normal(each.name): each.requires or [] for each in distributions()}
    for archive in sorted(archives, key=release_of, reverse=True):
        if package_of(archive.name) not in listed and (found := _required(archive)) is not None:
            listed[package_of(archive.name)] = found
    for required in listed.values():
        yield {normal(match[0]) for line in required if (match := re.match(r"[A-Za-z0-9._-]+", line))}


def release_of(archive: Path) -> tuple[int, list[int], bool, list[int]]:
    """What sorts the releases of a package, the newest last: epoch, numbers, whether it's final, what follows them."""
    epoch, _, version = archive.name.partition("-")[2].split("-")[0].rpartition("!")
    rest = version.lstrip("0123456789.")
    numbers, more = ([int(each) for each in re.findall(r"\d+", part)] for part in (version.removesuffix(rest), rest))
    return int(epoch or 0), numbers, not rest.startswith(("a", "b", "rc", "dev")), more


def _required(archive: Path) -> list[str] | None:
    """What a wheel says that it requires; None of a damaged one. Wheels that it carries along have their own to say."""
    try:
        with zipfile.ZipFile(archive) as opened:
            heads = [each for each in opened.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each)]
            text = opened.read(heads[0]).decode("utf-8", "replace")
    except (zipfile.BadZipFile, zlib.error, IndexError):
        return None
    return HeaderParser().parsestr(text).get_all("Requires-Dist") or []
