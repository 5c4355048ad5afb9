"""Jupyter notebooks as text: the cells of a notebook as triplets of prose, code and output.

OpenCoder's paper keeps StarCoder's structured form of notebooks and drops the form of scripts. Each run of cells of one
type is one part, after its marker: `<jupyter_text>`, `<jupyter_code>`, `<jupyter_output>`. Only plain text of outputs
is kept: pictures, HTML and widgets are bulk, and tracebacks repeat the code around colour codes. Format 4 is read, and
the older ones: 3 and 2 with their worksheets, and 1.
"""

import json
from collections.abc import Iterator
from typing import Any

LANGUAGE = "Jupyter Notebook"

TEXT, CODE, OUTPUT = "<jupyter_text>", "<jupyter_code>", "<jupyter_output>"


class BrokenNotebook(ValueError):
    """A file that is called a notebook but isn't one; the message says what is wrong."""


def structured(text: str, passed: list[str] | None = None) -> str:
    """The triplets of a notebook's JSON; the empty string if its cells are all empty.

    Args:
        passed: gets the type of each cell that holds no text that is known here.

    Raises:
        BrokenNotebook: not JSON, or without cells.
    """
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenNotebook(f"not JSON: {error}") from None
    parts: list[tuple[str, str]] = []
    for marker, content in _parts(notebook, [] if passed is None else passed):
        content = content.strip("\n")
        if not content.strip():
            continue
        if parts and parts[-1][0] == marker:
            parts[-1] = (marker, f"{parts[-1][1]}\n{content}")
        else:
            parts.append((marker, content))
    return "".join(f"{marker}{content}\n" for marker, content in parts)


def _parts(notebook: Any, passed: list[str]) -> Iterator[tuple[str, str]]:
    for cell in _cells(notebook):
        kind = cell.get("cell_type")
        # Formats 3 and 2 call a code cell's text input, format 1 code, and a text cell's text.
        source = _joined(next((cell[name] for name in ("source", "input", "code", "text") if name in cell), None))
        if kind == "code":
            yield CODE, source
            outputs = cell.get("outputs")
            for output in _dictionaries([] if outputs is None else outputs, "outputs"):
                yield OUTPUT, _output(output)
        elif kind == "heading":  # format 3
            level = cell.get("level", 1)
            yield TEXT, "#" * (level if level in range(1, 7) else 1) + " " + source
        elif source.strip():  # markdown, raw, html, text, and what writers make up
            yield TEXT, source
        elif kind not in ("markdown", "raw", "html", "text"):
            passed.append(str(kind))


def _cells(notebook: Any) -> list[dict[str, Any]]:
    if not isinstance(notebook, dict):
        raise BrokenNotebook("no JSON object")
    if "cells" in notebook:
        return _dictionaries(notebook["cells"], "cells")
    if "worksheets" in notebook:
        sheets = _dictionaries(notebook["worksheets"], "worksheets")
        return [cell for sheet in sheets for cell in _dictionaries(sheet.get("cells") or [], "cells")]
    raise BrokenNotebook("neither cells nor worksheets")


def _output(output: dict[str, Any]) -> str:
    """Its plain text: a stream's, or that of a result in format 4 (`data`) or 3."""
    data = output.get("data")
    plain = data.get("text/plain", "") if isinstance(data, dict) else output.get("text", "")
    return _joined(plain) if isinstance(plain, (str, list)) else ""  # what is called text may be an object


def _dictionaries(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BrokenNotebook(f"{name} is no list of objects")
    return value


def _joined(value: Any) -> str:
    """A multi-line string, which notebooks write as one string or as a list of lines."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    if not isinstance(value, str):
        raise BrokenNotebook("a cell's source or output is no text")
    return value.encode("utf-8", "replace").decode()  # JSON may hold halves of characters
