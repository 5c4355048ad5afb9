"""What `.gitattributes` says of languages, beside libgit2 as the oracle."""

import time
from pathlib import Path

import pygit2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.languages.attributes import Attributes

FILE = r"""
# a comment *.a linguist-language=C
*.inc linguist-language=Pascal
*.foo  linguist-language=cpp -text
/top.x linguist-language=Lua
sub/*.y linguist-language=Go
deep/**/*.z linguist-language=Rust
**/any.w linguist-language=Perl
all/** linguist-language=Ruby
folder/ linguist-language=C
a?.q linguist-language=D
[b-d]x.q linguist-language=Lua
[!b]y.q linguist-language=Elm
"with blank.q" linguist-language=Nim
*.nl linguist-language=No-such-language
*.foo linguist-vendored
not.foo -linguist-language
"""


def taken(**files: str) -> Attributes:
    attributes = Attributes()
    for folder, content in files.items():
        attributes.add(f"{folder}/.gitattributes" if folder != "root" else ".gitattributes", content)
    return attributes


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x.a", None),
        ("x.inc", "Pascal"),
        ("deep/down/x.inc", "Pascal"),
        ("x.foo", "C++"),
        ("not.foo", None),
        ("top.x", "Lua"),
        ("below/top.x", None),
        ("sub/x.y", "Go"),
        ("sub/sub/x.y", None),
        ("deep/x.z", "Rust"),
        ("deep/a/b/x.z", "Rust"),
        ("a/b/any.w", "Perl"),
        ("any.w", "Perl"),
        ("all/a/b", "Ruby"),
        ("folder/x", None),
        ("ab.q", "D"),
        ("cx.q", "Lua"),
        ("by.q", None),
        ("ay.q", "Elm"),
        ("with blank.q", "Nim"),
        ("x.nl", None),
    ],
)
def test_the_last_line_that_fits_decides(path: str, name: str | None) -> None:
    found = taken(root=FILE).language(path)
    assert (found and found.name) == name


def test_a_deeper_file_comes_first() -> None:
    attributes = taken(root="*.x linguist-language=C", a="*.x linguist-language=Go\n/y.x -linguist-language")
    names = [found and found.name for found in map(attributes.language, ["x.x", "a/x.x", "a/b/x.x", "a/y.x", "ab/x.x"])]
    assert names == ["C", "Go", "Go", None, "C"]


def test_no_file_breaks_it() -> None:
    for content in (
        "[",
        "[z-a] linguist-language=C",
        '"a linguist-language=C',
        "\\ linguist-language=C",
        "[attr]x linguist-language=C",
    ):
        assert taken(root=content).language("[") in (None, taken(root="* linguist-language=C").language("x"))
    attributes = Attributes()
    attributes.add(".gitattributes", b"\xff* linguist-language=C\n\0 linguist-language=C")
    assert attributes.language("x") is None


def test_no_pattern_takes_long() -> None:
    attributes = taken(root=("*a" * 200 + "b linguist-language=C\n") * 1000)
    began = time.process_time()
    assert attributes.language("a" * 4000) is None
    assert time.process_time() - began < 5


PIECES = st.lists(
    st.sampled_from(["a", "b", "*", "**", "/", "?", "[ab]", "[!a]", "[a-b]", ".x"]), min_size=1, max_size=6
)
PATHS = ["a", "b", "a.x", "ab", "a/b", "b/a.x", "a/a/b", "a/b/a/b.x", "bb/aa/ab"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> pygit2.Repository:
    return pygit2.init_repository(str(tmp_path_factory.mktemp("repository")))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.lists(PIECES.map("".join), min_size=1, max_size=2))
def test_patterns_fit_as_libgit2_has_it(repository: pygit2.Repository, patterns: list[str]) -> None:
    lines = [f"{pattern} linguist-language={name}" for pattern, name in zip(patterns, ["C", "Go"], strict=False)]
    file = Path(repository.workdir, ".gitattributes")
    file.write_text("\n".join(lines))
    opened = pygit2.Repository(repository.path)  # attributes are cached
    attributes = taken(root="\n".join(lines))
    for path in PATHS:
        found = attributes.language(path)
        assert (found and found.name) == opened.get_attr(path, "linguist-language"), (lines, path)
