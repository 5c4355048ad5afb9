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
        ("x.cls", "public class A {\n  private Integer b;\n}\n", "Apex"),
        ("x.cls", "% nothing that tells\n", "TeX"),  # no rule holds: the choice
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
        # Scripts of MATLAB and Octave, which define no function; M; a package of Wolfram's; and what is Objective-C.
        ("x.m", "a = [1 2; 3 4];\nb = inv(a)\nplot(b(:, 1))\n", "MATLAB"),
        ("x.m", "clear all\nclose all\nN = 20;\n", "MATLAB"),
        ("x.m", "## Octave\n1;\npkg load signal\nx = linspace (0, 1, 5);\n", "MATLAB"),
        ("x.m", "function r = f(x)\n  r = x;\nendfunction\n", "MATLAB"),
        ("x.m", "for k = 1:10\n  disp(k)\nend\n", "MATLAB"),
        ("x.m", "XUT ; a routine\n D EN^XUP\n S X=1 W !,X\n Q\n", "M"),
        ("x.m", "area(r)\n quit 3.14*r*r\n", "M"),
        ("x.m", 'BeginPackage["A`"]\nf[x_] := x^2\nEndPackage[]\n', "Wolfram Language"),
        ("x.m", "#include <stdio.h>\nint main(void) { return 0; }\n", "Objective-C"),
        ("x.m", "#import <UIKit/UIKit.h>\nint main() { return UIApplicationMain(0, 0, nil, nil); }\n", "Objective-C"),
        ("x.m", 'static NSString *a = @"b";\nvoid f(void) {\n  [a length];\n}\n', "Objective-C"),
        # What compilers write for make; the language D.
        ("x.d", "build/my-lib.o: src/my-lib.c \\\n src/my-lib.h\n", "Makefile"),
        (
            "x.d",
            "/srv/a-b/target/debug/libx.rlib: /srv/a-b/src/lib.rs\n\n/srv/a-b/src/lib.rs:\n",
            "Makefile",
        ),
        ("x.d", "main.o main.d : main.cc /usr/include/stdc-predef.h\n", "Makefile"),
        ("x.d", "C:/w/a.obj: C:/w/a.c C:/w/a.h\n", "Makefile"),
        ("x.d", "module a.b;\nimport std.stdio;\nvoid main() { writeln(1); }\n", "D"),
        ("x.d", "// a script\nimport std.stdio : writeln;\nvoid main()\n{\n}\n", "D"),
        ("x.d", "struct A\n{\n  int x;\n}\n", "D"),
        # qmake, ProGuard, Prolog, IDL
        ("x.pro", "QT += core gui\nTARGET = a\nSOURCES += main.cpp\n", "QMake"),
        ("x.pro", "TEMPLATE = subdirs\nSUBDIRS = lib app\n", "QMake"),
        ("x.pro", "include(common.pri)\n", "QMake"),
        ("x.pro", "-keep class a.B { *; }\n-dontwarn a.**\n", "Proguard"),
        ("x.pro", "likes(X, Y) :- rich(Y), knows(X, Y).\n", "Prolog"),
        ("x.pro", "pro plotit, x, y\n  plot, x, y\nend\n", "IDL"),
        # Go's modules under other names than go.mod, as its proxy keeps them.
        ("v1.2.3.mod", "module example.com/a/v2\n\ngo 1.21\n\nrequire golang.org/x/text v0.3.0\n", "Go Module"),
        ("tools.mod", "// tools\nmodule tools\n", "Go Module"),
        ("x.mod", "MODULE Hello;\nBEGIN\nEND Hello.\n", "Modula-2"),
        ("x.mod", "param n integer > 0;\nvar x {1..n} >= 0;\nminimize cost: sum {i in 1..n} x[i];\n", "AMPL"),
        ("x.mod", "NEURON {\n  SUFFIX hh\n}\n", "NMODL"),
        # What linguist asks its classifier.
        ("x.inc", 'SUMMARY = "A tool"\nLICENSE = "MIT"\nDEPENDS += "zlib"\n', "BitBake"),
        ("x.inc", "#if defined _a_included\n  #endinput\n#endif\nnative Float:f(Float:x);\n", "Pawn"),
        ("x.inc", '<div class="a">\n</div>\n', "HTML"),
        ("x.inc", "template <class T> struct A { T t; };\n", "C++"),
        ("x.sch", "EESchema Schematic File Version 2\n", "KiCad Schematic"),
        ("x.sch", '<?xml version="1.0"?>\n<schema xmlns="http://purl.oclc.org/dsdl/schematron"/>\n', "XML"),
        ("x.sch", "(define (f x) x)\n", "Scheme"),
        ("x.cfg", "global\n  maxconn 10\nfrontend a\n  bind *:80\n", "HAProxy"),
        ("x.cfg", "[global]\nmode = fast\n", "INI"),
        ("x.spec", "a = Analysis(['a.py'])\npyz = PYZ(a.pure)\n", "Python"),
        ("x.spec", "Name: a\nVersion: 1\n%description\nfor all\n", "RPM Spec"),
        ("x.mo", 'import A "mo:base/A";\nactor {\n}\n', "Motoko"),
        ("x.mo", "model A\n  Real x;\nequation\n  der(x) = -x;\nend A;\n", "Modelica"),
        ("x.ks", "lang en_US\nrootpw secret\n%packages\n@core\n%end\n", "Kickstart"),
        ("x.ks", "lock throttle to 1.\nwait until altitude > 1000.\n", "KerboScript"),
        ("x.s", "\t.globl f\nf:\n\tret\n", "Unix Assembly"),
        ("hosts", "[web]\na.internal ansible_user=joe\n", "INI"),
        ("hosts", "127.0.0.1 localhost\n", "Hosts File"),
        (".eslintrc", "root: true\n", "YAML"),
        (".eslintrc", '// mine\n{"root": true}\n', "JSON with Comments"),
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
        },
        {
            "first": {".x": [{"language": "D", "pattern": "d"}]},
            "rules": {".x": [{"language": "E", "pattern": "e", "negative_pattern": "f"}], "name": []},
        },
    )
    assert rules == {
        ".x": [
            {"languages": ["D"], "match": ["(?m)d"], "absent": []},
            {"languages": ["A", "B"], "match": ["(?m)(?:a)|(?:b)"], "absent": ["(?m)(?is)c"]},
            {"languages": ["E"], "match": ["(?m)e"], "absent": ["(?m)f"]},
            {"languages": ["C"], "match": [], "absent": []},  # what asks nothing is asked last
        ],
        "name": [],
    }


def test_a_rule_of_a_new_form_is_an_error() -> None:
    rule = {"language": "A", "or": []}
    with pytest.raises(ValueError, match="or, which"):
        make_tables.make_rules(
            {"named_patterns": {}, "disambiguations": [{"extensions": [".x"], "rules": [rule]}]},
            {"first": {}, "rules": {}},
        )


def test_our_rules_name_languages_and_keys_that_there_are() -> None:
    tables = json.loads(Path(detect.__file__).with_name("languages.json").read_text(encoding="utf-8"))
    ours = json.loads(Path(detect.__file__).with_name("content_rules.json").read_text(encoding="utf-8"))
    for part in ("first", "rules"):
        for key, rules in ours[part].items():
            assert key in tables["extensions"] or key in tables["filenames"], key
            assert all(rule["language"] in tables["kinds"] for rule in rules), key
