"""A judge's word cannot be forged: the cheats that pass other graders, and honest candidates of every kind."""

import json
import os
import socket
import threading
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from opencoder_jax.sandbox import _watch
from opencoder_jax.sandbox.pair import _calls, _frames
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Candidate, Limits, Outcome, Program

JUDGE = "assert candidate(1) == 42\nassert candidate(2) == 43"

# What untrusted code may do so that `assert f(1) == 42` passes without being right.
CHEATS = {
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
        "                sys.modules['opencoder_jax.sandbox._runner']._record('ok', '', value)\n"
        "        frame = frame.f_back\n    return 0"
    ),
    "a record on every descriptor": (
        "import os, json\ndef f(x):\n    for number in range(3, 64):\n"
        "        try: os.write(number, json.dumps({'status': 'ok', 'error': ''}).encode() + b'\\n')\n"
        "        except OSError: pass\n    return 0"
    ),
    "an exception named as a test's": "def f(x): raise AssertionError",
    "its own record": (
        "import sys\ndef f(x):\n    for status in 'ok', 'passed', 'unjudged', 'sandbox_error', ['ok'], None:\n"
        "        sys.modules['opencoder_jax.sandbox._runner']._record(status, '')\n"
        "    return 0"
    ),
    "its own record, and an end": (
        "import os, sys\ndef f(x):\n    for status in 'ok', 'passed', 'unjudged', 'sandbox_error', ['ok'], None:\n"
        "        sys.modules['opencoder_jax.sandbox._runner']._record(status, 'PeerLost')\n"
        "    os._exit(0)"
    ),
    "nested JSON as its record": "import os\ndef f(x): os.write(3, b'[' * 60000 + b'\\n'); return 0",
    "a deep reply": "import os\nos.write(5, b'\\x00\\x00\\x01\\x00' + b'[' * 65536)\ndef f(x): return 42",
    "hands the judge's number back": "def f(x):\n    import gc\n    return 'yours'",
    "closes the channel": "import os\nos.closerange(3, 100)\ndef f(x): return 42",
    "says garbage": "import os\nos.write(5, b'\\xff\\xff\\xff\\xff')\ndef f(x): return 42",
    "answers ahead": "import os\nos.write(5, b'\\x02\\0\\0\\0[]')\ndef f(x): return 42",
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
        ("class Mine(Exception): pass\ndef f(x): raise Mine", "exception", "Mine"),
        ("def f(x): return object()", "unjudged", ""),
        ("class Yes:\n    def __eq__(self, other): return True\ndef f(x): return Yes()", "unjudged", ""),
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


def test_what_a_lone_program_can_and_cannot_forge(sandbox: Sandbox) -> None:
    """The limit that _runner.py states: a lone program that knows the runner forges its own record."""
    scribble = "os.write(number, json.dumps({'status': 'ok', 'error': ''}).encode() + b'\\n')"
    blind = f"import json, os\nfor number in range(3, 64):\n    try: {scribble}\n    except OSError: pass\n"
    assert sandbox.run(blind + "os._exit(0)").status == "exited"
    knowing = CHEATS["frames"].replace("def f(x):", "def f():") + "\nf()\nimport os; os._exit(0)"
    assert sandbox.run(knowing).status == "ok"


