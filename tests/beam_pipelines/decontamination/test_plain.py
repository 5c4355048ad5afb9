"""However a problem is typed and wrapped, it's read as what it is; and its place in the document is told."""

import html
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.decontamination.leaks import Decontaminate, DecontaminateConfig
from opencoder_jax.beam_pipelines.decontamination.plain import (
    _BORDER,
    _line_numbers,
    _may_border,
    _may_count,
    origins,
    plain,
)
from tests.beam_pipelines.decontamination.disguises import CODE, PROSE
from tests.beam_pipelines.decontamination.planting import renamed

ASKED = "Given the heights of lighthouses along a coast, return how many ships see at least three lamps in the fog."
ASKED_IN_CHINESE = (
    "给定一排灯塔的高度和船只的位置,请计算在大雾遮住每隔一座灯塔的情况下,还有多少艘船能够看到至少三盏灯。"
)
SOLUTION = '''def lamps_in_fog(heights, ships):
    """Counts ships."""
    seen = 0
    for ship in ships:
        count = 0
        for place, height in enumerate(heights):
            if place % 2 == 0 and height > ship:
                count += 1
        if count >= 3:
            seen += 1
        print("so many\\n", "ship's")
    return seen
'''


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Decontaminate:
    file = tmp_path_factory.mktemp("benchmark") / "problems.jsonl"
    rows = [
        {"task_id": "english", "text": ASKED},
        {"task_id": "chinese", "text": ASKED_IN_CHINESE},
        {"task_id": "code", "code": SOLUTION},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    config = DecontaminateConfig(benchmarks=(str(file),))
    return Decontaminate(config, config.read())


@pytest.mark.parametrize("name", PROSE)
def test_what_is_asked_is_found_however_it_is_typed(name: str, kernel: Decontaminate) -> None:
    disguise: Callable[[str], str] = PROSE[name]
    for number, asked in enumerate((ASKED, ASKED_IN_CHINESE)):
        text = f"# Exercise\n\n{disguise(asked)}\n\nGood luck!\n"
        ((_, leaks),) = kernel.leaks([text])
        assert [leak.problem for leak in leaks] == [number]
        assert 0.8 < (leaks[0].stop - leaks[0].start) / len(disguise(asked)) < 1.1
    assert (
        list(kernel.leaks([disguise("Given the lengths of all rivers, return how many boats see two bridges.")])) == []
    )


@pytest.mark.parametrize("name", CODE)
def test_a_renamed_solution_is_found_whatever_it_is_wrapped_in(name: str, kernel: Decontaminate) -> None:
    text = CODE[name](renamed(SOLUTION, 1))
    ((_, leaks),) = kernel.leaks([f"x = 1\n{text}\ny = 2\n"])
    assert {(leak.rule, leak.problem) for leak in leaks} >= {("solution", 2)}


def test_a_few_characters_in_common_say_nothing(kernel: Decontaminate) -> None:
    assert list(kernel.leaks(["给定一排灯塔的高度和船只,请写诗。", "还有多少艘船能够回港"])) == []


def test_numbers_that_are_no_line_numbers_stay() -> None:
    for text in ("1 a\n3 b\n5 c", "1.5\n2.5\n3.5", "x\n1 y\nz", "10, 20\n11, 20\n12, 20\n"):
        assert plain(text) == text
    assert plain("  8 | a\n  9 | b\n 10 |\n 11 | 7 d") == " a\n b\n\n 7 d"


@given(st.text(alphabet="ab \n\\nu0041x\"'+&lt;amp12中ａ\u200b\u0301<p>", max_size=60))
def test_any_text_is_read_and_every_place_is_in_it(text: str) -> None:
    read = plain(text)
    places = origins(text, *range(len(read) + 1))
    assert list(places) == sorted(places)
    assert not places or 0 <= places[0] <= places[-1] <= len(text)
    assert plain(html.escape("a\u00a0b")) == "a b"


@given(st.text(alphabet="ab1２ \n\t\"'+,[(.|中\u00a0\x0b", max_size=40))
def test_a_quick_look_overlooks_nothing(text: str) -> None:
    data = np.frombuffer(text.encode(), np.uint8)
    assert _may_border(data) or not _BORDER.search(text)
    assert _may_count(data) or not _line_numbers(text)
