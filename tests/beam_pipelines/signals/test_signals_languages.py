"""Signals of C, C++, C#, Go, Java, JavaScript and HTML: counted by hand, in both sets of definitions."""

import contextlib
import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.filtering.rules import LANGUAGE_TABLES, load_profile
from opencoder_jax.beam_pipelines.signals.measure import DEFINITIONS, SIGNALS
from opencoder_jax.beam_pipelines.signals.views.syntax import GRAMMARS, MAX_BYTES, MAX_BYTES_SLOW, SLOW, parse

PREFIXES = {
    "C": "qsc_codec_",
    "C++": "qsc_codecpp_",
    "C#": "qsc_codecsharp_",
    "Go": "qsc_codego_",
    "HTML": "qsc_codehtml_",
    "Java": "qsc_codejava_",
    "JavaScript": "qsc_codejavascript_",
}
COUNTS = {"C": 8, "C++": 8, "C#": 4, "Go": 5, "HTML": 3, "Java": 8, "JavaScript": 9}


def measure(text: str, language: str, signal: str, definitions: str = "fixed", path: str = "file") -> float | None:
    known = DEFINITIONS[definitions]
    view = known.view(text, language, "code", len(text.encode()), path)
    return known.languages[language][PREFIXES[language] + signal](view)


def both(text: str, language: str, signal: str, **named: Any) -> tuple[float | None, float | None]:
    return measure(text, language, signal, **named), measure(text, language, signal, "reference", **named)


def test_every_signal_of_the_release_is_there() -> None:
    assert {language: len(DEFINITIONS["fixed"].languages[language]) for language in COUNTS} == COUNTS
    for definitions in DEFINITIONS.values():
        for language in COUNTS:
            assert definitions.languages[language].keys() == DEFINITIONS["fixed"].languages[language].keys()
    assert len(SIGNALS) == 118


C = """\
#include <stdio.h>
int add(int a, int b);
int add(int a, int b) {
    int sum;
    sum = a + b;
    return sum;
}
int main(void) {
    if (add(1, 2) == 3) goto end;
    printf("%d", add(1, 2));
end:
    return add(3, 4);
}
"""


def test_c() -> None:
    # Two definitions of 13 lines; the release counts the prototype, and `return add(3, 4)`.
    assert both(C, "C", "frac_lines_func_ratio") == pytest.approx((2 / 13, 4 / 13))
    assert both(C, "C", "nums_lines_main") == (1, 1)
    assert both(C, "C", "frac_lines_goto") == pytest.approx((1 / 13, 1 / 13))
    assert both(C, "C", "frac_lines_print") == pytest.approx((1 / 13, 1 / 13))
    assert both(C, "C", "frac_lines_preprocessor_directives") == pytest.approx((1 / 13, 1 / 13))
    assert both(C, "C", "frac_lines_preprocessor_directives", path="add.h") == (None, None)
    assert both(C, "C", "cate_var_zero") == (0, 0)
    # Functions, the include, `int sum;` and `return sum;`.
    assert both(C, "C", "score_lines_no_logic") == pytest.approx((5 / 13, 7 / 13))
    assert both("f();\ng();\n", "C", "cate_var_zero") == (1, 1)
    assert both("#include <bits/stdc++.h>\n", "C", "cate_bitsstdc") == (1, 1)
    assert both(C, "C", "cate_bitsstdc") == (0, 0)


def test_cpp() -> None:
    text = """\
#include <iostream>
using namespace std;
class Counter {
    int count = 0;
    void up() { count++; }
};
int main() {
    Counter counter;
    counter.up();
    std::cout << counter.count;
}
int main(int, char**) {}
"""
    assert measure(text, "C++", "frac_lines_func_ratio") == pytest.approx(3 / 12)
    assert both(text, "C++", "nums_lines_main") == (2, 2)
    assert both(text, "C++", "frac_lines_print") == pytest.approx((1 / 12, 1 / 12))
    assert both(text, "C++", "frac_lines_preprocessor_directives") == pytest.approx((2 / 12, 2 / 12))
    assert both(text, "C++", "cate_var_zero") == (0, 0)
    # Includes and using, functions, the class, `Counter counter;`; in the release "Counter" is no plain type.
    assert measure(text, "C++", "score_lines_no_logic") == pytest.approx((2 + 3 + 1 + 1 + 1) / 12)