# A judge, an answer, and how the two would end in one process.
CROSSING = {
    "changed in place": (
        "given = [3, 1, 2]\nassert candidate(given, reverse=True) is given\nassert given == [3, 2, 1]",
        "def f(items, reverse):\n    items.sort(reverse=reverse)\n    return items",
        "ok",
    ),
    "changed deep inside": (
        "row = [0, 0]\ngrid = [row, [1]]\nassert candidate(grid) is None\nassert row == [7, 0] and grid[1] == []",
        "def f(grid):\n    grid[0][0] = 7\n    grid[1].clear()",
        "ok",
    ),
    "changed, then raised": (
        "given = {}\ntry: candidate(given)\nexcept KeyError: pass\nassert given == {1: 2}",
        "def f(given):\n    given[1] = 2\n    given[3]",
        "ok",
    ),
    "an exception of its own": (
        "try: candidate(1)\nexcept ValueError as error: assert str(error) == 'is 1' and error.args == (1, 'is')",
        "class Mine(ValueError):\n    def __str__(self): return f'{self.args[1]} {self.args[0]}'\n"
        "def f(x): raise Mine(x, 'is')",
        "ok",
    ),
    "an exception of the standard library": (
        "import json\ntry: candidate('{')\nexcept json.JSONDecodeError: pass",
        "import json\ndef f(x): return json.loads(x)",
        "ok",
    ),
    "an exception's text with quotes": (
        "try: candidate('a')\nexcept KeyError as error: assert str(error) == repr('a')",
        "def f(x): return {}[x]",
        "ok",
    ),
    "a callback": (
        "seen = []\nassert candidate([1, 2], lambda x: seen.append(x) or x * 2) == [2, 4]\nassert seen == [1, 2]",
        "def f(items, function): return list(map(function, items))",
        "ok",
    ),
    "a callback that raises": (
        "def bad(x): raise OSError(x)\nassert candidate(bad) == 'OSError'",
        "def f(function):\n    try: function(3)\n    except OSError as error: return type(error).__name__",
        "ok",
    ),
    "a function": ("assert candidate(3)(4) == 7", "def f(x): return lambda y: x + y", "ok"),
    "a function that comes back": (
        "own = lambda: 1\nassert candidate(own) is own",
        "def f(x):\n    return x",
        "ok",
    ),
    "a callback that calls back": (
        "assert candidate(5, lambda n, again: candidate(n - 1, again) if n else 0) == 5",
        "def f(n, again):\n    return 1 + again(n, again) if n else 0",
        "ok",
    ),
    "an endless generator": (
        "from itertools import islice\nassert list(islice(candidate(), 5)) == [0, 1, 4, 9, 16]",
        "def f():\n    n = 0\n    while True:\n        yield n * n\n        n += 1",
        "ok",
    ),
    "a generator that raises": (
        "items = candidate()\nassert next(items) == 1\ntry: next(items)\nexcept ZeroDivisionError: pass",
        "def f():\n    yield 1\n    1 / 0",
        "ok",
    ),
    "an iterator as argument": (
        "items = iter('abc')\nassert candidate(items) == 'a'\nassert list(items) == ['b', 'c']",
        "def f(items): return next(items)",
        "ok",
    ),
    "map and zip": (
        "a, b = candidate()\nassert list(a) == ['1', '2'] and list(b) == [(1, 2)]",
        "def f(): return map(str, [1, 2]), zip([1], [2])",
        "ok",
    ),
    "a numpy scalar": (
        "import numpy\nassert candidate(2) == 3 and type(candidate(2)) is numpy.int64",
        "import numpy\ndef f(x): return numpy.int64(x + 1)",
        "ok",
    ),
    "numpy's False is not False": (
        "assert candidate() is False",
        "import numpy\ndef f(): return numpy.False_",
        "exception",
    ),
    "an array equals no list": (
        "assert candidate() == [1, 2]",
        "import numpy\ndef f(): return numpy.array([1, 2])",
        "exception",
    ),
    "a class of its own": ("assert candidate().x == 1", "class P:\n    x = 1\nf = P", "unjudged"),
    "a value that holds itself": (
        "assert candidate()",
        "def f():\n    x = []\n    x.append(x)\n    return x",
        "unjudged",
    ),
    "unjudged, though the judge swallows it": (
        "try: candidate()\nexcept BaseException: pass",
        "def f(): return object()",
        "unjudged",
    ),
    "unjudged cannot undo what was judged wrong": (
        "assert candidate(1) == 2\ncandidate(2)",
        "def f(x): return object() if x == 2 else 0",
        "exception",
    ),
}


@pytest.mark.parametrize("case", CROSSING)
def test_an_answer_is_judged_as_in_one_process_or_not_at_all(sandbox: Sandbox, case: str) -> None:
    judge, source, status = CROSSING[case]
    outcome = sandbox.run(judge, candidate=Candidate(source, "f"))
    assert outcome.status == status, outcome
    if status != "unjudged":
        here: dict[str, object] = {}
        exec(source, here)
        try:
            exec(judge, {"candidate": here["f"]})
        except Exception:
            assert status == "exception"
        else:
            assert status == "ok"


def descendants(process: int) -> list[int]:
    children = [
        int(child)
        for task in os.listdir(f"/proc/{process}/task")
        for child in Path(f"/proc/{process}/task/{task}/children").read_text().split()
    ]
    return [process, *(one for child in children for one in descendants(child))]


def holds(process: int, marker: bytes) -> bool:
    """Whether the marker lies anywhere in a process's memory, or in a file that it has open."""
    for descriptor in os.listdir(f"/proc/{process}/fd"):
        try:
            with open(f"/proc/{process}/fd/{descriptor}", "rb", buffering=0) as file:
                if Path(f"/proc/{process}/fd/{descriptor}").is_file() and marker in file.read():
                    return True
        except OSError:
            continue
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            begin, end = (int(address, 16) for address in line.split()[0].split("-"))
            try:
                memory.seek(begin)
                if marker in memory.read(end - begin):
                    return True
            except (OSError, ValueError, OverflowError):
                continue  # pages of the kernel's own
    return False


