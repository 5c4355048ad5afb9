"""Prompts as files, and how an answer is read: its headed sections, and the code in its fences."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
# Named so that an output knows by which prompts it was made.
FILES = {
    "educational": "prompts/educational.toml",
    "solution": "prompts/solution.toml",
    "package": "prompts/package.toml",
    "grade": "prompts/grade.toml",
}
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class PromptTemplate:
    """What is asked, with `{names}` of what is filled in, and the headings that its answer must have."""

    prompt: str
    sections: tuple[str, ...]

    def filled(self, **values: str) -> list[dict[str, str]]:
        """The messages. What is filled in may hold braces; it's put in once and not looked at again."""
        text = re.sub(r"\{(\w+)\}", lambda found: values[found[1]], self.prompt)
        return [{"role": "user", "content": text.strip() + "\n"}]


@cache
def template(name: str) -> PromptTemplate:
    """A prompt by its name in FILES."""
    content = tomllib.loads((_FOLDER / FILES[name]).read_text(encoding="utf-8"))
    return PromptTemplate(content["prompt"], tuple(content["sections"]))


def sections(answer: str, names: Sequence[str]) -> dict[str, str] | str:
    """The text under each heading, which is a line of its own such as `[Task]`, `**[Task]**` or `## Task`.

    A line in a fence is no heading. Where a heading comes twice, the first counts.

    Returns:
        The sections; or the name of the first that is missing or empty.
    """
    fenced = [found.span() for found in _FENCE.finditer(answer)]
    heading = re.compile(rf"^[ \t#*]*\[?({'|'.join(map(re.escape, names))})\]?[ \t*]*:?[ \t*]*$", re.MULTILINE | re.I)
    marks = [
        found
        for found in heading.finditer(answer)
        if not any(start <= found.start() < end for start, end in fenced)
        # A word alone on a line is no heading without a sign of one.
        and re.search(r"[\[#*:]", found[0])
    ]
    told: dict[str, str] = {}
    known = {name.lower(): name for name in names}
    for number, mark in enumerate(marks):
        end = marks[number + 1].start() if number + 1 < len(marks) else len(answer)
        told.setdefault(known[mark[1].lower()], answer[mark.end() : end].strip())
    return next((name for name in names if not told.get(name)), told)


def code(text: str) -> str:
    """The Python code of a text: of its fences, one below the other, or the whole text where it has none."""
    found = [
        content for _, language, content in _FENCE.findall(text) if language.lower() in ("", "python", "py", "python3")
    ]
    return "\n".join(part.rstrip("\n") for part in found) + "\n" if found else text.strip() + "\n"