def test_csharp() -> None:
    text = """\
using System;
class Program {
    private int size;
    public List<int> Make() {
        var made = new List<int>();
        Console.WriteLine(made);
        return made;
    }
    static int Twice(int value) { return value * 2; }
}
"""
    # The release knows no generic return type.
    assert both(text, "C#", "frac_lines_func_ratio") == pytest.approx((2 / 10, 1 / 10))
    assert both(text, "C#", "frac_lines_print") == pytest.approx((1 / 10, 1 / 10))
    assert both(text, "C#", "cate_var_zero") == (0, 0)
    assert both("class Empty { void Run() { } }", "C#", "cate_var_zero") == (1, 0)
    # using, class, `int size;`, functions, `return made;`; there any return that begins a line.
    assert both(text, "C#", "score_lines_no_logic") == pytest.approx((6 / 10, 5 / 10))


def test_go() -> None:
    text = """\
package main

import (
	"fmt"
	"os"
)

type Point struct {
	X int
}

func (p *Point) Move(by int) int {
	p.X += by
	return p.X + by
}

func main() {
	var count int
	fmt.Println(count, os.Args)
}
"""
    lines = 16
    assert both(text, "Go", "frac_lines_func_ratio") == pytest.approx((2 / lines, 2 / lines))
    assert both(text, "Go", "frac_lines_print") == pytest.approx((1 / lines, 1 / lines))
    # Ours: two imports, the type, two functions, a variable. There: `import (`, and the return too.
    assert both(text, "Go", "score_lines_no_logic") == pytest.approx((6 / lines, 6 / lines))
    assert both("package main\nfunc main() {}\n", "Go", "cate_var_zero") == (1, 0)
    assert both(text, "Go", "cate_testfile", path="x/point_test.go") == (1, 1)
    assert both(text, "Go", "cate_testfile", path="x/point.go") == (0, 0)


def test_a_function_without_a_body_hides_the_next_from_the_release() -> None:
    assert both("package a\nfunc one(a int)\nfunc two(a int)\n", "Go", "frac_lines_func_ratio") == (2 / 3, 1 / 3)


JAVA = """\
import java.util.List;
public class Shapes {
    private int size;
    private static final int MAX = 10;
    Shapes(int size) { this.size = size; }
    public int area(int width) {
        return width * size;
    }
    List<String> names() {
        System.out.println(size);
        return null;
    }
    class inner_one { }
}
"""


def test_java() -> None:
    # The constructor, area and names; the release knows neither constructors nor generic types at a line's begin.
    assert both(JAVA, "Java", "frac_lines_func_ratio") == pytest.approx((3 / 14, 1 / 14))
    assert both(JAVA, "Java", "frac_lines_print") == pytest.approx((1 / 14, 1 / 14))
    assert both(JAVA, "Java", "cate_var_zero") == (0, 0)
    assert both("class A {\n void f() { g(); }\n}\n", "Java", "cate_var_zero") == (1, 1)
    # import, two classes, functions, variables without a computed value, `return null`.
    assert measure(JAVA, "Java", "score_lines_no_logic") == pytest.approx((1 + 2 + 3 + 2 + 1) / 14)
    assert measure(JAVA, "Java", "score_lines_no_logic", "reference") == pytest.approx((1 + 2 + 1 + 1 + 1) / 14)
    assert both(JAVA, "Java", "frac_words_legal_class_name") == (1 / 2, 1 / 2)
    assert measure(JAVA, "Java", "frac_words_legal_var_name") == 1
    assert measure("class A { int Bad_name; }", "Java", "frac_words_legal_var_name") == 0
    assert measure(JAVA, "Java", "frac_words_legal_func_name") == 1
    # Ours: the constructor, names and the inner class have none. The release counts those that have one, of 1 + 2.
    assert both(JAVA, "Java", "frac_words_no_modifier") == pytest.approx((3 / 5, 1 / 3))


JAVASCRIPT = """\
import fs from "fs";
const size = 3;
let later;
const twice = (x) => x * 2;
var thrice = function (x) { return x * 3; };
function add(a, b) { return a; }
class Shape {
  area() { return 0; }
}
module.exports.run = () => { console.log(size); };
for (const key of fs.names) { later = key; }
"""


def test_javascript() -> None:
    # twice, thrice, add, area, run; the release knows no arrow function of a variable and no method.
    assert both(JAVASCRIPT, "JavaScript", "frac_lines_func_ratio") == pytest.approx((5 / 11, 3 / 11))
    assert both(JAVASCRIPT, "JavaScript", "frac_lines_print") == pytest.approx((1 / 11, 1 / 11))
    assert both(JAVASCRIPT, "JavaScript", "cate_ast") == (1, 1)
    assert both(JAVASCRIPT, "JavaScript", "cate_var_zero") == (0, 0)
    assert both("run();\n", "JavaScript", "cate_var_zero") == (1, 1)
    assert both(JAVASCRIPT, "JavaScript", "num_statement_line") == pytest.approx((9 / 11, 9 / 11))
    # There: functions 3, import, class, variables size, later and key, returns `a` and `0`.
    assert measure(JAVASCRIPT, "JavaScript", "score_lines_no_logic", "reference") == pytest.approx(10 / 11)
    assert measure(JAVASCRIPT, "JavaScript", "score_lines_no_logic") == pytest.approx((5 + 1 + 1 + 2 + 2) / 11)
    assert both(JAVASCRIPT, "JavaScript", "frac_words_legal_class_name") == (1, 1)
    assert both("var Bad_name = 1;", "JavaScript", "frac_words_legal_var_name") == (0, 0)
    assert both("function _hidden() {}", "JavaScript", "frac_words_legal_func_name") == (0, 0)


