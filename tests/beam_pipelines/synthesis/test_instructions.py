"""Chats about snippets: three kinds, values that were asserted, code that is Python."""

import ast
import json
import re
from collections.abc import Callable
from textwrap import dedent

import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.core.maps import Drop
from opencoder_jax.beam_pipelines.synthesis.instructions import InstructionsConfig, WriteChats, chats, description

Batch = Callable[..., pa.RecordBatch]

SNIPPET = '''import math


def helper(x):
    """Rounds down."""
    return math.floor(x)


def rounded(values, limit=10):
    """Rounds all values down, up to a limit:

    >>> rounded([1.5, 99])
    [1, 10]

    Not part of the description.
    """
    assert limit > 0
    return [min(limit, helper(value)) for value in values]


assert rounded([1.5, 99]) == [1, 10]
assert rounded([]) == []
'''

CODE = '''import math


def helper(x):
    """Rounds down."""
    return math.floor(x)


def rounded(values, limit=10):
    assert limit > 0
    return [min(limit, helper(value)) for value in values]'''


def test_a_snippet_gives_a_task_an_explanation_and_values() -> None:
    found = dict(chats(SNIPPET, max_values=3))
    assert list(found) == ["write", "explain", "value0", "value1"]
    for messages in found.values():
        assert [message["role"] for message in messages] == ["user", "assistant"]
    told = {kind: [message["content"] for message in messages] for kind, messages in found.items()}
    assert told["write"] == [
        "Write a Python function `rounded(values, limit=10)`.\n\nRounds all values down, up to a limit\n\n"
        "It must satisfy:\nassert rounded([1.5, 99]) == [1, 10]\nassert rounded([]) == []",
        f"```python\n{CODE}\n```",
    ]
    assert told["explain"] == [
        f"What does this function do?\n\n```python\n{CODE}\n```",
        "Rounds all values down, up to a limit",
    ]
    assert told["value0"] == [f"```python\n{CODE}\n```\n\nWhat does `rounded([1.5, 99])` return?", "`[1, 10]`"]
    assert told["value1"][1] == "`[]`"
    assert [kind for kind, _ in chats(SNIPPET, max_values=0)] == ["write", "explain"]


@pytest.mark.parametrize(
    "function",
    [
        'def f(x): "Says it."; return x',
        'def f(\n    x\n): "Says it."; return x',
        '@print\ndef f(x): "Says it."; return x',
        'def f(x):\n    "Says it."; return x',
        'def f(x):\n    """Says it.\n    >>> f(1)\n    1\n    """; y = x\n    return y',
        'def f(x):\n    "Says it." \\\n    ""\n    return x',
        'def f(x):\n    """Says it.\f\n    \x85 more"""\n    return x',
        'def f(x):\n    """Says it."""',
        'def f(x):\r\n    """Says it."""\r\n    return x\r\n',
        'async def g():\n    pass\n\n\ndef f(x):\n    """Says it."""\n    @print\n    def h(): ...\n    return x',
    ],
)
def test_fenced_code_is_the_function_however_it_is_laid_out(function: str) -> None:
    found = list(chats(f"{function}\n\n\nassert f(1) == 1\n", max_values=1))
    assert [kind for kind, _ in found] == ["write", "explain", "value0"]
    whole = ast.parse(function)
    for _, messages in found:
        (code,) = re.findall(r"```python\n(.*?)\n```", "".join(message["content"] for message in messages), re.DOTALL)
        module = ast.parse(code)
        for tree in (module, whole):  # equal but for the docstring, if that could go
            body = tree.body[-1].body  # type: ignore[attr-defined]
            if len(body) > 1 and isinstance(body[0], ast.Expr):
                del body[0]
        assert ast.dump(module) == ast.dump(whole)


@pytest.mark.parametrize(
    ("docstring", "prose"),
    [
        ("One.\n\nTwo.", "One."),
        ("One\n  line more:\n\n    >>> x", "One\nline more"),
        (">>> f()\n1", ""),
        ("One.\nArgs:\n  x: y", "One."),
        ("One.\n:param x: y", "One."),
        ("One.\n.. note:: x", "One."),
        ("", ""),
    ],
)
def test_descriptions(docstring: str, prose: str) -> None:
    assert description(docstring) == prose


def test_the_kernel_writes_chats_as_documents(batch: Batch) -> None:
    mute = "def f():\n    '''\n    >>> f()\n    '''\n"
    fence = dedent("""
        def f(x):
            '''Makes code.'''
            return f"```{x}```"


        assert f(1) == "```1```"
    """)
    result = WriteChats(InstructionsConfig(max_values=1))(batch(SNIPPET, mute, fence))
    assert result.drops == [Drop(1, "nothing_to_ask"), Drop(2, "nothing_to_ask")]
    assert result.counts == {"chats: write": 1, "chats: explain": 1, "chats: value": 1}
    rows = result.table.to_pylist()
    assert [row["path"] for row in rows] == ["0.py/write", "0.py/explain", "0.py/value0"]
    assert len({row["id"] for row in rows}) == 3
    assert [json.loads(row["text"]) for row in rows] == [messages for _, messages in chats(SNIPPET, 1)]
    assert all(row["kind"] == "chat" and row["bytes"] == len(row["text"].encode()) for row in rows)


def test_bad_configurations() -> None:
    with pytest.raises(ValueError, match="max_values=-1: must be 0 or more"):
        InstructionsConfig(max_values=-1)
