"""Linguist's heuristics: which of the languages that share an extension a file's content tells."""

import json
import re
import time
from pathlib import Path

import pytest

from beam_pipelines.sources import make_languages
from beam_pipelines.sources.languages import HEAD_BYTES, identify

SOURCES = Path(make_languages.__file__).parent
RULES = json.loads((SOURCES / "heuristics.json").read_text())


@pytest.mark.parametrize(
    ("path", "text", "name"),
    [
        ("x.h", "#include <vector>\nclass A {\npublic:\n};\n", "C++"),
        ("x.h", "@interface Foo : NSObject\n@end\n", "Objective-C"),
        ("x.h", "int f(void);\n", "C"),
        ("x.m", "#import <Foundation/Foundation.h>\n@implementation A\n@end\n", "Objective-C"),
        ("x.m", "% plot\nfunction y = f(x)\ny = x;\n", "MATLAB"),
        ("x.m", "", "Objective-C"),
        ("x.v", "module top(input clk);\nendmodule\n", "Verilog"),
        ("x.v", "Require Import Arith.\nTheorem t : True.\nProof.\nQed.\n", "Rocq Prover"),
        ("x.pl", "use strict;\nmy $x = 1;\n", "Perl"),
        ("x.pl", "parent(X, Y) :- father(X, Y).\n", "Prolog"),
        ("x.t", "use strict;\nuse Test::More;\n", "Perl"),
        ("x.t", "use v6;\nplan 1;\n", "Raku"),
        ("x.cls", "\\NeedsTeXFormat{LaTeX2e}\n", "TeX"),
        ("x.ts", "const x: number = 1;\n", "TypeScript"),
        ("x.ts", '<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS version="2.1">\n', "XML"),
        ("x.sql", "SELECT 1;\n", "SQL"),
        ("x.d", "module a.b;\nimport std.stdio;\n", "D"),
        ("x.d", "main.o: main.c main.h\n", "Makefile"),
        ("x.r", "x <- c(1, 2)\n", "R"),
        ("x.r", "Rebol []\nprint 1\n", "Rebol"),
        ("x.pp", "class a {\n  file { '/x': ensure => present }\n}\n", "Puppet"),
        ("x.pp", "unit a;\ninterface\nend.\n", "Pascal"),
        ("x.gd", "extends Node\nfunc f():\n\tpass\n", "GDScript"),
    ],
)
def test_content_tells(path: str, text: str, name: str) -> None:
    assert identify(path, text.encode()).name == name
    assert identify(path, text.replace("\n", "\r\n")).name == name


def test_every_rule_compiles() -> None:
    tests = [test for rules in RULES.values() for rule in rules for test, _ in rule["tests"]]
    assert len(tests) > 100
    for test in tests:
        re.compile(test, re.MULTILINE)


@pytest.mark.parametrize("filler", ["a ", "\n", "((", "#", "/* ", " \t", '"x": '])
def test_no_content_takes_long(filler: str) -> None:
    text = (filler * HEAD_BYTES)[:HEAD_BYTES]
    slow = {}
    for extension in RULES:
        began = time.process_time()
        identify(f"x{extension}", text)
        if (took := time.process_time() - began) > 1:
            slow[extension] = took
    assert not slow


@pytest.mark.parametrize(
    ("ruby", "python"),
    [
        (r"(?<n>a)\h\z", r"(?P<n>a)[0-9a-fA-F]\Z"),
        (r"\\h", r"\\h"),
        ("[[:alpha:]_]", "[a-zA-Z_]"),
        ("(?i)ab", "(?i:ab)"),
        ("(?m:a.b)", "(?s:a.b)"),
        ("(?<=a)b", "(?<=a)b"),
    ],
)
def test_a_ruby_regex_becomes_pythons(ruby: str, python: str) -> None:
    assert make_languages.python_regex(ruby) == python


def test_what_python_cannot_compile_is_an_error() -> None:
    with pytest.raises(ValueError, match="translated"):
        make_languages.python_regex("(")
