"""Snippets: what passes its doctests is kept and runs alone; what doesn't, or can't stand alone, isn't."""

import subprocess
import sys
from collections.abc import Callable
from textwrap import dedent

import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.core.documents import document_id
from opencoder_jax.beam_pipelines.core.maps import Result
from opencoder_jax.beam_pipelines.synthesis.doctests import DoctestConfig, RunDoctests, Snippet, snippets

Batch = Callable[..., pa.RecordBatch]

MODULE = '''"""A module."""
import math, os
from collections import Counter as Count, deque
import numpy as np
\f
LIMIT = 10; OTHER = 3

def helper(x):
    return math.floor(x)

@staticmethod
def unused(x):
    return np.array(x)


def rounded(values):
    """Rounds down, up to a limit.

    >>> rounded([1.5, 2.5, 99])
    [1, 2, 10]
    >>> rounded([])
    []
    >>> Count(rounded([1, 1.5]))[1]
    2
    """
    return [min(LIMIT, helper(value)) for value in values]
'''

BAD = {
    "exception": '''
def wrong(x):
    """
    >>> wrong(1)
    2
    """
    return x
''',
    "timeout": '''
def endless():
    """
    >>> endless()
    """
    while True:
        pass
''',
    "output_limit": '''
def noisy():
    """
    >>> noisy()
    0
    """
    import sys
    sys.__stdout__.write("x" * 10_000_000)
    return 0
''',
    "exited": '''
import os
def leaves():
    """
    >>> leaves()
    """
    os._exit(0)
''',
}

WRITES = '''
def writes(path):
    """
    >>> writes("out.txt")
    3
    """
    with open(path, "w") as file:
        return file.write("abc")
'''


def only(text: str) -> Snippet:
    (found,) = snippets(dedent(text), 60)
    assert isinstance(found, Snippet), found
    return found


def reason(text: str, max_lines: int = 60) -> str:
    (found,) = snippets(dedent(text), max_lines)
    assert isinstance(found, str), found
    return found


@pytest.fixture(scope="module")
def result(batch: Batch) -> Result:
    """The kernel on all of the above."""
    texts = [MODULE, *BAD.values(), WRITES]
    rows = [{"text": text, "path": f"{number}.py"} for number, text in enumerate(texts)]
    rows += [{"text": MODULE, "language": "C", "path": "c.c"}, {"text": "no Python 3: print 1\n>>> x", "path": "d.py"}]
    return RunDoctests(DoctestConfig(cpu_seconds=1))(batch(*rows))


def test_what_passes_is_kept_and_the_rest_is_counted(result: Result) -> None:
    table, drops, counts = result
    assert table.column("path").to_pylist() == ["0.py#rounded"]
    assert list(drops) == []
    assert counts == {
        "doctests: ok": 1,
        "doctests: exception": 2,  # the second is the OSError of what writes
        "doctests: timeout": 1,
        "doctests: output_limit": 1,
        "doctests: exited": 1,
    }


