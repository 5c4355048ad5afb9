"""Comments and strings of many languages, and that the scan is linear."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.languages import detect as languages
from opencoder_jax.beam_pipelines.languages.comments import line_markers, scan


def found(text: str, language: str) -> list[tuple[str, str]]:
    return [(text[span.start : span.stop], span.kind) for span in scan(text, language)]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("Python", "x = 1  # one\n", [("# one", "comment")]),
        ("Python", "'#' \"#\" # c", [("'#'", "string"), ('"#"', "string"), ("# c", "comment")]),
        ("Python", 'def f():\n    r"""Doc\n# no."""\n', [('"""Doc\n# no."""', "docstring")]),
        ("Python", "x = '''a\nb'''", [("'''a\nb'''", "string")]),
        ("Python", r"'it\'s' # c", [(r"'it\'s'", "string"), ("# c", "comment")]),
        ("Python", "s = 'open\n# c", [("'open", "string"), ("# c", "comment")]),
        (
            "C",
            'f("//"); /* a\n// b */ x; // c',
            [('"//"', "string"), ("/* a\n// b */", "comment"), ("// c", "comment")],
        ),
        ("C", "/* never closed", [("/* never closed", "comment")]),
        ("JavaScript", "`a\n// b` // c", [("`a\n// b`", "string"), ("// c", "comment")]),
        ("JavaScript", "f(/[\"/]'\\//g) // c", [("// c", "comment")]),
        ("JavaScript", "x = a / b; y = '/'; // c", [("'/'", "string"), ("// c", "comment")]),
        ("JavaScript", "return /'/.test(a) /* c */", [("/* c */", "comment")]),
        ("Rust", "fn f<'a>(x: &'a str) {} // c", [("// c", "comment")]),
        ("Shell", 'echo $# "#" # c', [('"#"', "string"), ("# c", "comment")]),
        ("Ruby", "=begin\nx\n=end\ny # c", [("=begin\nx\n=end", "comment"), ("# c", "comment")]),
        ("Perl", "=head1 N\ntext\n=cut\n$#x # c", [("=head1 N\ntext\n=cut", "comment"), ("# c", "comment")]),
        ("SQL", "SELECT '--' -- c\n/* d */", [("'--'", "string"), ("-- c", "comment"), ("/* d */", "comment")]),
        ("Lua", "--[[ a\nb ]] x -- c", [("--[[ a\nb ]]", "comment"), ("-- c", "comment")]),
        ("Haskell", "x' {- a -} -- c", [("{- a -}", "comment"), ("-- c", "comment")]),
        ("HTML", "<p>don't</p><!-- a\nb -->", [("<!-- a\nb -->", "comment")]),
        ("TeX", r"50\% % c", [("% % c", "comment")]),
        ("Batchfile", ":: a\nREM b", [(":: a", "comment"), ("REM b", "comment")]),
        ("OCaml", "(* a *) let x = '\"'", [("(* a *)", "comment"), ("\"'", "string")]),
        ("INI", "a = b ; c\n; d", [("; d", "comment")]),
        ("Brainfuck", "# nothing is known", []),
    ],
)
def test_scan(language: str, text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text, language) == expected


def test_every_language_with_a_syntax_is_one_of_linguists() -> None:
    kinds = json.loads(Path(languages.__file__).with_name("languages.json").read_text())["kinds"]
    families = json.loads(Path(languages.__file__).with_name("comment_syntax.json").read_text())["languages"]
    known = [name for names in families.values() for name in names]
    assert len(set(known) & kinds.keys()) >= 650
    assert line_markers("Java") == ("//",)
    assert line_markers("HTML") == line_markers("no such language") == ()


PIECES = ["'", '"', '"""', "\\", "\n", "#", "//", "/*", "*/", "--", "[[", "<!--", "-->", "{-", "a", " ", "=begin", "%"]


@given(st.lists(st.sampled_from(PIECES)).map("".join), st.sampled_from(["Python", "C", "Lua", "Ruby", "HTML", "Shell"]))
def test_spans_are_in_order_and_apart(text: str, language: str) -> None:
    end = 0
    for span in scan(text, language):
        assert end <= span.start < span.stop <= len(text)
        end = span.stop


@pytest.mark.parametrize("unit", ['"\\"', "'", '"""', "/*", "/**", "#", "\\", '"\\\n', "--[", "`", "(/[", "(/x\\"])
def test_the_scan_is_linear(unit: str) -> None:
    """A pattern that tried every start again would need minutes for these."""
    for language in ("Python", "C", "JavaScript", "Lua"):
        assert all(True for _ in scan(unit * 50_000, language))
