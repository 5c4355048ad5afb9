"""The released filter's definitions, by values counted by hand from its behaviour, beside ours."""

import ast
import contextlib
import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.signals.measure import DEFINITIONS, SIGNALS
from opencoder_jax.beam_pipelines.signals.released.python import return_lines


def measure(definitions: str, name: str, text: str, language: str = "Python", path: str = "") -> float | None:
    kind = "text" if name.startswith("qsc_doc_") else "code"
    chosen = DEFINITIONS[definitions]
    view = chosen.view(text, language, kind, len(text.encode("utf-8", "surrogatepass")), path)
    return chosen.applicable(kind, language)[name](view)


@pytest.mark.parametrize(
    ("signal", "language", "text", "released", "ours"),
    [
        ("qsc_code_cate_autogen", "C", "// Generates a report.\n", 1, 0),
        ("qsc_code_cate_autogen", "C", "// Automatically generated.\n", 1, 1),
        ("qsc_code_cate_autogen", "C", "// reports\n", 0, 0),
        ("qsc_code_cate_encoded_data", "C", ("a" * 70 + "\n") * 20, 1, 0),
        ("qsc_code_cate_encoded_data", "C", "\\u0041" * 10, 1, 1),
        ("qsc_code_cate_encoded_data", "C", "1f 2e 3d 4c " * 10, 1, 1),
        ("qsc_code_cate_encoded_data", "C", "x = 1;\n" * 99, 0, 0),
        ("qsc_code_frac_lines_assert", "Python", "reassert(x)\ny\n", 1 / 2, 0),
        ("qsc_code_frac_lines_prompt_comments", "Python", "# todos\nx\n", 1 / 2, 0),
        ("qsc_code_frac_lines_prompt_comments", "Python", "# TODO\n# TODO\n", 1 / 2, 1),
        ("qsc_code_frac_chars_string_length", "C", r"x = 'a\'b';", 2 / 12, 4 / 11),
        ("qsc_code_frac_chars_long_word_length", "C", f'"{"a" * 21}"', 21 / 24, 21 / 23),
        ("qsc_code_frac_lines_long_string", "Python", "x = 'a\n" + "b " * 21 + "'\n", 1 / 2, 0),
        ("qsc_code_frac_chars_comments", "Python", "# abc\n", 3 / 6, 5 / 6),
        ("qsc_code_frac_chars_comments", "Python", "'''  a  '''\n", 1 / 12, 11 / 12),
        ("qsc_code_frac_chars_comments", "C", "// a\nx;\n", 5 / 8, 4 / 8),
        ("qsc_code_frac_chars_comments", "HTML", "<script>// a\nb</script>", 4 / 23, 0),
        ("qsc_code_frac_chars_comments", "HTML", "<!-- <script>// a</script> -->", 1, 1),
        ("qsc_code_frac_chars_comments", "HTML", "<style>/* a */</style>", 0, 0),
        ("qsc_code_frac_chars_comments", "C#", "#if A // b\nx;\n", 0, 4 / 14),
        ("qsc_code_frac_chars_comments", "PHP", "// a\n/* b */x\n", 7 / 14, 11 / 14),
        ("qsc_code_frac_lines_prompt_comments", "Shell", "# TODO\n# TODO\n", 1, 1),
        ("qsc_code_frac_chars_whitespace", "C", "", 1, None),
        ("qsc_code_num_words", "C", "a – b", 3, 2),
        ("qsc_code_num_words", "C", "a\0b", 1, 2),
        ("qsc_codepython_cate_var_zero", "Python", "x: int = 1\n", 1, 0),
        ("qsc_codepython_cate_var_zero", "Python", "def f(a): pass\n", 0, 0),
        ("qsc_codepython_frac_lines_func_ratio", "Python", "async def f():\n  pass\n", 0, 1 / 2),
        ("qsc_codepython_frac_lines_simplefunc", "Python", "async def f():\n  return 1\n", 0, 1 / 2),
        ("qsc_codepython_frac_lines_pass", "Python", "password = 1\n", 1, 0),
        ("qsc_codepython_frac_lines_pass", "Python", "", 0, None),
        ("qsc_codepython_frac_lines_import", "Python", "important = 1\n", 1, 0),
        ("qsc_codepython_frac_lines_print", "Python", "fingerprint = 1\n", 1, 0),
        ("qsc_codepython_score_lines_no_logic", "Python", "def f():\n  return\n  return 1\n", 2 / 3, 1),
        ("qsc_codepython_score_lines_no_logic", "Python", "class A:\n  class B:\n    x = 1\n", 2 / 3, 1),
        ("qsc_doc_frac_chars_hyperlink_html_tag", "Text", "(http://a.b)c) <x <y>", (14 + 6) / 21, (12 + 3) / 21),
        ("qsc_doc_frac_words_all_caps", "Text", "A-B c", 2 / 4, 1 / 2),
        ("qsc_doc_frac_words_full_bracket", "Text", "一【二】", 2 / 4, 2 / 4),
        ("qsc_doc_frac_words_full_bracket", "Text", "a】【", 0, 2 / 3),
        ("qsc_doc_frac_chars_curly_bracket", "Text", "", 0, None),
    ],
)  # fmt: skip
def test_where_definitions_differ(
    signal: str, language: str, text: str, released: float | None, ours: float | None
) -> None:
    assert measure("reference", signal, text, language) == (released if released is None else pytest.approx(released))
    assert measure("fixed", signal, text, language) == (ours if ours is None else pytest.approx(ours))


