"""Keeps of a teacher's answers what running them bears out; what falls is counted with its reason.

An exercise is kept when enough of its solutions pass its tests, twice and more, and its tests could fail
(execution/verdicts.py). Where they notice too few wrong versions of the solution, assertions are added on whose values
all passing solutions agree. A problem about a package is kept when its program runs to its end, twice, and calls the
function in a way that its signature takes. What is kept becomes a chat, or a snippet: the program with its tests, as
OpenCoder's annealing data has them (section 2.2).

Cost: about 0.5 s of one core an exercise, 20 to 30 programs in the sandbox.
"""

import ast
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, document_id
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.synthesis.execution.programs import Unfit, parsed
from opencoder_jax.beam_pipelines.synthesis.execution.verdicts import Jury, VerdictConfig
from opencoder_jax.beam_pipelines.synthesis.teacher.conversations import Record
from opencoder_jax.checks import check, one_of
from opencoder_jax.recipe import UserError, configurable
from opencoder_jax.sandbox.program import Program

_PLACEHOLDERS = ("todo", "your code here", "implement this", "notimplementederror")


@configurable
@dataclass(frozen=True)
class ValidateConfig:
    """What becomes of an item that is kept.

    Attributes:
        form: "chats", for tuning; or "snippets" with their tests, for annealing.
    """

    form: str = "chats"

    def __post_init__(self) -> None:
        check(self, form=one_of("chats", "snippets"))


@dataclass(frozen=True)
class ValidatedConfig:
    """Both configurations, as the stage's manifest has them."""

    form: str
    verdict: VerdictConfig


class Fit(NamedTuple):
    """An item that is kept.

    Attributes:
        answer: what the assistant says to the task.
        program: the code of it.
        tests: that the program passes.
        counts: what is counted beside it.
    """

    answer: str
    program: str
    tests: str
    counts: dict[str, int]


class Unkept(NamedTuple):
    """Why an item isn't kept, and what shows it."""

    reason: str
    detail: str = ""


def educational(record: Record, jury: Jury) -> Fit | Unkept:
    """An exercise: its solutions agree by its tests, and these could fail."""
    if any(word in record["solutions"][0].lower() for word in _PLACEHOLDERS):
        return Unkept("placeholder", record["solutions"][0][:300])
    found = jury.verdict(record["solutions"], record["tests"])
    if found.reason:
        return Unkept(found.reason, found.detail)
    solution = record["solutions"][found.solution].strip()
    tests = "\n".join([record["tests"].strip(), *found.added])
    counts = {
        "solutions: all": len(record["solutions"]),
        "solutions: pass": found.agreeing,
        "mutants: all": found.mutants,
        "mutants: killed": found.killed,
        "tests: added": len(found.added),
    }
    # The analysis is about the first solution.
    analysis = f"{record['analysis']}\n\n" if found.solution == 0 and "```" not in record["analysis"] else ""
    return Fit(f"{analysis}```python\n{solution}\n```", solution, tests, counts)


def package(record: Record, jury: Jury) -> Fit | Unkept:
    """A problem about a package: its program runs, and calls the function as its signature says."""
    source, api = record["solutions"][0], record["api"]
    try:
        problem = misuse(source, api)
    except Unfit as reason:
        return Unkept(str(reason))
    if problem:
        return Unkept(problem, source[:300])
    for seed in (0, 1):
        outcome = jury.run(Program(source), seed)
        if outcome.status != "ok":
            ended = f"raises {outcome.error}" if outcome.status == "exception" else f"ended by {outcome.status}"
            return Unkept("flaky" if seed else ended, outcome.stderr.strip()[-300:])
    return Fit(record["answer"].strip(), source.strip(), "", {"api calls": len(api_calls(source, api["name"]))})


def misuse(source: str, api: Mapping[str, Any]) -> str:
    """What is wrong with how a program uses a function; "" where nothing is seen. Raises Unfit for no Python."""
    calls = api_calls(source, api["name"])
    if not calls:
        return "never calls the function"
    names, least, most, keywords = api["accepts"]
    for call in calls:
        if any(isinstance(argument, ast.Starred) for argument in call.args) or any(
            keyword.arg is None for keyword in call.keywords
        ):
            continue
        given = {keyword.arg for keyword in call.keywords}
        if most is not None and len(call.args) > most:
            return "gives more arguments than the function takes"
        if not keywords and given - set(names):
            return "gives an argument that the function doesn't have"
        if len(call.args) + len(given) < least:
            return "gives fewer arguments than the function needs"
    return ""


def api_calls(source: str, name: str) -> list[ast.Call]:
    """The calls of `package.module.function` in a program, by whatever names it imports it."""
    module = parsed(source, "solution")
    known: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            known |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    last, package = name.rsplit(".", 1)[-1], name.split(".")[0]
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            head, _, rest = ast.unparse(node.func).partition(".")
            path = f"{known.get(head, '')}.{rest}".rstrip(".")
            # A function may be reached by a shorter way than it's documented under: numpy.linalg.norm, numpy.norm.
            if path.split(".")[0] == package and path.rsplit(".", 1)[-1] == last:
                found.append(node)
    return found


# By pipeline.
CHECKS: dict[str, Callable[[Record, Jury], Fit | Unkept]] = {"educational": educational, "package": package}


@dataclass(frozen=True)
class Validate:
    """The kernel: a teacher's answers -> chats, whose texts are lists of messages, or snippets."""

    config: ValidatedConfig
    makes_documents: ClassVar[bool] = True

    def __call__(self, documents: pa.RecordBatch) -> Result:
        rows: list[dict[str, Any]] = []
        drops: list[Drop] = []
        counts: Counter[str] = Counter()
        with Jury(self.config.verdict) as jury:
            for row, document in enumerate(documents.to_pylist()):
                record = json.loads(document["text"])
                if record["pipeline"] not in CHECKS:
                    raise UserError(f"answers of {record['pipeline']} can't be run; the stage `grades` reads grades")
                found = CHECKS[record["pipeline"]](record, jury)
                if isinstance(found, Unkept):
                    drops.append(Drop(row, found.reason, found.detail))
                    continue
                counts.update(found.counts)
                rows.append(_document(document, record, found, self.config.form))
        return Result(pa.RecordBatch.from_pylist(rows, schema=SCHEMA), drops, counts)


def _document(asked: dict[str, Any], record: Record, found: Fit, form: str) -> dict[str, Any]:
    said = ({"role": "user", "content": record["task"]}, {"role": "assistant", "content": found.answer})
    snippet = f"{found.program}\n\n\n{found.tests}".strip() + "\n"
    text, kind = (json.dumps(said), "chat") if form == "chats" else (snippet, "synthetic")
    path = f"{asked['path']}/{kind}"
    change = {"id": document_id(asked["repository"], path), "path": path, "text": text, "kind": kind}
    return asked | change | {"bytes": len(text.encode("utf-8", "surrogatepass"))}


def run(asked: str, output: str, validate: ValidateConfig, verdict: VerdictConfig, options: BeamOptions) -> Manifest:
    """Writes a chat, or a snippet, of each of a teacher's answers that running it bears out.

    Args:
        asked: what the stage `ask` wrote.
    """
    config = ValidatedConfig(validate.form, verdict)
    return map_stage("validate", Validate(config), [asked], output, config, options, megabytes_per_second=0.02)