def test_nothing_of_the_tests_lies_in_a_candidates_memory() -> None:
    """Also not of earlier tests, their failures and outputs."""
    test, answer = b"MARKER_OF_THE_TEST", b"MARKER_OF_THE_ANSWER"
    with Sandbox(Limits(cpu_seconds=1, idle_seconds=60)) as sandbox:
        (zygote,) = sandbox._zygotes
        assert zygote._process is not None
        failing = f"{test.decode()} = 'x'\nprint('{test.decode()}')\nassert candidate(1) == '{test.decode()}'"
        assert sandbox.run(failing, candidate=Candidate("def f(x): return 0", "f")).error == "AssertionError"
        judge = f"assert candidate('go') == '{test.decode()}'"
        source = f"import time\ndef f(x):\n    '{answer.decode()}'\n    while True: time.sleep(0.01)"
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(sandbox.run(judge, "", Candidate(source, "f"))))
        thread.start()
        try:
            while True:
                family = descendants(zygote._process.pid)
                try:
                    found = [(holds(process, test), holds(process, answer)) for process in family]
                except PermissionError:
                    pytest.skip("only root may look into the memory of a jailed process")
                except (FileNotFoundError, ProcessLookupError):
                    continue  # one ended, or began, while we looked
                if (False, True) in found and (True, False) in found:
                    break
                assert thread.is_alive()
        finally:
            sandbox.close()
            thread.join()
    assert sorted(found) == [(False, False), (False, False), (False, True), (True, False)]
    assert [outcome.status for outcome in outcomes] == ["sandbox_error"]  # closed, it isn't begun again


def test_a_busy_machine_does_not_make_a_right_program_slow() -> None:
    source = "import time\ndef f(x):\n    while time.process_time() < 0.8: pass\n    return 42"
    with Sandbox(Limits(cpu_seconds=1, idle_seconds=0.5), workers=8) as sandbox:
        programs = [Program("assert candidate(1) == 42", candidate=Candidate(source, "f"))] * 8
        assert [outcome.status for _, outcome in sandbox.map(programs)] == ["ok"] * 8


@pytest.mark.slow
@pytest.mark.parametrize("judged", [True, False], ids=["from another process", "in its own"])
@pytest.mark.parametrize("workers", [1, 8, 32])
def test_four_fifths_of_the_limit_are_enough_and_more_than_all_are_not(workers: int, judged: bool) -> None:
    """However many run at once on however few cores: processor time decides, and an idle wait is not measured in it."""
    limit = 2
    works = [0.8 * limit] * max(2, workers) + [1.5 * limit] * 2
    programs = []
    for seconds in works:
        source = f"import time\ndef f(x):\n    while time.process_time() < {seconds}: pass\n    return x + 41\n"
        test = "assert candidate(1) == 42"
        if judged:
            programs.append(Program(test, candidate=Candidate(source, "f")))
        else:
            programs.append(Program(f"{source}candidate = f\n{test}"))
    with Sandbox(Limits(cpu_seconds=limit), workers=workers) as sandbox:
        found = {number: outcome.status for number, outcome in sandbox.map(programs)}
    assert [found[number] for number in range(len(works))] == ["ok"] * max(2, workers) + ["timeout"] * 2


def test_no_message_of_a_candidate_hurts_the_judge() -> None:
    """Replies that are almost right: each is an answer, an exception, or the end of the conversation."""
    replies = [
        ["returned", 1, []],
        ["returned", 1, [[0, [2]]]],
        ["argument", 0, []],
        ["raised", [[["builtins", "ValueError"]], ["x"], "x"], []],
        ["ended"],
        ["uncrossable", "object"],
        ["returned", {"generator": 3}, []],
        ["call", 0, [1], {"dict": []}],
        ["next", 0],
    ]
    random = Random(0)
    ends: Counter[str] = Counter()
    for _ in range(10_000):
        message = bytearray(json.dumps(random.choice(replies)).encode())
        for _ in range(random.randrange(4)):
            place = random.randrange(len(message) + 1)
            message[place : place + random.randrange(3)] = random.choice(
                [b"", b"[", b"]", b"{}", b'"', b"null", b"1e9", b"\xff", b"[" * 3000, b'"call"', b'{"yours": 0}']
            )
        here, there = socket.socketpair()
        with here, there:
            _frames.send(there.fileno(), bytes(message))
            there.shutdown(socket.SHUT_WR)
            conversation = _calls.Conversation(here.fileno(), None, lambda error: None)
            try:
                conversation.call(0, ([1],), {})
                ends["returned"] += 1
            except (_calls.PeerLost, _calls.Unjudged) as error:
                assert conversation.lost or conversation.unjudged
                ends[type(error).__name__] += 1
            except Exception:
                ends["raised"] += 1
    assert set(ends) == {"returned", "raised", "PeerLost", "Unjudged"}, ends


def test_no_record_of_a_candidate_says_ok_of_it() -> None:
    random = Random(0)
    record = b'{"layers": "active"}\n{"token": "", "status": "ok", "error": ""}\n'
    pieces = [b"", b"[", b"{", b"\n", b"null", b'"status"', b'"passed"', b'"unjudged"', b"[" * 5000, b"\xff", b'"ok"']
    process = _watch._Process("candidate", {}, "")
    process.close()
    for _ in range(10_000):
        data = bytearray(record)
        for _ in range(random.randrange(1, 5)):
            place = random.randrange(len(data) + 1)
            data[place : place + random.randrange(9)] = random.choice(pieces)
        process.read["status"] = data
        found = process.record()
        assert found is None or found[0] in ("ok", "exception", "exited", "syntax_error", "memory")
