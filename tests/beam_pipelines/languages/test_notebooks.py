"""Notebooks become triplets of prose, code and output; what isn't a notebook is a counted drop."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.languages.notebooks import BrokenNotebook, structured
from opencoder_jax.beam_pipelines.sources.collect import CollectConfig, run

FORMAT_4: dict[str, Any] = {
    "nbformat": 4,
    "cells": [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "raw", "source": "more"},
        {
            "cell_type": "code",
            "source": "x = 1\nx",
            "outputs": [
                {"output_type": "stream", "text": ["printed\n"]},
                {"output_type": "execute_result", "data": {"text/plain": "1", "image/png": "aGVsbG8="}},
                {"output_type": "error", "traceback": ["\x1b[31mTraceback"]},
            ],
        },
        {"cell_type": "code", "source": "", "outputs": []},
        {"cell_type": "code", "source": "y", "outputs": []},
    ],
}
FORMAT_3: dict[str, Any] = {
    "nbformat": 3,
    "worksheets": [
        {
            "cells": [
                {"cell_type": "heading", "level": 2, "source": "Part"},
                {"cell_type": "code", "input": ["a = 2\n", "a"], "outputs": [{"output_type": "pyout", "text": "2"}]},
            ]
        }
    ],
}


def test_cells_of_format_4() -> None:
    assert structured(json.dumps(FORMAT_4)) == (
        "<jupyter_text># Title\nwords\nmore\n<jupyter_code>x = 1\nx\n<jupyter_output>printed\n1\n<jupyter_code>y\n"
    )


def test_cells_of_format_3() -> None:
    assert structured(json.dumps(FORMAT_3)) == "<jupyter_text>## Part\n<jupyter_code>a = 2\na\n<jupyter_output>2\n"


def test_older_formats_and_what_is_null_or_unknown() -> None:
    first = {"nbformat": 1, "cells": [{"cell_type": "code", "code": "a = 1"}, {"cell_type": "text", "text": "hello"}]}
    assert structured(json.dumps(first)) == "<jupyter_code>a = 1\n<jupyter_text>hello\n"
    cells = [
        {"cell_type": "code", "source": None, "outputs": None},
        {"cell_type": "code", "source": "b", "outputs": [{"data": {"text/plain": {"x": 1}}}, {"text": None}]},
        {"cell_type": "html", "source": "<b>"},
        {"cell_type": "widget", "state": 1},
    ]
    passed: list[str] = []
    assert structured(json.dumps({"cells": cells}), passed) == "<jupyter_code>b\n<jupyter_text><b>\n"
    assert passed == ["widget"]
    assert structured(json.dumps({"worksheets": [{"cells": None}]})) == ""


def test_halves_of_characters_are_replaced() -> None:
    text = structured('{"cells": [{"cell_type": "code", "source": "s = \'\\ud800\'"}]}')
    assert text == "<jupyter_code>s = '?'\n"


@pytest.mark.parametrize(
    "broken",
    [
        *("", "{", "[]", "1", "{}", '{"cells": 1}', '{"cells": [1]}', "[" * 200_000),
        '{"cells": [{"cell_type": "code", "source": 1}]}',
        '{"cells": [{"cell_type": "code", "source": "x", "outputs": {}}]}',
    ],
)
def test_what_is_no_notebook_is_refused(broken: str) -> None:
    with pytest.raises(BrokenNotebook):
        structured(broken)


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["cells", "cell_type", "source", "outputs", "data", "worksheets"]), inner)
    ),
)


@given(_JSON)
def test_any_json_is_text_or_refused(value: Any) -> None:
    with contextlib.suppress(BrokenNotebook):
        structured(json.dumps(value)).encode()


def test_collect_reads_notebooks_and_counts_broken_ones(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "r"
    folder.mkdir(parents=True)
    (folder / "good.ipynb").write_text(json.dumps(FORMAT_4))
    (folder / "broken.ipynb").write_text("{")
    (folder / "hollow.ipynb").write_text('{"cells": []}')
    manifest = run(
        folders=[str(tmp_path / "in")],
        output=str(tmp_path / "out"),
        config=CollectConfig(shards=1),
        options=BeamOptions(),
    )
    [row] = pq.read_table(tmp_path / "out" / manifest.shards()[0]).to_pylist()
    assert (row["path"], row["language"], row["kind"]) == ("good.ipynb", "Jupyter Notebook", "code")
    assert row["text"] == structured(json.dumps(FORMAT_4))
    assert row["bytes"] == len(row["text"])
    assert manifest.table("drop")["documents"] == {"broken_notebook": 1, "empty": 1}
