"""Instructions without a language model: chats about functions whose doctests passed.

OpenCoder's second tuning stage rests on verified pairs of task and solution (section 3.1, Educational-Instruct). A
snippet gives up to three kinds: write the function from its description, say what it does, say what a call returns.
What the assistant says is the function's own source, its docstring, or a value that was checked by running it.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, document_id
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.synthesis.doctests import source_lines
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class InstructionsConfig:
    """How many chats a snippet gives.

    Attributes:
        max_values: questions about what a call of it returns, at most.
    """

    max_values: int = 3

    def __post_init__(self) -> None:
        check(self, max_values=at_least(0))


def chats(snippet: str, max_values: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(kind, messages) of a snippet as synthesis/doctests.py writes it; none where it would break out of its fence."""
    module = ast.parse(snippet)
    function = next(node for node in reversed(module.body) if isinstance(node, ast.FunctionDef))
    prose = description(ast.get_docstring(function) or "")
    assertions = [node for node in module.body if isinstance(node, ast.Assert)]
    code = _without_docstring(snippet, function, assertions)
    if "```" in code:
        return
    header = f"{function.name}({ast.unparse(function.args)})"
    if prose:
        task = f"Write a Python function `{header}`.\n\n{prose}"
        if assertions:
            task += "\n\nIt must satisfy:\n" + "\n".join(map(ast.unparse, assertions[:3]))
        yield "write", _chat(task, f"```python\n{code}\n```")
        yield "explain", _chat(f"What does this function do?\n\n```python\n{code}\n```", prose)
    for number, assertion in enumerate(assertions[:max_values]):
        if isinstance(assertion.test, ast.Compare):
            call, value = ast.unparse(assertion.test.left), ast.unparse(assertion.test.comparators[0])
            yield f"value{number}", _chat(f"```python\n{code}\n```\n\nWhat does `{call}` return?", f"`{value}`")


def description(docstring: str) -> str:
    """A docstring's prose up to its first doctest, directive or section; "" if there's none."""
    kept: list[str] = []
    for line in docstring.strip().splitlines():
        if re.match(r"\s*(>>>|\.\. |:\w+|Args:|Parameters$|Returns:?$|Examples?:?$|e\.g\.)", line):
            break
        kept.append(line.strip())
    paragraphs = "\n".join(kept).strip().split("\n\n")
    return paragraphs[0].strip().rstrip(":")


def _chat(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _without_docstring(snippet: str, function: ast.FunctionDef, assertions: Sequence[ast.Assert]) -> str:
    lines = source_lines(snippet)
    gone = {line for assertion in assertions for line in _lines_of(assertion)}
    docstring, *rest = function.body
    if rest and rest[0].lineno not in _lines_of(docstring):  # as it would be in `def f(): "…"; return 1`
        gone |= set(_lines_of(docstring))
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in gone).strip()


def _lines_of(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


@dataclass(frozen=True)
class WriteChats:
    """The kernel: snippets -> chats, each a document of kind "chat" whose text is a JSON list of messages."""

    config: InstructionsConfig
    makes_documents: ClassVar[bool] = True

    def __call__(self, documents: pa.RecordBatch) -> Result:
        rows: list[dict[str, Any]] = []
        drops: list[Drop] = []
        counts: dict[str, int] = {}
        for row, document in enumerate(documents.to_pylist()):
            found = list(chats(document["text"], self.config.max_values))
            if not found:
                drops.append(Drop(row, "nothing_to_ask"))
            for kind, messages in found:
                text = json.dumps(messages, ensure_ascii=False)
                path = f"{document['path']}/{kind}"
                identifier = document_id(document["repository"], path)
                change = {"id": identifier, "path": path, "text": text, "kind": "chat", "bytes": len(text.encode())}
                rows.append(document | change)
                name = f"chats: {kind.rstrip('0123456789')}"
                counts[name] = counts.get(name, 0) + 1
        return Result(pa.RecordBatch.from_pylist(rows, schema=SCHEMA), drops, counts)


def run(snippets: str, output: str, config: InstructionsConfig, options: BeamOptions) -> Manifest:
    """Writes chats about snippets.

    Args:
        snippets: functions whose doctests passed, as the stage doctests writes them.
    """
    return map_stage("instructions", WriteChats(config), [snippets], output, config, options)
