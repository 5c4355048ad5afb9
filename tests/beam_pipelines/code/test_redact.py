"""Redaction on labelled cases of our own, of notices by language, and what must hold for any text."""

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.code.personal import KINDS, Finding, find
from beam_pipelines.code.redact import Redact, RedactConfig, redact, remove_notice
from beam_pipelines.documents import SCHEMA

# «kind:secret» marks what must be found; "|" is taken out, so that no scanner takes this file for a leak.
CASES = """
author = "Jane <«email:jane.doe@acme.io»>"
# Contact: «email:j_smith+lists@sub.domain.co.uk», or the list
maintainer: «email:max@mustermann.de».
send("«email:a@b.org»")
mailto:«email:first.last@university.edu»?subject=x
Signed-off-by: A B <«email:12345+ab@users.noreply.github.com»>
HOST = "«ip_address:84.17.23.101»"
ssh root@«ip_address:203.119.44.7»
allow from «ip_address:91.198.174.192»;
http://«ip_address:151.101.1.69»:8080/index
listen [«ip_address:2a00:1450:4001:81b::200e»]:443
AAAA «ip_address:2620:0:862:ed1a::1»
aws_access_key_id = AK|IA«key:»
key = "«key:AK|IAIOSFODNN7ABCDEFG»"
url = "https://api/?t=«key:gh|p_16C7e42F292c6912E7710c838347Ae178B4a»"
TOKEN = "«key:gl|pat-7x9Kd82hF0aLqW3zPy5T»"
slack("«key:xo|xb-2734129034-8347120934-hG5kR92mQpWz81nB»")
const stripe = '«key:sk_|live_4eC39HqLyjWDarjtT1zdp7dc»';
openai.api_key = "«key:sk-|proj-9fK2mQ8rT5vX1zB4nC7p»"
maps?key=«key:AI|zaSyD4k9fJ2mQ8rT5vX1zB4nC7pL0aW6yH3eR»
Authorization: Bearer «key:eyJ|hbGciOiJIUzI1NiJ9.eyJ|zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N»
HF = "«key:hf|_QmZkTgYwLxRpNdVcBsJhFaKeWuXyTr92»"
client_secret = "«key:8f4b2e91c7d05a36bd19e7f2»"
API_KEY: "«key:9a7c3f51-b2d8-4e60-a1c9-7d5e3f2b8a46»"
SECRET_KEY = '«key:k3j#9x!m2n8q@5w7z1c4v6b0»'
"accessKey": "«key:wJ4kLmN8pQrS2tUvWx6yZaBc»",
auth_token => '«key:d41d8cd98f00b204e9800998ecf8427e»'
headers = {"Authorization": "Bearer «key:a8f5f167f44f4964e6c998dee827110c»"}
password = "«password:hunter2»"
db_password: '«password:Tr0ub4dor&3»'
PASSWD="«password:s3cr3t!pw»"
"pwd": "«password:qwerty12»",
conn(user="root", password='«password:rootroot1»')
mysql://admin:«password:p4ssw0rd»@db.host.internal/app
self.password: str = "«password:letmein99»"
$passphrase = "«password:correcthorse»";

version = "1.2.3.4"
__version__ = '10.20.30.40'
requires = ["numpy==21.12.30.41"]
section 18.12.30.1 of the standard
HOST = "127.0.0.1"
bind("0.0.0.0", 80)
localhost:8080
mask = 255.255.255.0
net = ip_network("192.168.0.0/16")
docs = "198.51.100.7"
oid = "1.3.6.1.4.1.311.21"
dns = 8.8.8.8
a[::2], b[1::2], c[:n:2]
time = "12:34:56"
std::vector<int> v; dead::beef::cafe x;
mac = "52:54:00:9d:67:aa"
::1 loopback, fe80::1 link
@decorator.method
@pytest.mark.parametrize
import lodash@4.17.21
icon@2x.png
user@example.com
foo@bar.example.org
git clone git@github.com:owner/repo.git
y = x@self.weight
z = a@b.to(device)
password = get_password()
password = os.environ["DB_PASSWORD"]
password = input("Password: ")
password = ""
password = None
"password": "string"
password = "<your password>"
password = "${DB_PASSWORD}"
password = "%(password)s"
label_password = "Enter your password"
def login(user, password): pass
if password == other.password: return
token = tokenizer.next_token()
token = "IDENTIFIER"
API_KEY = "YOUR_API_KEY_HERE_1234"
secret_key = "xxxxxxxxxxxxxxxxxxxxxxxx11"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
uuid = "550e8400-e29b-41d4-a716-446655440000"
commit 9fceb02d0ae598e95dc970b74767f19372d61af8
tokens = ["begin", "end", "if", "then"]
secret_name = "projects/p/secrets/s"
scikit-learn_is_not_a_key_but_a_name
"https://user@host/path"
passwords_file = "/etc/passwd"
"""


