"""Programs of every language of the table that this machine has, and how they end."""

import os
import runpy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opencoder_jax.sandbox.languages import polyglot as polyglot_module
from opencoder_jax.sandbox.languages import toolchains
from opencoder_jax.sandbox.languages.polyglot import Built, Polyglot
from opencoder_jax.sandbox.languages.table import LANGUAGES
from opencoder_jax.sandbox.languages.toolchains import ToolchainError, find
from opencoder_jax.sandbox.pool import Sandbox, SandboxError
from opencoder_jax.sandbox.program import Command, Limits

SUMS: dict[str, str] = runpy.run_path(str(Path(__file__).parent / "sums.py"))["SUMS"]
QUICK = ("C", "Bash", "Perl", "JavaScript")  # the others are slow to start or to compile


def build(polyglot: Polyglot, language: str, source: str) -> Built:
    try:
        return polyglot.build(language, source)
    except ToolchainError as error:
        pytest.skip(str(error))


def each_language() -> Iterator[object]:
    for name in LANGUAGES:
        yield pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize("language", list(each_language()))
def test_a_program_is_compiled_once_and_run_with_a_pipe(polyglot: Polyglot, language: str) -> None:
    built = build(polyglot, language, SUMS[language])
    assert built.failure is None
    for stdin, stdout in ("1 2\n3 4\n", "10\n"), ("100 -1\n", "99\n"):
        outcome = built.run(stdin)
        assert (outcome.status, outcome.exit_code, outcome.stdout, outcome.stderr) == ("exited", 0, stdout, "")
    assert polyglot.build(language, SUMS[language]) is built


# What no compiler takes, and what an interpreter finds out: it fails with the language's own words.
BROKEN = dict.fromkeys(LANGUAGES, "this is ( no program\n") | {
    "Tcl": "set {",
    "Bash": "if (",
    "Emacs Lisp": "(this is",
    "PHP": "<?php this is ( no program",
    "Vim script": "cquit 1\n",
    "Scheme": "(this is",
    "Racket": "#lang racket\n(this is",
}


@pytest.mark.parametrize("language", list(each_language()))
def test_what_is_no_program_fails(polyglot: Polyglot, language: str) -> None:
    built = build(polyglot, language, BROKEN[language])
    outcome = built.run()
    if LANGUAGES[language].compile:
        assert outcome.status == "compile_error"
        assert outcome.stderr + outcome.stdout
    else:
        assert (outcome.status, outcome.exit_code == 0) == ("exited", False)


def test_equal_sources_are_compiled_once(polyglot: Polyglot, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, ...]] = []
    real = Sandbox.command

    def command(sandbox: Sandbox, given: Command) -> object:
        steps.extend(given.steps)
        return real(sandbox, given)

    monkeypatch.setattr(Sandbox, "command", command)
    for _ in range(3):
        assert build(polyglot, "C", "int main(void) { return 7; }").run().exit_code == 7
    assert [step[0] for step in steps] == ["gcc", "./main", "./main", "./main"]


def test_how_a_program_ends_is_told(polyglot: Polyglot) -> None:
    ends = {
        "int main(void) { return 3; }": ("exited", "", 3),
        "#include <stdlib.h>\nint main(void) { abort(); }": ("killed", "SIGABRT", None),
        "int main(void) { return *(volatile int *)0; }": ("killed", "SIGSEGV", None),
        "#include <signal.h>\nint main(void) { raise(SIGTERM); return 0; }": ("killed", "SIGTERM", None),
        '#include <unistd.h>\nint main(void) { for (;;) write(1, "spam", 4); }': ("output_limit", "", None),
    }
    for source, end in ends.items():
        outcome = build(polyglot, "C", source).run()
        assert (outcome.status, outcome.error, outcome.exit_code) == end