def test_a_snippet_is_a_document_that_runs_alone(result: Result) -> None:
    (row,) = result.table.to_pylist()
    assert row["id"] == document_id("here", "0.py#rounded")
    assert (row["kind"], row["source"], row["language"]) == ("synthetic", "doctests", "Python")
    assert row["bytes"] == len(row["text"].encode())
    assert row["text"] == (
        "import math\n"
        "from collections import Counter as Count\n\n\n"
        "LIMIT = 10; OTHER = 3\n\n\n"
        "def helper(x):\n    return math.floor(x)\n\n\n"
        + MODULE[MODULE.index("def rounded") :].rstrip()
        + "\n\n\nassert rounded([1.5, 2.5, 99]) == [1, 2, 10]\nassert rounded([]) == []\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", row["text"]], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import numpy\ndef f():\n    '''\n    >>> f()\n    1\n    '''\n    return numpy.int8(1)", "imports a package"),
        ("from .x import y\ndef f():\n    '''\n    >>> f()\n    1\n    '''\n    return y", "imports a package"),
        ("from . import y\ndef f():\n    '''\n    >>> y.f()\n    1\n    '''\n    return 1", "imports a package"),
        ("def f(a=b):\n    '''\n    >>> f()\n    '''\nb = 1", "needs a later statement"),
        ("def f():\n    '''\n    >>> f(\n    '''\n", "malformed doctest"),
        ("def f():\n    '''\n    >>> f()\n  1\n    '''\n", "malformed doctest"),
        ("def f():\n    '''\n    >>> f()\n    '''\ndef f():\n    pass", "defined twice"),
        (
            "try:\n    import fast\nexcept ImportError:\n    fast = None\n"
            "def f(x=0):\n    '''\n    >>> f()\n    1\n    '''\n    return 1 if not x else fast.f(x)",
            "needs a name that its module doesn't plainly define",
        ),
        ("from math import *\ndef f():\n    '''\n    >>> f()\n    0.0\n    '''\n    return sin(0)", "needs a name"),
    ],
)
def test_functions_that_cannot_stand_alone(text: str, why: str) -> None:
    assert reason(text).startswith(why)


def test_reasons_are_counted(batch: Batch) -> None:
    text = "from .x import y\ndef f():\n    '''\n    >>> f()\n    1\n    '''\n    return y"
    result = RunDoctests(DoctestConfig())(batch(text, text))
    assert result.counts == {"left out: imports a package": 2}
    assert result.table.num_rows == 0


def test_the_lines_of_a_snippet_are_bounded() -> None:
    text = "def f():\n    '''\n    >>> f()\n    1\n    '''\n    return 1"
    assert only(text).source == text
    assert reason(text, max_lines=5) == "too long"
    assert [type(found) for found in snippets(text, 6)] == [Snippet]


@pytest.mark.parametrize(
    ("example", "assertion"),
    [
        (">>> f(1)\n    1", "assert f(1) == 1"),
        (">>> f('a')\n    'a'", "assert f('a') == 'a'"),
        (">>> f([1, {2: (3,)}])\n    [1, {2: (3,)}]", "assert f([1, {2: (3,)}]) == [1, {2: (3,)}]"),
        (">>> f(None)", None),  # prints nothing: no value to state
        (">>> f(1) + 1\n    2", None),  # not the call alone
        (">>> x = 1\n    >>> f(x)\n    1", None),  # needs what another example made
        (">>> f(range(3))\n    range(0, 3)", None),  # no literal
        (">>> f(list(range(30)))\n    [0, ..., 29]", None),  # ELLIPSIS
        (">>> f({[]: 1})\n    {[]: 1}", None),
        (">>> print(1, 2)\n    1 2", None),
    ],
)
def test_assertions_are_the_doctests_that_state_a_value(example: str, assertion: str | None) -> None:
    text = f"def f(x):\n    '''\n    {example}\n    '''\n    return x"
    assert only(text).assertions == ((assertion,) if assertion else ())


def test_one_line_of_several_imports_is_always_written_in_one_order() -> None:
    text = "import re; import os; import sys\ndef f():\n    '''\n    >>> f()\n    '''\n    return 0 and (sys, os, re)"
    assert only(text).source.startswith("import re\nimport os\nimport sys\n")


def test_texts_that_hold_no_functions_with_doctests() -> None:
    for text in [
        "",
        ">>> x",
        "def f():\n    '''No test.'''",
        "class C:\n    def f(self):\n        '''\n        >>> 1\n        '''",
    ]:
        assert list(snippets(text, 60)) == []
    assert list(snippets("x = " + "(" * 10_000 + ">>> ", 60)) == []


def test_bad_configurations() -> None:
    for field in ("max_lines", "cpu_seconds"):
        with pytest.raises(ValueError, match=f"{field}=0: must be 1 or more"):
            DoctestConfig(**{field: 0})
