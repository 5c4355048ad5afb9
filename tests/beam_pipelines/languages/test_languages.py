"""The table of languages, the choices behind it, and the script that makes it."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.languages import make_tables
from opencoder_jax.beam_pipelines.languages.detect import UNKNOWN, by_name, identify, path_decides

SOURCES = Path(make_tables.__file__).parent
TABLE = json.loads((SOURCES / "languages.json").read_text())
CHOICES = json.loads((SOURCES / "language_choices.json").read_text())


@pytest.mark.parametrize(
    ("path", "head", "name", "kind"),
    [
        ("a/b.py", b"", "Python", "code"),
        ("A.PY", b"", "Python", "code"),
        ("src/x.h", b"", "C", "code"),
        ("x.m", b"", "Objective-C", "code"),
        ("x.v", b"", "Verilog", "code"),
        ("x.t", b"", "Perl", "code"),
        ("x.rs", b"", "Rust", "code"),
        ("x.ts", b"", "TypeScript", "code"),
        ("x.d.ts", b"", "TypeScript", "code"),
        ("x.cs", b"", "C#", "code"),
        ("x.cls", b"", "TeX", "text"),
        ("x.sol", b"", "Solidity", "code"),
        ("x.gd", b"", "GDScript", "code"),
        ("x.cl", b"", "OpenCL", "code"),
        ("x.r", b"", "R", "code"),
        ("x.R", b"", "R", "code"),
        ("x.F90", b"", "Fortran Free Form", "code"),
        ("x.c", b"", "C", "code"),
        ("x.C", b"", "C++", "code"),
        ("x.blade.php", b"", "Blade", "code"),
        ("x.4dform", b"", "JSON", "data"),
        ("Makefile", b"", "Makefile", "code"),
        ("docker/Dockerfile", b"", "Dockerfile", "code"),
        ("CMakeLists.txt", b"", "CMake", "code"),
        ("x.html", b"", "HTML", "code"),
        ("x.sql", b"", "SQL", "code"),
        ("x.less", b"", "Less", "code"),
        ("x.patch", b"", "Diff", "code"),
        ("x.css", b"", "CSS", "data"),
        ("x.yml", b"", "YAML", "data"),
        ("pyproject.toml", b"", "TOML", "data"),
        ("README.md", b"", "Markdown", "text"),
        ("LICENSE", b"", "Text", "text"),
        ("x.rst", b"", "reStructuredText", "text"),
        ("x.svg", b"", "SVG", "excluded"),
        ("x.csv", b"", "CSV", "excluded"),
        ("x.ipynb", b"", "Jupyter Notebook", "code"),
        ("man/ls.1", b"", "Roff Manpage", "excluded"),
        ("robots.txt", b"", "Robots Exclusion Rules", "excluded"),
        ("tool", b"#!/usr/bin/env python3.11\n", "Python", "code"),
        ("tool", b"#! /usr/bin/env -S A=1 node --flag\n", "JavaScript", "code"),
        ("tool", b"#!/bin/sh -e", "Shell", "code"),
        ("x.cgi", b"#!/usr/bin/python\n", "Python", "code"),  # several languages: the shebang tells
        ("x.cgi", b"", "Perl", "code"),
        ("x.py", b"#!/bin/sh\n", "Python", "code"),  # one language: the extension is enough
        ("run", b'#!/bin/sh\nexec scala "$0" "$@"\n!#\n', "Scala", "code"),  # a shell that hands the script on
        ("2D.C", b"", "C", "code"),  # DOS knew capitals only
    ],
)
def test_identify(path: str, head: bytes, name: str, kind: str) -> None:
    assert identify(path, head) == (name, kind)


@pytest.mark.parametrize(
    ("path", "head", "name"),
    [
        ("vector", "// a header -*- C++ -*-\n", "C++"),
        ("x.h", "/* -*- mode: c++; c-basic-offset: 2 -*- */\nint f();\n", "C++"),
        ("x.h", "/* -*- Mode: C; tab-width: 4 -*- */\nclass\n", "C"),
        ("build.conf", "# -*-sh-*-\n", "Shell"),
        ("x.py", "# -*- coding: utf-8 -*-\n", "Python"),  # says nothing of a language
        ("x.py", "# -*- mode: no-such-mode -*-\n", "Python"),
        ("run", "#!/opt/odd\n# vim: ft=ruby ts=2\n", "Ruby"),
        ("run", "# vi: set ft=perl sw=4 :\n", "Perl"),
        ("run", "# vim: set ft=perl sw=4\n", "unknown"),  # Vim wants the colon after `set`
        ("run", "# vim600: noai:filetype=lua:ts=3\n", "Lua"),
        ("run", "1\n2\n3\n4\n5\n6\n7\n8\n# ex: syntax=tcl\n", "Tcl"),  # of the last five lines
        ("run", "1\n2\n3\n4\n5\n# vim: ft=lua\n6\n7\n8\n9\n10\n", "unknown"),  # in the middle
        ("run", "# lex: ft=lua\n# vim: titlestring=\\ ft=lua\n", "unknown"),
        ("x.svg", "<!-- vim: ft=xml -->\n", "SVG"),  # excluded by its path alone
        ("x.vba", '" Vimball\nUseVimball\nfinish\nvim: ft=help\n', "Vim script"),
    ],
)
def test_a_modeline_decides(path: str, head: str, name: str) -> None:
    assert identify(path, head.encode()).name == name


def test_no_modeline_takes_long() -> None:
    began = time.process_time()
    for piece in (b"-*-", b"-*- ", b"vim:ft= ", b" vi:", b"ft=a\\:", b"mode:;", b" ex: set ft="):
        identify("x", piece * 20_000)
        identify("x", piece * 20_000 + b"\n" * 10)
    assert time.process_time() - began < 1


def test_names_that_people_write() -> None:
    written = {
        "C++": ["cpp", "C++"],
        "C#": ["csharp", "C-Sharp"],
        "Shell": ["bash", "sh"],
        "Emacs Lisp": ["elisp", "emacs-lisp"],
        "Go": ["golang"],
        "Jupyter Notebook": ["Jupyter-Notebook"],
        "unknown": ["no such thing", ""],
    }
    for language, names in written.items():
        assert {by_name(name).name for name in names} == {language}


@pytest.mark.parametrize("path", ["", "notes", "a.", ".", "x.unheard-of", "archive.tar.zst"])
def test_what_nothing_tells_is_unknown(path: str) -> None:
    assert identify(path) is UNKNOWN


@given(st.text(), st.binary(max_size=400))
def test_identify_never_fails(path: str, head: bytes) -> None:
    name, kind = identify(path, head)
    assert kind in ("code", "data", "text", "excluded", "unknown")
    assert (name == "unknown") == (kind == "unknown")


HEADS = [
    b"<?xml version='1.0'?>\n<!DOCTYPE eagle>",
    b"#!/bin/sh\n",
    b".TH LS 1\n",
    b"#include <vector>\nclass A",
    b"plain",
]


@given(st.sampled_from(["a.", "a.sch", "A.1", "x.py", "robots.txt", "noext", "x.unheard-of", "x.C", "x.blade.php"]))
def test_no_content_changes_what_the_path_decides(path: str) -> None:
    if path_decides(path):
        assert {identify(path, head) for head in HEADS} == {identify(path)}


def test_a_path_of_an_ambiguous_extension_or_of_none_does_not_decide() -> None:
    assert all(path_decides(path) for path in ("x.py", "robots.txt", "x.svg"))
    assert not any(path_decides(path) for path in ("x.sch", "x.h", "script", "hosts"))


def test_every_extension_of_the_table_is_found() -> None:
    assert len(TABLE["extensions"]) > 1400
    for extension, name in TABLE["extensions"].items():
        assert identify(f"file{extension}").name == name


def test_opencoders_kinds_of_text() -> None:
    """The 22 text types of the paper, by linguist's names."""
    paper = {
        *("AsciiDoc", "Creole", "Gemini", "Gettext Catalog", "MDX", "Markdown", "Muse", "Org", "Pod", "Pod 6", "RDoc"),
        *("RMarkdown", "Rich Text Format", "Roff", "SRecode Template", "Sweave", "TeX", "Texinfo", "Text", "Textile"),
        *("Wikitext", "reStructuredText"),
    }
    assert len(paper) == 22
    assert {name for name, kind in TABLE["kinds"].items() if kind == "text"} == paper | {"Vim Help File"}