@pytest.mark.parametrize("modern", ["a?.b;", "x = a ?? b;", "class A { n = 1; }", "try { f(); } catch { g(); }"])
def test_what_esprima_does_not_know(modern: str) -> None:
    assert both(modern, "JavaScript", "cate_ast") == (1, 0)


def test_what_is_no_javascript() -> None:
    assert both("def f(x):\n    return [y for y in x]\n" * 20, "JavaScript", "cate_ast") == (0, 0)


PAGE = (
    "<!DOCTYPE html><html><head><style>p { color: red }</style></head>"
    "<body><p>Hello &amp; you</p>\n<b>x</b></body></html>"
)


def test_html() -> None:
    # "Hello", "&amp;", "you", "x"; the release decodes the entity and counts the blanks between.
    assert both(PAGE, "HTML", "num_chars_text") == (5 + 5 + 3 + 1, len("Hello & you") + 2)
    assert measure(PAGE, "HTML", "frac_words_text") == pytest.approx(14 / len(PAGE))
    assert both(PAGE, "HTML", "cate_ast") == (1, 1)
    assert measure("just words", "HTML", "cate_ast") == 0


# --- thresholds


# A document for each rule of the seven languages, which it hits, and one that it doesn't.
HITS: dict[tuple[str, str], tuple[str, str]] = {
    ("C", "frac_lines_func_ratio"): ("int a(void) {}\n" * 4, C),
    ("C", "nums_lines_main"): ("int main(void) {}\n" * 2, C),
    ("C", "score_lines_no_logic"): ('#include "a.h"\n' * 5, "x = f(y) + 1;\n" * 5),
    ("C", "frac_lines_preprocessor_directives"): ("#define A\n" * 9 + "x;\n", C),
    ("C", "frac_lines_print"): ('void f(void) {\nprintf("a");\nprintf("b");\n}\n', C),
    ("C++", "frac_lines_func_ratio"): ("int a() {}\n" * 4, "x = 1;\n" * 5),
    ("C++", "nums_lines_main"): ("int main() {}\n" * 2, "int main() {}\n"),
    ("C++", "score_lines_no_logic"): ('#include "a.h"\n' * 5, "x = f(y) + 1;\n" * 5),
    ("C++", "frac_lines_preprocessor_directives"): ("#define A\n" * 9 + "x;\n", "x = 1;\n" * 5),
    ("C++", "frac_lines_print"): ("void f() {\ncout << 1;\ncout << 2;\n}\n", "x = 1;\n" * 5),
    ("C#", "frac_lines_func_ratio"): ("class A {\nvoid F() {}\nvoid G() {}\n}\n", "class A { int x = F(1); }\n"),
    ("C#", "cate_var_zero"): ("class A { void F() { G(); } }", "class A { int x; }"),
    ("C#", "score_lines_no_logic"): ("using A;\n" * 5, "class A {\n" + "int x = F(1) + 2;\n" * 9 + "}\n"),
    ("C#", "frac_lines_print"): (
        "class A { void F() {\nConsole.WriteLine(1);\nConsole.WriteLine(2);\n} }",
        "class A { int x; }",
    ),
    ("Go", "cate_testfile"): ("package a\n", ""),
    ("Go", "frac_lines_func_ratio"): ("package a\nfunc f() {}\n", "package a\nvar x = f(1)\n"),
    ("Go", "cate_var_zero"): ("package a\n", "package a\nvar x = 1\n"),
    ("Go", "score_lines_no_logic"): ('package a\nimport "b"\nimport "c"\n', "package a\nvar x = f(1) + 2\n"),
    ("Go", "frac_lines_print"): ("package a\nfunc f() {\n" + "fmt.Println(1)\n" * 3 + "}\n", "package a\n"),
    ("HTML", "cate_ast"): ("only words", PAGE),
    ("HTML", "frac_words_text"): (PAGE, "<p>" + "words " * 50 + "</p>"),
    ("HTML", "num_chars_text"): (PAGE, "<p>" + "words " * 50 + "</p>"),
    ("Java", "cate_var_zero"): ("class A { void f() { g(); } }", JAVA),
    ("Java", "frac_lines_func_ratio"): ("class A {\nvoid f() {}\nvoid g() {}\n}", "class A {\nint x = f();\n}"),
    ("Java", "score_lines_no_logic"): ("import a.b;\n" * 5, "class A {\n" + "int x = f(1) + 2;\n" * 9 + "}\n"),
    ("Java", "frac_lines_print"): ("class A { void f() {\n" + "System.out.println(1);\n" * 3 + "} }", JAVA),
    ("JavaScript", "cate_ast"): ("def f(x):\n    return [y for y in x]\n" * 20, JAVASCRIPT),
    ("JavaScript", "cate_var_zero"): ("run();\n", JAVASCRIPT),
    ("JavaScript", "frac_lines_func_ratio"): (JAVASCRIPT, "run();\n" * 5),
    ("JavaScript", "score_lines_no_logic"): ('import a from "a";\n' * 3, "run();\n" * 5),
    ("JavaScript", "frac_lines_print"): ("console.log(1);\n" * 3, JAVASCRIPT),
}