def labelled() -> list[tuple[str, list[Finding]]]:
    cases = []
    for line in CASES.replace("|", "").strip().splitlines():
        text, findings = "", []
        for piece in re.split(r"(«[^»]*»)", line):
            if piece.startswith("«"):
                kind, piece = piece[1:-1].split(":", 1)
                if piece:
                    findings.append(Finding(len(text), len(text) + len(piece), kind))
            text += piece
        cases.append((text, findings))
    return cases


def test_labelled_cases_are_found_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    cases = labelled()
    assert len(cases) > 75
    right = dict.fromkeys(KINDS, 0)
    missed, wrong = [], []
    for text, expected in cases:
        found = find(text, "Python")
        for finding in expected:
            right[finding.kind] += finding in found
        missed += [(text, finding) for finding in expected if finding not in found]
        wrong += [(text, finding) for finding in found if finding not in expected]
    hits = sum(right.values())
    precision, recall = hits / (hits + len(wrong)), hits / (hits + len(missed))
    with capsys.disabled():
        print(f"\nredaction: {len(cases)} cases, precision {precision:.3f}, recall {recall:.3f}, found {right}")
    assert precision >= 0.95, wrong
    assert recall >= 0.95, missed
    assert all(right.values())


def test_a_private_key_goes_whole() -> None:
    block = "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIEow\nabc=\n-----END RSA PRIVATE" + " KEY-----"
    assert redact(f'k = """{block}"""\n', "Python", RedactConfig()) == ('k = """<key>"""\n', ["key"])


def test_bare_values_are_secrets_only_where_they_are_literals() -> None:
    line = "DB_PASSWORD=hunter2abc\n"
    assert redact(line, "Dotenv", RedactConfig())[0] == "DB_PASSWORD=<password>\n"
    assert redact(line, "Python", RedactConfig())[0] == line
    assert redact("password: ${SECRET_VALUE}\npassword: $(cat f)\n", "YAML", RedactConfig())[1] == []


def test_only_the_kinds_that_are_asked_for() -> None:
    text = 'password = "hunter2"  # max@mustermann.de\n'
    only_mail = redact(text, "Python", RedactConfig(kinds=("email",)))
    assert only_mail == ('password = "hunter2"  # <email>\n', ["email"])
    with pytest.raises(ValueError, match="kinds='phone'"):
        RedactConfig(kinds=("phone",))


APACHE = ["Copyright 2020 The Authors.", "", 'Licensed under the Apache License, Version 2.0 (the "License");']