def test_every_choice_names_a_language_that_was_in_doubt() -> None:
    chosen = {key: name for group in CHOICES["extensions"] for key, name in group["choices"].items()}
    assert chosen.keys() == TABLE["candidates"].keys()
    assert all(name in TABLE["candidates"][key] for key, name in chosen.items())
    assert all(group["reason"] for group in CHOICES["extensions"])


NO_CHOICES = {
    "kinds": {"text": [], "data": [], "code": []},
    "excluded": {"names": ["Old"]},
    "upper_case_extensions": {"choices": {}},
    "extensions": [{"choices": {".x": "New"}}],
    "filenames": {"choices": {}},
    "interpreters": {"choices": {}},
}


def test_the_table_and_the_rules_about_content_are_of_one_version() -> None:
    rules = json.loads((SOURCES / "heuristics.json").read_text(encoding="utf-8"))
    assert TABLE["version"] == rules["version"]


def test_the_script_applies_the_choices() -> None:
    linguist = {
        "Old": {"type": "markup", "extensions": [".x"], "filenames": ["OLD", "IT'S"]},
        "New": {"type": "programming", "extensions": [".x", ".y"], "interpreters": ["new"], "color": "#fff"},
    }
    table = make_tables.make_languages(linguist, NO_CHOICES)
    assert table["extensions"] == {".x": "New", ".y": "New"}
    assert table["candidates"] == {".x": ["New", "Old"]}
    assert table["filenames"] == {"OLD": "Old", "IT'S": "Old"}
    assert table["interpreters"] == {"new": "New"}
    assert table["kinds"] == {"New": "code", "Old": "excluded"}


def test_the_script_leaves_nothing_to_chance() -> None:
    both = {"type": "programming", "extensions": [".z"]}
    with pytest.raises(ValueError, match=r"'\.z' may be New, Old"):
        make_tables.make_languages({"Old": both, "New": both}, NO_CHOICES)


def test_the_script_refuses_a_language_that_linguist_does_not_know() -> None:
    with pytest.raises(ValueError, match="linguist knows no Old"):
        make_tables.make_languages({"New": {"type": "data"}}, NO_CHOICES)