def rules(profile: str) -> list[tuple[str, Any]]:
    """(language, rule) for all rules of the seven languages' own signals."""
    tables = load_profile(profile, set(SIGNALS))
    return [
        (language, rule)
        for language, prefix in PREFIXES.items()
        for rule in tables[LANGUAGE_TABLES[language]]
        if rule.signal.startswith(prefix)
    ]


@pytest.mark.parametrize(("language", "rule"), rules("reference"), ids=str)
def test_every_rule_hits_and_spares(language: str, rule: Any) -> None:
    name = rule.signal.removeprefix(PREFIXES[language])
    hit, miss = HITS[language, name]
    paths = ("a_test.go", "a.go") if name == "cate_testfile" else ("file", "file")
    values = [measure(text, language, name, path=path) for text, path in zip((hit, miss), paths, strict=True)]
    assert rule.fires(np.array(values, np.float64)).tolist() == [True, False]


def test_the_published_rules_are_all_there() -> None:
    assert {(language, rule.signal) for language, rule in rules("reference")} == {
        (language, PREFIXES[language] + name) for language, name in HITS
    }


# --- bad input


@pytest.mark.parametrize("definitions", DEFINITIONS)
@pytest.mark.parametrize("language", PREFIXES)
@settings(max_examples=30, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=300),
        st.lists(
            st.sampled_from(["int", "f", "(", ")", "{", "}", "=", ";", "\n", " ", "<", "/", '"', "return", "*"])
        ).map(" ".join),
    )
)
def test_any_text_gets_a_number_or_none(definitions: str, language: str, text: str) -> None:
    known = DEFINITIONS[definitions]
    view = known.view(text, language, "code", len(text.encode()), "file")
    for signal in known.languages[language].values():
        value = signal(view)
        assert value is None or value >= 0


HOSTILE = {
    "nested": "(" * 200_000,
    "blocks": "{" * 100_000 + "}" * 100_000,
    "words": "a " * 300_000,
    "calls": "f f(" * 150_000,
    "returns": 'return "' * 100_000,
    "blank lines": "\n" * 500_000,
    "blanks": "a" + " " * 500_000 + "b",
    "stars": "a *" * 200_000,
    "tags": "<p" * 200_000,
    "few tags": "<p" * 5_000,  # what ends early costs most: see syntax.py
    "arrows": "=>from " * 4_000,
    "includes": "#include <a\n" * 50_000,
    "zeros": "\0" * 300_000,
    "line": "x" * 3_000_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("definitions", DEFINITIONS)
@pytest.mark.parametrize("language", PREFIXES)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_measured(definitions: str, language: str, text: str) -> None:
    """Whatever is quadratic in its length doesn't end here within any patience."""
    known = DEFINITIONS[definitions]
    view = known.view(text, language, "code", len(text), "file")
    for signal in known.languages[language].values():
        with contextlib.suppress(ValueError):  # no program: refused, so that the document is set aside
            signal(view)


@pytest.mark.parametrize("language", GRAMMARS)
def test_a_tree_is_made_of_the_beginning_of_a_large_file(language: str) -> None:
    syntax = parse("é" * MAX_BYTES, language)
    assert len(syntax.source) == (MAX_BYTES_SLOW if language in SLOW else MAX_BYTES)
    assert 0 <= syntax.broken <= 1


@pytest.mark.parametrize("language", GRAMMARS)
def test_nothing_is_left_of_a_parsed_document(language: str) -> None:
    def parse_many(first: int) -> None:
        for number in range(first, first + 50):
            parse(f"// document {number}\n" * 500, language)

    parse_many(0)  # what is loaded once
    tracemalloc.start()
    try:
        parse_many(100)
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 50 * 500  # of 50 documents of 8 kB or more
