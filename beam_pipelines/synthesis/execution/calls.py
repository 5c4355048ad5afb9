"""Verified items without a language model: functions of the corpus, called on made-up inputs.

A function that stands alone and touches nothing outside (functions.py) is called in the sandbox on inputs that its
parameters' annotations, defaults and names suggest. What it returns, twice and where strings hash otherwise too,
becomes assertions below it. A function that takes none of the inputs, or returns the same for all, is dropped and
counted. The stage `instructions` makes chats of these snippets as of those of `doctests`.

Cost: about 10 ms of one core a function; `python -m tests.benchmarks.executed_items` prints the rate.
"""

import ast
import json
import random
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, document_id
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.synthesis.doctests import Snippet
from opencoder_jax.beam_pipelines.synthesis.execution.functions import functions
from opencoder_jax.beam_pipelines.synthesis.execution.observing import COMMON, ObservedCall
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import configurable
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits, Program

_PRELOAD = ("json", "ast", "typing", "math", "re", "collections", "itertools", "functools", "string", "textwrap")
_POOLS: dict[str, tuple[Any, ...]] = {
    "int": (0, 1, 2, 3, 5, 7, 10, -1, 12, 100),
    "float": (0.5, 1.5, -2.0, 3.25, 0.0, 10.0),
    "bool": (True, False),
    "str": ("abc", "Hello, world", "a", "", "level", "a,b,c", "  x ", "12", "foo_bar", "A-b", "key=value", "x/y.txt"),
    "bytes": (b"abc", b"", b"\x00\xff", b"hello world"),
    "list": ([1, 2, 3], [], [3, 1, 2], ["b", "a"], [5], [1, 1, 2], ["x", "yy", ""], [[1, 2], [3]], [0.5, 2]),
    "tuple": ((1, 2), (), ("a", "b"), (3, 1, 2), (0, 0)),
    "dict": ({"a": 1}, {}, {"b": 2, "a": 1}, {"x": [1], "y": "z"}),
    "set": ({1, 2}, set(), {"a"}),
    "none": (None,),
}
_ANY = ("str", "int", "list", "float", "dict", "tuple", "bytes", "bool")
# What a parameter's annotation, or else its name, says.
_ANNOTATIONS = {
    "Sequence": "list",
    "Iterable": "list",
    "List": "list",
    "Dict": "dict",
    "Mapping": "dict",
    "Tuple": "tuple",
}
_NAMES = {
    "str": {
        "s",
        "text",
        "string",
        "name",
        "word",
        "line",
        "path",
        "url",
        "prefix",
        "suffix",
        "title",
        "key",
        "pattern",
    },
    "int": {
        "n",
        "i",
        "j",
        "k",
        "x",
        "y",
        "a",
        "b",
        "count",
        "size",
        "length",
        "num",
        "index",
        "width",
        "base",
        "number",
    },
    "float": {"ratio", "scale", "alpha", "beta", "r", "z", "t", "rate"},
    "list": {
        "l",
        "lst",
        "items",
        "values",
        "seq",
        "sequence",
        "xs",
        "data",
        "array",
        "numbers",
        "lines",
        "words",
        "parts",
    },
    "dict": {"d", "mapping", "dct", "options", "params", "kwargs", "config", "headers"},
    "bytes": {"buf", "raw", "payload"},
    "bool": {"flag", "verbose", "strict", "reverse"},
}
_TRIES = 12  # inputs of a function by what its parameters are called, and again of any kind
_MARK = f"called-{secrets.token_hex(8)} "
# Each call has a twentieth of a second: a timer ends it by what isn't an Exception.
_CALL = """
import signal as _signal
class _Late(BaseException):
    pass
def _late(*_):
    raise _Late
_signal.signal(_signal.SIGPROF, _late)
for _arguments in {inputs!r}:
    _given = _literal(_arguments)
    try:
        _signal.setitimer(_signal.ITIMER_PROF, 0.05)
        _value = {name}(*_arguments)
        _signal.setitimer(_signal.ITIMER_PROF, 0)
        # One that changes its arguments is no function of them.
        _seen.append(_literal(_value) if _literal(_arguments) == _given else None)
    except (Exception, _Late):
        _seen.append(None)
    finally:
        _signal.setitimer(_signal.ITIMER_PROF, 0)
print({mark!r} + _json.dumps(_seen), flush=True)
"""