@pytest.mark.parametrize(
    ("language", "text", "rest"),
    [
        ("Python", "# Copyright 2020 A. Uthor\n# All rights reserved.\n\nimport os\n", "import os\n"),
        ("Python", "#!/usr/bin/env python\n# Copyright 2020 A\nx = 1\n", "#!/usr/bin/env python\nx = 1\n"),
        ("Python", "# Copyright 2020 A\n# -*- coding: utf-8 -*-\nx = 1\n", "# -*- coding: utf-8 -*-\nx = 1\n"),
        ("Python", "# (c) 2019 B\n#\n# This module adds.\nx = 1\n", "# This module adds.\nx = 1\n"),
        ("Python", "# Adds.\n#\n# (c) 2019 B\nx = 1\n", "# Adds.\n#\nx = 1\n"),
        ("C", "/* Copyright (C) 2001 C\n * GNU General Public License */\n#include <a.h>\n", "#include <a.h>\n"),
        ("C", "// SPDX-License-Identifier: MIT\nint x;\n", "int x;\n"),
        ("Java", "/** Licensed to the ASF under one */\n\npackage a;\n", "package a;\n"),
        ("PHP", "<?php\n/* Copyright 2011 D */\necho 1;\n", "<?php\necho 1;\n"),
        ("HTML", "<!DOCTYPE html>\n<!-- Copyright 2011 D -->\n<p>\n", "<!DOCTYPE html>\n<p>\n"),
        ("SQL", "-- Copyright 2011 D\nSELECT 1;\n", "SELECT 1;\n"),
        ("Go", "// Copyright 2011 D\n\n//go:build linux\npackage a\n", "//go:build linux\npackage a\n"),
        ("Lua", "\n".join(f"-- {line}" for line in APACHE) + "\nreturn 1\n", "return 1\n"),
        ("C", "/* Copyright 2011 D */ int x;\n", " int x;\n"),
    ],
)
def test_a_notice_at_the_head_is_removed(language: str, text: str, rest: str) -> None:
    assert remove_notice(text, language) == rest


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("Python", "# Reads the license files of a folder.\nimport os\n"),
        ("Python", '"""Copyright 2020 A. Uthor.\n\nA docstring stays."""\nimport os\n'),
        ("Python", "import os\n# Copyright 2020 A. Uthor\n"),
        ("C", "/**\n * @file a.c\n * Copyright 2020 A\n */\nint x;\n"),
        ("C", "int x; // Copyright 2020 A\n"),
        ("Python", 'x = "Copyright 2020 by A"\n'),
        ("Brainfuck", "Copyright 2020 A\n+++\n"),
    ],
)
def test_what_is_no_notice_at_the_head_stays(language: str, text: str) -> None:
    assert remove_notice(text, language) == text


LINES = [
    "# Copyright 2020 A",
    "# All rights reserved.",
    "#",
    "",
    "# what it does",
    "#!/bin/sh",
    "// (c) 2020",
    "/* Copyright 1999 by B */",
    "/* opens",
    "closes */",
    "x = 1",
    'password = "hunter2"',
    "a = max@mustermann.de 84.17.23.101 ::",
    '"""',
    "mysql://a:p4ssw0rd@h.example.com",
]


@given(st.lists(st.sampled_from(LINES), max_size=12), st.sampled_from(["Python", "C", "Shell", "HTML", "Text"]))
def test_redacting_twice_is_redacting_once(lines: list[str], language: str) -> None:
    text = "\n".join(lines)
    once = redact(text, language, RedactConfig())[0]
    assert redact(once, language, RedactConfig()) == (once, [])


@given(st.text(), st.sampled_from(["Python", "C", "YAML", "unknown"]))
def test_without_notices_no_line_is_lost(text: str, language: str) -> None:
    redacted, hits = redact(text, language, RedactConfig(copyright=False))
    assert redacted.count("\n") == text.count("\n")
    assert (redacted == text) == (not hits)


@pytest.mark.parametrize(
    "unit",
    [
        "@",
        "a@",
        "a.a@a.",
        ":",
        "::",
        "1.",
        "1.1.1.1.",
        "password=",
        "eyJ",
        "AKIA",
        "-----BEGIN PRIVATE KEY-----",
        "://a:b",
        "İ",
    ],
)
def test_finding_is_linear(unit: str) -> None:
    find(unit * (50_000 // len(unit)), "YAML")


def test_the_kernel_keeps_schema_and_sizes_and_drops_what_was_only_a_notice() -> None:
    texts = ["# Copyright 2020 A\nname = 'ä'\n", "# Copyright 2020 A\n", "x = 1\n"]
    row = {name: 0 if field == pa.int64() else "" for name, field in zip(SCHEMA.names, SCHEMA.types, strict=True)}
    rows = [row | {"id": str(i), "text": text, "language": "Python", "bytes": 99} for i, text in enumerate(texts)]
    result = Redact(RedactConfig())(pa.RecordBatch.from_pylist(rows, SCHEMA))
    assert result.table.schema == SCHEMA
    assert result.table.column("text").to_pylist() == ["name = 'ä'\n", "x = 1\n"]
    assert result.table.column("bytes").to_pylist() == [12, 6]
    assert [(drop.row, drop.reason) for drop in result.drops] == [(1, "only_copyright")]
    assert result.counts == {"redacted copyright": 2}