def test_limits_are_of_all_processes_together() -> None:
    limits = Limits(cpu_seconds=1, idle_seconds=1, memory_bytes=100 << 20)
    with Sandbox(limits, workers=2) as sandbox:
        polyglot = Polyglot(sandbox)
        burning = build(polyglot, "Bash", "for at in 1 2 3 4; do (while :; do :; done) & done; wait")
        outcome = burning.run()
        assert outcome.status == "timeout"
        assert outcome.cpu_seconds < 4  # the kernel's own limit would give each of them a second
        assert build(polyglot, "Bash", "sleep 60 & wait").run().status == "timeout"
        # Each of them stays below the limit.
        holding = "x=$(head -c 30000000 /dev/zero | tr '\\0' x); sleep 60"
        assert build(polyglot, "Bash", f"for at in 1 2 3 4; do ({holding}) & done; wait").run().status == "memory"
        threads = "for at in {1..400}; do sleep 60 & done; wait"
        assert build(polyglot, "Bash", threads).run().status == "memory"


def test_memory_that_is_counted_has_a_limit(polyglot: Polyglot) -> None:
    kept = "const kept = []; while (kept.length < 1000) kept.push(Buffer.alloc(8 << 20, 1));"
    assert build(polyglot, "JavaScript", kept).run().status == "memory"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("JavaScript", "const kept = []; while (kept.length < 1e9) kept.push({ at: kept.length });"),
        ("Java", "class A { public static void main(String[] a) { long[] b = new long[1 << 30]; } }"),
        ("Go", "package main\nfunc main() { a := make([]byte, 1 << 30); for i := range a { a[i] = 1 } }"),
        ("PHP", "<?php $a = str_repeat('x', 1 << 30);"),
        ("Lua", "a = string.rep('x', 1 << 30)"),
        ("Perl", "$a = 'x' x (1 << 30); $b = $a;"),
    ],
)
def test_a_runtime_that_runs_out_of_memory_is_told_apart(polyglot: Polyglot, language: str, source: str) -> None:
    assert build(polyglot, language, source).run().status == "memory"


def test_an_address_space_has_a_limit(polyglot: Polyglot) -> None:
    source = "#include <stdlib.h>\nint main(void) { return malloc(600 << 20) ? 0 : 5; }"
    assert build(polyglot, "C", source).run().exit_code == 5


def test_stdin_is_a_pipe_of_any_length(polyglot: Polyglot) -> None:
    numbers = " ".join(map(str, range(100_000)))
    assert build(polyglot, "C", SUMS["C"]).run(numbers).stdout == f"{sum(range(100_000))}\n"
    unread = build(polyglot, "C", "int main(void) { return 0; }").run(numbers * 20)
    assert (unread.status, unread.exit_code) == ("exited", 0)
    asked = build(polyglot, "Bash", '[ -p /dev/stdin ] && cat /dev/stdin && ! read -r line && echo " end"')
    assert asked.run("all").stdout == "all end\n"


def test_a_compiler_has_its_own_limits_and_bombs_end() -> None:
    small = Limits(cpu_seconds=1, idle_seconds=5, memory_bytes=200 << 20, file_bytes=8 << 20)
    bombs = {
        "macros": "#define A(x) x+x+x+x+x+x+x+x+x+x\nint a = " + "A(" * 8 + "1" + ")" * 8 + ";",
        "includes itself": "#include __FILE__\n#include __FILE__\n",
        "a large binary": "char large[100 << 20] = {1}; int main(void) { return 0; }",
        "errors": "int a = b;\n" * 20_000,
    }
    with Sandbox(Limits(cpu_seconds=1, idle_seconds=2)) as sandbox:
        for name, source in bombs.items():
            begin = time.monotonic()
            outcome = build(Polyglot(sandbox, compiling=small), "C", source).run()
            assert outcome.status == "compile_error", (name, outcome)
            assert time.monotonic() - begin < 60
        assert build(Polyglot(sandbox), "C", SUMS["C"]).run("1 2").stdout == "3\n"


