"""The scanner against the same in a regular expression, and what it takes for the same."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.decontamination.lexer import BORDER, lex
from opencoder_jax.beam_pipelines.decontamination.words import COMMON

NAMED = rb"[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+"
DOCSTRING = rb'[bfruBFRU]{0,2}+"""(?:[^"\\]++|\\.|"(?!""))*+"""'
LEXER = re.compile(
    b"|".join(
        [
            NAMED + rb"(?![\"'])(?:[ \t]*+\()?+",
            rb"\.\.+",
            rb"\\[A-Za-z][A-Za-z0-9_\x80-\xff]*+",
            rb"(?<![\w\"'\x80-\xff])(?:\"\"|'')(?![\w\"'\x80-\xff])",
            rb"\." + NAMED + rb"\(?+",
            rb"[{};,][ \t]*+//[^\n]*+",
            rb"[^\s(),;\"'`\\/#A-Za-z_0-9\x80-\xff]",
            rb"[0-9](?:[0-9A-Za-z_]|\.(?!\.))*+",
            rb"\n[ \t]*+(?:" + DOCSTRING + rb"|" + DOCSTRING.replace(b'"', b"'") + rb"|//[^\n]*+)",
            rb"[\"'][A-Za-z0-9_\x80-\xff]++[\"']",
            rb"[bfruBFRU][bfruBFRU]?+[\"'](?![,;)}\]\"']*+(?:[\r\n]|\Z))",  # what a string begins with
            NAMED,
            rb"\#[^\n]*+",
            # Several words behind Python's division, or C's comment.
            rb"//[ \t]*+[A-Za-z]++,?[ \t]++(?!(?:if|for|and|or|else|in|is|not)\b)[A-Za-z][^\n]*+",
            rb"/\*(?:[^*]++|\*(?!/)){0,500}+\*/",
            rb"/",
        ]
    ),
    re.DOTALL,
)
ANYWHERE = frozenset((b"sum",))  # of those below, a name where it isn't called
PIECES = (
    *(
        b"a",
        b"r",
        b"rb",
        b"f",
        b"if",
        b"sum",
        b"elif",
        b"for ",
        b"in ",
        b"None",
        b"_",
        "é".encode(),
        b"1",
        b"0",
        b".0",
        b"1.50",
        b"\\w",
        b"..",
    ),
    *(b"(", b")", b'"', b"'", b'"""', b"'''", b"\\", b"\n", b" ", b"\t", b"//", b"/", b"/*", b"*/", b"*", b"#", b"x y"),
    *(b"{", b"}", b";", b",", b".", b"@", b"\r", b"\x00", b"`", b"[", b"="),
)


def said(text: bytes, bound: frozenset[bytes], own_calls: bool) -> Iterator[tuple[tuple[int, int], str, bytes]]:
    """Where each token lies, whether it's a name, and what it says."""
    for match in LEXER.finditer(text):
        token = match.group()
        first, last = token[:1], token[-1:]
        kind, name = "other", token.removesuffix(b"(").rstrip(b" \t")
        if first in (b"\n", b"#", b";", b",") or (first == b"/" and len(token) > 1):
            continue
        if first in (b"{", b"}"):
            name = first
        elif last in (b'"', b"'"):
            if first not in (b'"', b"'"):
                continue
            name = b'"' + token[1:-1]  # of an empty one nothing but the quote
        elif re.match(rb"[A-Za-z_\x80-\xff]", first):
            known = (name in COMMON and (token != name or name not in ANYWHERE)) or name in (b"True", b"False", b"None")
            kind = "other" if known and not (name in bound and (own_calls or token == name)) else "name"
        elif first.isdigit():
            name = (token.rstrip(b"0") if b"." in token else token).removesuffix(b".")
        parts = (b"else", b":", b"if") if name == b"elif" and kind == "other" else (name,)
        yield from ((match.span(), kind, part) for part in parts)


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join), max_size=4), st.booleans(), st.booleans())
@example(
    [b"x = 8 // 2 if y else 3 // of apples", b"/* *** */ a", b"\n  r'''a\\''''b", b"f" + b"/*" + b"*" * 600 + b"/"],
    True,
    True,
)
def test_the_scanner_reads_as_the_expression_does(texts: list[bytes], bind: bool, own_calls: bool) -> None:
    bound = frozenset((b"sum", b"if")) if bind else frozenset()
    tokens = lex(texts, bound, own_calls)
    values: dict[tuple[str, bytes], int] = {}
    for number, text in enumerate(texts):
        part = slice(tokens.offsets[number], tokens.offsets[number + 1] - 1)
        expected = list(said(text, bound, own_calls))
        spans = zip(tokens.starts[part].tolist(), tokens.stops[part].tolist(), strict=True)
        assert list(spans) == [span for span, *_ in expected]
        for value, (_, kind, name) in zip(tokens.values[part].tolist(), expected, strict=True):
            assert values.setdefault((kind, name), value) == value
            assert (value < 0) == (kind == "name")
            assert value < 0 or (value > BORDER and value & 1 == (name[:1] in b"+-*/%&|^<>=!.?"))
        assert tokens.values[part.stop] == BORDER
    assert len(set(values.values())) == len(values)


def values(code: bytes) -> list[int]:
    found: list[int] = lex([code]).values.tolist()
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("if x: y\nelif z: a", "if x: y\nelse:\n  if z: a"),
        ("sum (x)", "sum(x)"),
        ("r'\\w+'", '"\\\\w+"'),
        ("1.", "1.0"),
        ("x = ''", 'x = ""'),
        ("return u", "return u'\n"),
        ("return u", "return u''');"),
        ("x..y", "x .. y"),
        ("f(...x)", "f(... x)"),
        ("0..n", "0 .. n"),
        ("2.50", "2.5"),
        ("'''x y'''", '"x y"'),
        ("f(a)", "f( a,)"),
    ],
)
def test_the_same_in_other_letters(one: str, other: str) -> None:
    assert values(b"y = " + one.encode()) == values(b"y = " + other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "10"),
        ("1.5", "1.05"),
        ("'a'", "'b'"),
        ("x.append", "x.extend"),
        ("f('')", "f()"),
        ("'\\\\w'", "'\\\\s'"),
        ("len(x)", "x(x)"),
    ],
)
def test_what_says_something_else(one: str, other: str) -> None:
    assert values(one.encode()) != values(other.encode())


def test_comments_and_docstrings_are_no_tokens() -> None:
    text = b'def f():\n    """Docs,\n    "quoted"."""\n    return x  # "why"'
    assert values(text) == values(b"def f(): return x")
