"""Patterns of addresses that a person reviews: which parts of a site hold what is looked for.

A file of them is TOML: `[[patterns]]`, each with its `pattern` and whether it's `accepted`; what else stands there
tells the reviewer why. A pattern is the beginning of an address without scheme and `www.`, up to a slash or a
parameter (`stackoverflow.com/questions`); `%` stands for anything, as in the paper's table 14.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.inputs import split_path
from opencoder_jax.recipe import UserError

SHIPPED = ("code", "math")  # lists of the paper
_DEEPEST = 4  # parts of a path that a pattern may name


@dataclass(frozen=True)
class Pattern:
    """A part of a site.

    Attributes:
        pattern: where it begins.
        accepted: whether its pages are what is looked for.
        pages, hits: that lie there, and that the model recalled of them.
        coverage: the share of its site's recalled pages that lie there.
        missed, found: addresses of pages that the model didn't recall, and that it did.
    """

    pattern: str
    accepted: bool
    pages: int = 0
    hits: int = 0
    coverage: float = 0.0
    missed: tuple[str, ...] = ()
    found: tuple[str, ...] = ()

    @property
    def hit_rate(self) -> float:
        """The share of its pages that the model recalled."""
        return self.hits / max(1, self.pages)


def prefixes(place: str) -> Iterator[str]:
    """What patterns may call a page: its host and the first parts of its path, from the shortest on."""
    end = re.sub("/+", "/", re.split(r"[?#]", place, maxsplit=1)[0]).rstrip("/")
    at = end.find("/")
    for _ in range(_DEEPEST):
        if at < 0:
            break
        yield end[:at]
        at = end.find("/", at + 1)
    else:
        return
    yield end


class Matcher:
    """Says whether a page lies under an accepted pattern."""

    def __init__(self, patterns: Iterable[str]) -> None:
        every = sorted(set(patterns))
        self._plain = frozenset(each.rstrip("/") for each in every if "%" not in each)
        wild = [".*".join(map(re.escape, each.split("%"))) for each in every if "%" in each]
        self._wild = re.compile("|".join(wild)) if wild else None

    def __contains__(self, place: str) -> bool:
        if not self._plain.isdisjoint(prefixes(place)):
            return True
        return self._wild is not None and self._wild.match(place) is not None


def read_patterns(path: str) -> list[Pattern]:
    """The patterns of a file, or of a list that ships (SHIPPED); none for "".

    Raises:
        UserError: the file is missing, or no such file.
    """
    if not path:
        return []
    folder, name = split_path(place_of_patterns(path))
    if not Directory(folder).exists(name):
        raise UserError(f"patterns {path}: no such file; the lists that ship are {', '.join(SHIPPED)}")
    try:
        rows = tomllib.loads(Directory(folder).read_bytes(name).decode())["patterns"]
        return [Pattern(str(row["pattern"]), row["accepted"] is True) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"patterns {path}: {error}; each is [[patterns]] with pattern and accepted") from None


def place_of_patterns(path: str) -> str:
    """Where the file lies."""
    return str(Path(__file__).with_name(f"{path}.toml")) if path in SHIPPED else path


def written(patterns: Sequence[Pattern]) -> bytes:
    """The file."""
    head = (
        "# Parts of sites, most missed pages first. Set accepted, and give the file back: "
        "--gin.DiscoverConfig.reviewed=FILE\n"
    )
    pieces = [head]
    for each in patterns:
        fields = asdict(each) | {"hit_rate": round(each.hit_rate, 4), "coverage": round(each.coverage, 4)}
        # JSON's strings, numbers, truth values and lists are TOML's, but for two: TOML has no surrogates' escapes, and
        # no DEL as it is.
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
        pieces.append("\n".join(["", "[[patterns]]", *lines, ""]).replace("\x7f", "\\u007f"))
    return "".join(pieces).encode()


@dataclass
class _Count:
    pages: int = 0
    hits: int = 0


def _counted(pages: Sequence[tuple[str, bool]]) -> dict[str, _Count]:
    """What lies in each part of a site."""
    counts: dict[str, _Count] = {}
    for place, hit in pages:
        for prefix in prefixes(place):
            count = counts.setdefault(prefix, _Count())
            count.pages += 1
            count.hits += hit
    return counts


def poor_parts(pages: Sequence[tuple[str, bool]], least: int, share: float) -> list[str]:
    """The parts of one site where at most a share of at least `least` pages was recalled."""
    return sorted(
        name for name, count in _counted(pages).items() if count.pages >= least and count.hits <= share * count.pages
    )


def candidates(
    pages: Sequence[tuple[str, bool]], least: int, accept: float, known: Mapping[str, bool], examples: int = 3
) -> list[Pattern]:
    """The parts of one site that are worth a look.

    From the host down, a part where the share `accept` of its pages is recalled, and of each large part in it, is one
    that may be accepted, and its own parts aren't looked at. A part with fewer that has no such parts is shown all the
    same.

    Args:
        pages: of the site, each its place and whether it was recalled.
        least: pages that a part has.
        known: what a person decided of patterns.
    """
    counts = _counted(pages)
    large = {name: count for name, count in counts.items() if count.pages >= least and count.hits}
    mixed = {
        parent
        for name, count in counts.items()
        if count.pages >= least and count.hits < accept * count.pages
        for parent in prefixes(name)
    }
    chosen: dict[str, bool] = {}
    for name in sorted(large, key=lambda name: (name.count("/"), name)):
        parents = [parent for parent in prefixes(name) if parent != name]
        if not any(chosen.get(parent) for parent in parents):
            chosen[name] = name not in mixed
    inner = {parent for name in chosen for parent in prefixes(name) if parent != name}
    total = sum(hit for _, hit in pages)
    names = sorted(name for name, good in chosen.items() if good or name not in inner or name in known)
    under: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in names}
    for place, hit in pages:
        for name in under.keys() & prefixes(place):
            under[name][hit].append(place)
    result = []
    for name, (missed, found) in under.items():
        missed.sort()
        found.sort()
        result.append(
            Pattern(
                name,
                known.get(name, chosen[name]),
                counts[name].pages,
                len(found),
                len(found) / max(1, total),
                tuple(missed[:examples]),
                tuple(found[:examples]),
            )
        )
    return result