def test_nothing_is_left_of_a_run(polyglot: Polyglot) -> None:
    seconds = str(2 * 10**7 + os.getpid())  # no other process of this machine sleeps as long
    source = f"(setsid sleep {seconds} &) ; (trap '' HUP TERM; sleep {seconds} &) ; echo x > left; mkfifo pipe"
    assert build(polyglot, "Bash", source).run().exit_code == 0
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if seconds.encode() in read(path)]
    assert build(polyglot, "Bash", "ls; pwd").run().stdout.startswith("main.sh\n/")


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_what_a_machine_lacks_is_told_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fresh = find.__wrapped__
    with pytest.raises(ToolchainError, match=r"^Swift: swiftc not found; swift\.org's toolchain brings it"):
        fresh("Swift")
    with pytest.raises(ToolchainError, match=r"^Cobol is no row of the table of languages; they are C, C"):
        fresh("Cobol")
    (tmp_path / "lua5.4").write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    (tmp_path / "lua5.4").chmod(0o755)
    with pytest.raises(ToolchainError, match=r"lua5\.4 -v.*broken"):
        fresh("Lua")


def test_a_toolchain_that_cannot_be_prepared_is_no_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    row = replace(LANGUAGES["C"], prepare=(("sh", "-c", "echo no space >&2; exit 1"),))
    with pytest.raises(ToolchainError, match=r"C: sh -c .*no space"):
        replace(find("C"), language=row).prepare()


def test_what_is_prepared_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    row = replace(LANGUAGES["C"], prepare=(("sh", "-c", "echo x >> {cache}/made"),), prepared={"a/b": "text"})
    for _ in range(2):
        toolchain = replace(find("C"), language=row)
        toolchain.prepare()
    assert (toolchain.cache() / "made").read_text() == "x\n"
    assert (toolchain.cache() / "a/b").read_text() == "text"
    assert str(toolchain.cache()) in toolchain.reads()


def test_a_broken_toolchain_is_an_error_of_the_sandbox(polyglot: Polyglot) -> None:
    outcome = polyglot.sandbox.command(Command((("/nowhere/compiler",),)))
    assert outcome.status == "sandbox_error"
    assert "/nowhere/compiler" in outcome.error


def test_without_its_walls_no_command_is_run(polyglot: Polyglot, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = polyglot.sandbox.layers | {"pid namespace": "missing: refused"}
    monkeypatch.setattr(polyglot.sandbox, "layers", layers)
    with pytest.raises(SandboxError, match="none of other languages: pid namespace is missing: refused"):
        polyglot.build("Perl", "print 1").run()


@pytest.mark.slow
def test_c_plus_plus_that_needs_a_rare_header_or_brings_its_own_macros_is_compiled(polyglot: Polyglot) -> None:
    rare = '#include <bits/stdc++.h>\nint main() { return std::regex_match("aab", std::regex("a+b")) ? 0 : 1; }'
    assert build(polyglot, "C++", rare).run().exit_code == 0
    # Headers that a program forgot are not given to it.
    assert build(polyglot, "C++", "int main() { std::vector<int> a; }").run().status == "compile_error"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("public final class Adder { }", "Adder"),
        (
            "class Pair { int a; }\nclass Solution { int f() { return 1; }\n static void main(String[] a) { } }",
            "Solution",
        ),
        ("class Problem { public static void main(String[] a) { } }", "Problem"),
        ("interface Nothing { }", "Main"),
    ],
)
def test_a_program_of_java_is_called_by_the_class_that_starts_it(source: str, name: str) -> None:
    assert polyglot_module._name(LANGUAGES["Java"], source) == name


def test_every_row_has_what_it_needs() -> None:
    assert set(SUMS) == set(LANGUAGES)
    for name, row in LANGUAGES.items():
        assert row.install, name
        assert row.run, name
        assert not row.prepared or row.prepare, name
        words = [word for line in (*row.compile, row.run) for word in line]
        assert ("{root}" in " ".join((*words, *row.environment.values()))) == bool(row.root), name
    assert toolchains.ToolchainError is ToolchainError