@configurable
@dataclass(frozen=True)
class CallsConfig:
    """What is called, and what is kept of it.

    Attributes:
        max_lines: of a snippet, what the function needs included.
        least_calls: of a function, with results that aren't all equal; one that has fewer is dropped.
        most_calls: that are kept of a function.
        cpu_seconds: of all calls of one function.
        without_walls: of the sandbox, that this machine may lack though nothing else stands where they should.
    """

    max_lines: int = 60
    least_calls: int = 2
    most_calls: int = 5
    cpu_seconds: int = 2
    without_walls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self, max_lines=at_least(1), least_calls=at_least(2), cpu_seconds=at_least(1))
        check(self, most_calls=at_least(self.least_calls))


@dataclass(frozen=True)
class RunCalls:
    """The kernel: of each document the functions that return something to tell of."""

    config: CallsConfig
    makes_documents: ClassVar[bool] = True

    def __call__(self, documents: pa.RecordBatch) -> Result:
        rows: list[dict[str, Any]] = []
        counts: Counter[str] = Counter()
        found: list[tuple[dict[str, Any], Snippet]] = []
        seen: set[str] = set()
        for document in documents.to_pylist():
            if document["language"] == "Python":
                for each in functions(document["text"], 2, self.config.max_lines):
                    problem = each if isinstance(each, str) else "seen before" if each.source in seen else ""
                    if problem:
                        counts[f"left out: {problem}"] += 1
                    elif isinstance(each, Snippet):
                        seen.add(each.source)
                        found.append((document, each))
        for (document, _), each in zip(found, self._called([snippet for _, snippet in found]), strict=True):
            if isinstance(each, str):
                counts[f"calls: {each}"] += 1
            else:
                counts["calls: kept"] += 1
                counts["assertions"] += len(each.assertions)
                rows.append(_document(document, each))
        return Result(pa.RecordBatch.from_pylist(rows, schema=SCHEMA), (), counts)

    def _called(self, snippets: Sequence[Snippet]) -> Iterator[Snippet | str]:
        """Each snippet with assertions; or why it has none."""
        if not snippets:
            return
        limits = Limits(self.config.cpu_seconds, idle_seconds=2.0 * self.config.cpu_seconds, file_bytes=1)
        inputs = [made_inputs(snippet) for snippet in snippets]
        without = self.config.without_walls
        with Sandbox(limits, preload=_PRELOAD, without=without) as sandbox:
            first = _results(sandbox, list(zip(snippets, inputs, strict=True)))
        chosen = [self._chosen(given, returned) for given, returned in zip(inputs, first, strict=True)]
        again = [
            # The other way round: one that remembers earlier calls is no function of its arguments.
            (snippet, [given[at] for at in reversed(places)])
            for snippet, given, places in zip(snippets, inputs, chosen, strict=True)
            if places
        ]
        with Sandbox(limits, preload=_PRELOAD, without=without, hash_seed=1) as sandbox:
            second = iter(_results(sandbox, again))
        for snippet, given, returned, places in zip(snippets, inputs, first, chosen, strict=True):
            if not places:
                yield "takes no input" if not any(returned) else "always returns the same"
                continue
            said = [returned[at] for at in places]
            if next(second)[::-1] != said:
                yield "flaky"
                continue
            calls = (ObservedCall(snippet.name, repr(given[at]), returned[at]) for at in places)
            yield replace(snippet, assertions=tuple(call.assertion() for call in calls))

    def _chosen(self, inputs: Sequence[tuple[Any, ...]], returned: Sequence[str | None]) -> list[int]:
        """Which inputs are kept: those with results of their own first. None if there are too few."""
        told = [at for at, value in enumerate(returned) if value is not None]
        own = {value: at for at, value in reversed(list(enumerate(returned))) if value not in (None, "None")}
        if len(own) < 2 or len(told) < self.config.least_calls:
            return []
        first = sorted(own.values())[: self.config.most_calls]
        return first + [at for at in told if at not in first][: max(0, self.config.least_calls - len(first))]