@pytest.mark.parametrize("definitions", sorted(DEFINITIONS))
@pytest.mark.parametrize(
    ("signal", "text", "path", "value"),
    [
        ("qsc_doc_num_chars_sentence_length_mean", "One. Two!\n", "", 7 / 4),
        ("qsc_doc_frac_words_redpajama_stop", "the cat and I", "", 2 / 4),
        ("qsc_doc_frac_words_redpajama_stop", "这是一个句子", "", None),
        ("qsc_doc_frac_lines_start_with_bullet", "• a\n  ▪ b\n- c\n", "", 2 / 3),
        ("qsc_doc_frac_lines_start_with_bullet", "- a\n", "", 0),
        ("qsc_doc_frac_chars_alphabet", "这是一个句子", "", None),
        ("qsc_doc_frac_chars_alphabet", "ab1 .", "", 2 / 4),
        ("qsc_doc_frac_chars_alphabet", " ", "", 0),
        ("qsc_doc_frac_chars_hex_words", "0x1F a", "", 4 / 6),
        ("qsc_doc_mean_word_length", "我们是学生。他也是", "", 8 / 5),
        ("qsc_doc_cate_code_related_file_name", "", "a/README.zh.md", 1),
        ("qsc_doc_cate_code_related_file_name", "", "dev-requirements.txt", 1),
        ("qsc_doc_cate_code_related_file_name", "", "readme/story.txt", 0),
        ("qsc_code_frac_lines_string_concat", "x = 'a' + 'b'\ny = 'a' + b\n", "", 1 / 2),
        ("qsc_code_frac_lines_string_concat", "x = '' + ''\nif 'a' + 'b':\n", "", 0),
    ],
)
def test_where_definitions_agree(definitions: str, signal: str, text: str, path: str, value: float | None) -> None:
    assert measure(definitions, signal, text, "Text", path) == (value if value is None else pytest.approx(value))


def test_both_definitions_name_the_same_signals() -> None:
    fixed, reference = DEFINITIONS["fixed"], DEFINITIONS["reference"]
    assert fixed.code.keys() == reference.code.keys()
    assert fixed.text.keys() == reference.text.keys()
    assert {name: own.keys() for name, own in fixed.languages.items()} == {
        name: own.keys() for name, own in reference.languages.items()
    }
    assert SIGNALS.keys() == {*fixed.code, *fixed.text, *(name for own in fixed.languages.values() for name in own)}


