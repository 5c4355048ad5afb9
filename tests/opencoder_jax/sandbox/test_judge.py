"""A judge's word cannot be forged: the cheats that pass other graders, and honest candidates of every kind."""

import pytest

from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Candidate

JUDGE = "assert candidate(1) == 42\nassert candidate(2) == 43"

# What untrusted code may do so that `assert f(1) == 42` passes without being right.
CHEATS = {
    "equals everything": "class Yes:\n    def __eq__(self, other): return True\ndef f(x): return Yes()",
    "an int that equals everything": "class Yes(int):\n    __eq__ = lambda self, other: True\ndef f(x): return Yes(1)",
    "exit in the body": "import sys\ndef f(x): sys.exit(0)",
    "exit while defining": "import sys\nsys.exit(0)\ndef f(x): return 42",
    "os._exit": "import os\ndef f(x): os._exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "patched built-ins": "import builtins\nbuiltins.AssertionError = Warning\ndef f(x): return 0",
    "trace function": "import sys\nsys.settrace(lambda *a: None)\ndef f(x): return 0",
    "frames": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for name, value in list(frame.f_locals.items()):\n"
        "            if name == 'token':\n"
        "                from opencoder_jax.sandbox import _runner\n"
        "                _runner._record(value, 'ok', '')\n"
        "        frame = frame.f_back\n    return 0"
    ),
    "a record on every descriptor": (
        "import os, json\ndef f(x):\n    for number in range(3, 64):\n"
        "        try: os.write(number, json.dumps({'status': 'ok', 'error': ''}).encode() + b'\\n')\n"
        "        except OSError: pass\n    return 0"
    ),
    "an exception named as a test's": "def f(x): raise AssertionError",
    "closes the channel": "import os\nos.closerange(3, 100)\ndef f(x): return 42",
    "says garbage": "import os\nos.write(4, b'\\xff\\xff\\xff\\xff')\ndef f(x): return 42",
    "answers ahead": "import os\nos.write(4, b'\\x02\\0\\0\\0[]')\ndef f(x): return 42",
    "redefines the judge": "import sys\nsys.modules['__main__'].candidate = lambda x: x + 41\ndef f(x): return 0",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes(sandbox: Sandbox, cheat: str) -> None:
    outcome = sandbox.run(JUDGE, candidate=Candidate(CHEATS[cheat], "f"))
    assert outcome.status in ("exception", "exited"), outcome


def test_no_cheat_passes_even_a_judge_that_swallows_everything(sandbox: Sandbox) -> None:
    judge = "try: candidate(1)\nexcept BaseException: pass"
    assert sandbox.run(judge, candidate=Candidate("import os\ndef f(x): os._exit(0)", "f")).status == "exited"


@pytest.mark.parametrize(
    ("source", "status", "error"),
    [
        ("def f(x): return x + 41", "ok", ""),
        ("f = lambda x: x + 41", "ok", ""),
        ("import functools\n@functools.cache\ndef f(x): return x + 41", "ok", ""),
        ("def f(x): return x", "exception", "AssertionError"),
        ("def f(x): return None + x", "exception", "TypeError"),
        ("class Mine(Exception): pass\ndef f(x): raise Mine", "exception", "RuntimeError"),
        ("def f(x): return object()", "exception", "TypeError"),
        ("def g(x): return x", "exception", "NameError"),
        ("f = 3", "exception", "NameError"),
        ("1 / 0", "exception", "ZeroDivisionError"),
        ("def f(x) return x", "syntax_error", "SyntaxError"),
        ("def f(x):\n    while True: pass", "timeout", ""),
        ("while True: pass", "timeout", ""),
        ("def f(x): return 'a' * 10**10", "memory", "MemoryError"),
        ("def f(x):\n    while True: print('x' * 1000)", "output_limit", ""),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", "killed", "SIGSEGV"),
        ("if __name__ == '__main__': 1 / 0\ndef f(x): return x + 41", "ok", ""),
    ],
)
def test_the_outcome_is_the_candidates(sandbox: Sandbox, source: str, status: str, error: str) -> None:
    outcome = sandbox.run(JUDGE, candidate=Candidate(source, "f"))
    assert (outcome.status, outcome.error) == (status, error), outcome


def test_exceptions_keep_their_class_and_message(sandbox: Sandbox) -> None:
    judge = (
        "try:\n    candidate(-1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'negative'"
    )
    source = "def f(x):\n    if x < 0: raise ValueError('negative')"
    assert sandbox.run(judge, candidate=Candidate(source, "f")).status == "ok"


def test_arguments_are_passed_by_value(sandbox: Sandbox) -> None:
    judge = "given = [3, 1, 2]\nassert candidate(given, reverse=True) == [3, 2, 1]\nassert given == [3, 1, 2]"
    source = "def f(items, reverse):\n    items.sort(reverse=reverse)\n    return items"
    assert sandbox.run(judge, candidate=Candidate(source, "f")).status == "ok"


def test_what_a_lone_program_can_and_cannot_forge(sandbox: Sandbox) -> None:
    """The limit that _runner.py states: a lone program that knows the runner forges its own record."""
    scribble = "os.write(number, json.dumps({'status': 'ok', 'error': ''}).encode() + b'\\n')"
    blind = f"import json, os\nfor number in range(3, 64):\n    try: {scribble}\n    except OSError: pass\n"
    assert sandbox.run(blind + "os._exit(0)").status == "exited"
    knowing = CHEATS["frames"].replace("def f(x):", "def f():") + "\nf()\nimport os; os._exit(0)"
    assert sandbox.run(knowing).status == "ok"