def made_inputs(snippet: Snippet) -> list[tuple[Any, ...]]:
    """Arguments that a function may take, each tuple once; the same ones every time."""
    function = ast.parse(snippet.source).body[-1]
    assert isinstance(function, ast.FunctionDef)
    arguments = [*function.args.posonlyargs, *function.args.args]
    needed = arguments[: len(arguments) - len(function.args.defaults)]
    if any(default is None for default in function.args.kw_defaults):
        return []
    # Optional ones are given a few times, too.
    optional = dict(zip([each.arg for each in arguments[len(needed) :]], function.args.defaults, strict=True))
    rng = random.Random(snippet.source)
    kinds = [_kinds(argument, optional.get(argument.arg)) for argument in arguments]
    found: dict[str, tuple[Any, ...]] = {}
    for number in range(2 * _TRIES):
        if number == _TRIES:  # names may mislead
            kinds = [
                _ANY if argument.annotation is None else kind for argument, kind in zip(arguments, kinds, strict=True)
            ]
        many = len(arguments) if optional and number % 3 == 2 else len(needed)
        given = tuple(rng.choice(_POOLS[rng.choice(kind)]) for kind in kinds[:many])
        found.setdefault(repr(given), given)
    return list(found.values())


def _kinds(argument: ast.arg, default: ast.expr | None) -> tuple[str, ...]:
    """The kinds of values that a parameter may want."""
    if argument.annotation:
        words = [node.id for node in ast.walk(argument.annotation) if isinstance(node, ast.Name)]
        kinds = [_ANNOTATIONS.get(word, word) for word in words]
        if known := tuple(kind for kind in kinds[:1] if kind in _POOLS):
            return known
    if isinstance(default, ast.Constant) and type(default.value).__name__ in _POOLS:
        return (type(default.value).__name__,)
    named = tuple(kind for kind, names in _NAMES.items() if argument.arg.rstrip("0123456789") in names)
    return named or _ANY


def _results(sandbox: Sandbox, asked: Sequence[tuple[Snippet, list[tuple[Any, ...]]]]) -> list[list[str | None]]:
    """What each function returns on its inputs, as texts; None for each where it ended the program."""
    programs = [
        Program("\n".join([each.source, COMMON, _CALL.format(inputs=inputs, name=each.name, mark=_MARK)]))
        for each, inputs in asked
    ]
    found: list[list[str | None]] = [[None] * len(inputs) for _, inputs in asked]
    for number, outcome in sandbox.map(programs):
        for line in outcome.stdout.splitlines():
            if line.startswith(_MARK) and len(said := json.loads(line[len(_MARK) :])) == len(found[number]):
                found[number] = said
    return found


def _document(origin: dict[str, Any], snippet: Snippet) -> dict[str, Any]:
    path, text = f"{origin['path']}#{snippet.name}", snippet.text()
    change = {"id": document_id(origin["repository"], path), "text": text, "path": path, "kind": "synthetic"}
    return origin | change | {"source": "calls", "bytes": len(text.encode())}


def run(documents: str, output: str, config: CallsConfig, options: BeamOptions) -> Manifest:
    """Writes the functions of Python documents with what they return on made-up inputs.

    Args:
        documents: what functions are cut out of.
    """
    return map_stage("calls", RunCalls(config), [documents], output, config, options, megabytes_per_second=0.3)
