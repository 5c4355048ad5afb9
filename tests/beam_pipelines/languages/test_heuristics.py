"""Content tells the language of an ambiguous extension, in linear time."""

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from opencoder_jax.beam_pipelines.languages import detect, make_tables
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, by_content, identify

RULES = json.loads(Path(detect.__file__).with_name("heuristics.json").read_text(encoding="utf-8"))["rules"]
PATTERNS = sorted({p for rules in RULES.values() for rule in rules for p in (*rule["match"], *rule["absent"])})


@pytest.mark.parametrize(
    ("path", "head", "name"),
    [
        ("x.h", "#include <stdio.h>\nint f(void);\n", "C"),
        ("x.h", "#pragma once\n#include <vector>\nnamespace a {\nclass B {\npublic:\n  std::string c;\n};\n}\n", "C++"),
        ("x.h", "#import <Foundation/Foundation.h>\n@interface A : NSObject\n@end\n", "Objective-C"),
        ("x.m", "function y = f(x)\n% doubles\ny = 2 * x;\nend\n", "MATLAB"),
        ("x.m", "@implementation A\n- (void)b { }\n@end\n", "Objective-C"),
        ("x.v", "module m(input a, output b);\nassign b = a;\nendmodule\n", "Verilog"),
        ("x.v", "Require Import List.\nTheorem t : forall n, n = n.\nProof. auto. Qed.\n", "Rocq Prover"),
        ("x.pl", "use strict;\nmy $x = 1;\nprint $x;\n", "Perl"),
        ("x.pl", "parent(X, Y) :- father(X, Y).\n", "Prolog"),
        ("x.t", "use strict;\nuse Test::More;\nok(1);\n", "Perl"),
        ("x.sol", "// SPDX\npragma solidity ^0.8.0;\ncontract A {}\n", "Solidity"),
        ("x.gd", "extends Node\n\nfunc _ready():\n\tpass\n", "GDScript"),
        ("x.gd", 'DeclareGlobalFunction("F");\nInstallGlobalFunction(F, x -> x);\n', "GAP"),
        ("x.cls", "\\NeedsTeXFormat{LaTeX2e}\n\\ProvidesClass{a}\n", "TeX"),
        ("x.cls", 'VERSION 1.0 CLASS\nAttribute VB_Name = "A"\n', "VBA"),
        ("x.cls", "public class A {\n  private Integer b;\n}\n", "TeX"),  # no rule holds: the choice
        ("x.1", ".TH LS 1\n.SH NAME\nls\n", "Roff Manpage"),
        ("x.1", "notes of a meeting\n", "Text"),
        ("x.ts", "export const a: number = 1;\n", "TypeScript"),
        ("x.ts", '<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS version="2.1">\n</TS>\n', "XML"),
        ("x.r", "f <- function(x) x\n", "R"),
        ("x.rs", "use std::io;\nfn main() {}\n", "Rust"),
        ("x.fs", "#version 330\nvoid main() {}\n", "GLSL"),
        ("x.fs", "module A\nlet b = 1\n", "F#"),
        ("x.txt", "127.0.0.1 localhost\n", "Hosts File"),
        ("x.txt", "[Adblock Plus 2.0]\n||a.com^\n", "Adblock Filter List"),
        ("x.txt", "*a.txt* help\n vim:tw=78:ft=help:norl:\n", "Vim Help File"),
        ("x.txt", "a plain text\n", "Text"),
        ("x.tpl", "<p>{$name}</p>\n", "Smarty"),
    ],
)
def test_content_tells_the_language(path: str, head: str, name: str) -> None:
    assert identify(path, head.encode()).name == name


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_compiles(pattern: str) -> None:
    assert pc.match_substring_regex(pa.array([b""], pa.binary()), pattern)[0].as_py() in (True, False)


HOSTILE = [b"\n", b" ", b"\t\n", b"a ", b"begin\n", b"(", b"<!--", b"1.", b"[Adblock;", b"#define a\n", b"\xff\0", b'"']


@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_no_text_takes_long(piece: bytes) -> None:
    """Every rule of every extension, on a full head of one repeated piece."""
    content = (piece * HEAD_BYTES)[:HEAD_BYTES]
    began = time.process_time()
    for extension in RULES:
        by_content(extension, content)
    assert time.process_time() - began < 10


def test_rules_join_named_negative_and_listed_patterns() -> None:
    rules = make_tables.make_rules(
        {
            "named_patterns": {"n": ["a", "b"]},
            "disambiguations": [
                {
                    "extensions": [".X"],
                    "rules": [
                        {"language": ["A", "B"], "and": [{"named_pattern": "n"}, {"negative_pattern": "(?im)c"}]},
                        {"language": "C"},
                    ],
                }
            ],
        }
    )
    assert rules[".x"] == [
        {"languages": ["A", "B"], "match": ["(?m)(?:a)|(?:b)"], "absent": ["(?m)(?is)c"]},
        {"languages": ["C"], "match": [], "absent": []},
    ]


def test_a_rule_of_a_new_form_is_an_error() -> None:
    rule = {"language": "A", "or": []}
    with pytest.raises(ValueError, match="or, which"):
        make_tables.make_rules({"named_patterns": {}, "disambiguations": [{"extensions": [".x"], "rules": [rule]}]})