@pytest.mark.parametrize(
    ("text", "kind", "language"),
    [
        ("这是一个用于测试的文件。", "text", "zh"),
        ("这是一个用于测试的文件。", "code", "en"),
        ("# README\n这是一个关于测试的说明\npip install x\n" * 3, "text", "zh"),
        ("A page that quotes 中文 once or twice, and goes on in English.", "text", "en"),
        ("これは日本語の文章です。漢字も使います。", "text", "en"),
        ("", "text", "en"),
    ],
)
def test_chinese_is_told_from_other_text(text: str, kind: str, language: str) -> None:
    assert DEFINITIONS["fixed"].view(text, "Text", kind, 0).natural_language == language


def naive_returns(text: str) -> int:
    """The release's own expression, quadratic on blank lines."""
    return len(re.findall(r"^\s*return(\s+.+)?\s*$", text, re.MULTILINE))


@given(
    st.lists(st.sampled_from(["return", "return x", "returns = 1", "x = 1", "", "  return", "return "]), max_size=12)
)
def test_returns_are_counted_as_the_release_does(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert return_lines([line.strip() for line in lines if line.strip()]) == naive_returns(text)


# Broken input of every kind: undecodable bytes replaced, NUL, lone tokens, deep nesting.
PIECES = ["todo ", "return\n", "<script>", "</script>", "'''", '"""', "(http://", ")", "\\u00e4", "中", "【", "//"]
ROUGH = st.one_of(
    st.text(),
    st.binary().map(lambda content: content.decode("utf-8", "replace")),
    st.text(alphabet="\0\ufffd\"'#/*<>(){}\\\n\r\t 0xaf=+,"),
    st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
)


@settings(max_examples=60)
@given(ROUGH, st.sampled_from(["Python", "C", "HTML", "Text"]), st.sampled_from(["code", "data", "text"]))
@example("", "Python", "code")
@example("x", "Python", "code")
@example("\0", "Python", "code")
@example("(" * 3000, "Python", "code")
@example("-" * 3000 + "1", "Python", "code")
@example("<p>" * 3000, "HTML", "code")
def test_no_signal_fails_and_all_are_finite(text: str, language: str, kind: str) -> None:
    for definitions in DEFINITIONS.values():
        view = definitions.view(text, language, kind, len(text.encode()), "a.b")
        for name, signal in definitions.applicable(kind, language).items():
            value = signal(view)
            assert value is None or math.isfinite(value), name


UNITS = ["a", " ", "aa ", "0x1f, ", "(http://", "<", "'", '"', "/*", "\\u0041", "中", "= 'a' + ", "# todo ", "<script>"]


@pytest.mark.parametrize("unit", UNITS)
def test_one_long_line_takes_linear_time(unit: str) -> None:
    """A quadratic scan of a fifth of a megabyte would take minutes; the slow test has 8 MB."""
    text = unit * (200_000 // len(unit))
    for language, kind in (("C", "code"), ("HTML", "code"), ("Text", "text")):
        for definitions in DEFINITIONS.values():
            view = definitions.view(text, language, kind, len(text), "a.b")
            for signal in definitions.applicable(kind, language).values():
                with contextlib.suppress(ValueError):  # no program: refused, so that the document is set aside
                    signal(view)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["x", "aa ", "'", "<"])
def test_eight_megabytes_in_one_line(unit: str) -> None:
    text = unit * (8_000_000 // len(unit))
    for definitions in DEFINITIONS.values():
        view = definitions.view(text, "HTML", "code", len(text), "a.html")
        for signal in definitions.applicable("code", "HTML").values():
            with contextlib.suppress(ValueError):  # no program: refused, so that the document is set aside
                signal(view)


def test_the_tree_of_python_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    parse = ast.parse

    def counted(text: str) -> ast.Module:
        calls.append(text)
        return parse(text)

    monkeypatch.setattr(ast, "parse", counted)
    view = DEFINITIONS["reference"].view("1 +\n", "Python", "code", 4)
    for signal in DEFINITIONS["reference"].applicable("code", "Python").values():
        signal(view)
    assert calls == ["1 +\n"]
