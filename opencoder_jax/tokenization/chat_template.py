"""Chats of a model made elsewhere: its own Jinja template, run in a sandbox as transformers runs it.

A template makes one text of a conversation, control tokens spelt out in it. So that a message can't open or close a
turn by spelling one, what messages spell is marked before the template runs, by a character that no message has, and
taken for plain text after. The ids of every other conversation are those of `apply_chat_template` in transformers.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from opencoder_jax.recipe import UserError

# Of Unicode's noncharacters, which no text should hold, those that stand in a row.
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, around what the assistant says: transformers' own tag."""

    tags = {"generation"}  # noqa: RUF012 -- so Jinja wants it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A template with the control tokens that it may write."""

    def __init__(self, source: str, controls: Mapping[str, int], names: Mapping[str, str], file: str) -> None:
        """Compiles it.

        Args:
            controls: the ids of the control tokens by their spellings.
            names: spellings that the template knows by a name, such as `eos_token`.
            file: what errors call the template.

        Raises:
            UserError: it isn't a Jinja template.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise UserError(f"{file}: not a template of chats: {error}") from None
        self._controls = controls
        self._names = names
        self._spelt = re.compile("|".join(map(re.escape, sorted(controls, key=len, reverse=True))) or "(?!)")

    def encode(self, messages: Sequence[Mapping[str, Any]], encode: Callable[[str], np.ndarray]) -> list[int]:
        """The ids of a conversation up to where the next answer begins; `encode` is for what isn't a control token.

        Raises:
            ValueError: the template refuses the conversation.
        """
        said = json.dumps(messages, ensure_ascii=False)
        mark = next((mark for mark in _MARKS if mark not in said), None)
        if mark is None:
            raise ValueError("the conversation holds every one of the characters U+FDD0 to U+FDEF")
        marked = [self._marked(message, mark) for message in messages]
        try:
            text = self._template.render(messages=marked, add_generation_prompt=True, **self._names)
        except (TemplateError, TypeError) as error:
            raise ValueError(f"the model's template refuses the conversation: {error}") from None
        ids: list[int] = []
        ends = [(0, 0), *(found.span() for found in self._spelt.finditer(text)), (len(text), len(text))]
        for (start, stop), (following, _) in pairwise(ends):
            if start < stop:
                ids.append(self._controls[text[start:stop]])
            ids.extend(encode(text[stop:following].replace(mark, "")).tolist())
        return ids

    def _marked(self, value: Any, mark: str) -> Any:
        """A message, with the mark inside of each control token that it spells."""
        match value:
            case str():
                return self._spelt.sub(lambda found: found[0][0] + mark + found[0][1:], value)
            case list() | tuple():
                return [self._marked(item, mark) for item in value]
            case Mapping():
                return {name: self._marked(item, mark) for name, item in value.items()}
        return value


def _to_json(value: Any, indent: int | None = None) -> str:
    """Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise TemplateError(message)
