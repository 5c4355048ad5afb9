"""What texts and programs look like elsewhere: other typography, other wrappings. They say the same."""

import html
import json
from collections.abc import Callable, Mapping


def _full_width(text: str) -> str:
    return "".join(
        chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else "\u3000" if each == " " else each for each in text
    )


def _lines(before: str, after: str, between: str = "\n") -> Callable[[str], str]:
    """Each line as a literal of its own."""
    return lambda text: between.join(before + json.dumps(line)[1:-1] + after for line in text.splitlines(keepends=True))


def _numbered(form: str) -> Callable[[str], str]:
    return lambda text: "\n".join(form.format(number, line) for number, line in enumerate(text.splitlines(), 1))


def _notebook(text: str) -> str:
    return json.dumps({"cells": [{"cell_type": "code", "source": text.splitlines(keepends=True)}]}, indent=1)


_SUM, _NEIGHBOURS = _lines('"', '"', " +\n"), _lines('"', '"')

PROSE: Mapping[str, Callable[[str], str]] = {
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "thin spaces": lambda text: text.replace(" ", "\u2009"),
    "full width": _full_width,
    "zero width": lambda text: "\u200b".join(text),
    "soft hyphens": lambda text: text.replace("e", "e\u00ad"),
    "entities": lambda text: html.escape(text).replace(" ", "&nbsp;"),
    "all entities": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "tags": lambda text: f"<p>{html.escape(text).replace(' the ', ' <b>the</b> ')}</p>",
    "json": lambda text: json.dumps({"text": text.replace(" ", "\n")}),
    "json twice": lambda text: json.dumps(json.dumps({"text": text.replace(" ", "\n")})),
    "curly quotes": lambda text: "“" + text.replace(" ", "” “") + "”",
}

CODE: Mapping[str, Callable[[str], str]] = {
    "json": lambda code: json.dumps({"content": code}),
    "json twice": lambda code: json.dumps({"row": json.dumps({"content": code})}),
    "entities": html.escape,
    "no-break spaces": lambda code: code.replace(" ", "\u00a0"),
    "line numbers": _numbered("{:4d}  {}"),
    "line numbers |": _numbered("{:4d} | {}"),
    "line numbers :": _numbered("{}: {}"),
    "notebook": _notebook,
    "Python's literal": lambda code: f"CODE = {code!r}\n",
    "Python's long literal": lambda code: f'CODE = """{code}"""\n' if '"""' not in code else f"CODE = {code!r}\n",
    "Java's literal": lambda code: "String s = " + _SUM(code) + ";",
    "C++'s literal": lambda code: "const char* s =\n" + _NEIGHBOURS(code) + ";",
    "JavaScript's literal": lambda code: f"const s = `{code}`;",
    "Go's literal": lambda code: "s := " + _SUM(code),
}
