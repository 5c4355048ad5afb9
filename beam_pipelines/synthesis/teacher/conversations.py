"""What a teacher is asked about a seed, pipeline by pipeline, and what comes of it: a record for `validate`."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opencoder_jax.beam_pipelines.synthesis.teacher.prompts import code, sections, template
from opencoder_jax.beam_pipelines.synthesis.teacher.teacher import Ask, NoAnswerError

HIGHEST = 10  # grade of a page
_PAGE = 4000  # characters of a page that are graded

Row = Mapping[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Talk:
    """One seed's: what was learnt of it.

    Attributes:
        ask: the teacher's.
        seed: a document.
        solutions: how many are wanted of a task.
        subject: what pages are graded for.
    """

    ask: Ask
    seed: Row
    solutions: int
    subject: str = ""

    def asked(self, prompt: str, values: Mapping[str, str], number: int = 0) -> str:
        return self.ask(template(prompt).filled(**values), f"{self.seed['id']}/{prompt}/{number}")

    def sections(self, prompt: str, values: Mapping[str, str]) -> dict[str, str]:
        """Raises NoAnswerError where one is missing."""
        found = sections(self.asked(prompt, values), template(prompt).sections)
        if isinstance(found, str):
            raise NoAnswerError(f"no section {found}")
        return found


def educational(talk: Talk) -> Record:
    """A snippet -> an exercise with tests, and several solutions: all but the first know the task alone."""
    found = talk.sections("educational", {"text": talk.seed["text"].strip()})
    solutions = [code(found["Solution"])]
    for number in range(1, talk.solutions):
        try:
            solutions.append(code(talk.asked("solution", {"task": found["Task"]}, number)))
        except NoAnswerError:
            continue  # fewer solutions then; whether they suffice is for `validate` to say
    return {"task": found["Task"], "analysis": found["Analysis"], "solutions": solutions, "tests": code(found["Test"])}


def package(talk: Talk) -> Record:
    """A function's signature and documentation -> a problem that it solves, and a program that calls it."""
    about = json.loads(talk.seed["text"])
    text = f"{about['name']}{about['signature']}\n\n{about['documentation']}"
    given = {key: about[key] for key in ("name", "package", "version")}
    found = talk.sections("package", {"text": text.strip(), **given})
    answer = found["Solution"]
    return {"task": found["Problem Description"], "answer": answer, "solutions": [code(answer)], "api": about}


def pages(talk: Talk) -> Record:
    """The beginning of a page -> its grade, 0 to 10. What is in the page is no instruction: only a number counts."""
    given = {"subject": talk.subject, "url": talk.seed["url"], "text": talk.seed["text"][:_PAGE].strip()}
    told = talk.sections("grade", given)["Grade"]
    found = re.fullmatch(rf"(\d+)(?:\s*/\s*{HIGHEST})?\.?", told)
    if found is None or int(found[1]) > HIGHEST:
        raise NoAnswerError(f"no grade from 0 to {HIGHEST}")
    return {"grade": int(found[1])}


CONVERSATIONS: dict[str, Callable[[Talk], Record]] = {"educational": educational, "package": package, "pages": pages}
