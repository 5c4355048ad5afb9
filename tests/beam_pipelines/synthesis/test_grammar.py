"""The task grammar: what is asked is true, what is held out stays out, and the same number is the same item."""

import doctest
import json
import re
from collections import Counter
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.synthesis.grammar import forms, grammar, held_out
from opencoder_jax.beam_pipelines.synthesis.grammar.grammar import GrammarConfig
from opencoder_jax.beam_pipelines.synthesis.grammar.held_out import HeldOutConfig
from opencoder_jax.beam_pipelines.synthesis.grammar.items import Item, item
from opencoder_jax.beam_pipelines.synthesis.grammar.tasks import OPERATIONS, Composition, Parameter
from opencoder_jax.beam_pipelines.synthesis.grammar.traces import trace
from opencoder_jax.benchmarks import prompts
from opencoder_jax.benchmarks.problems import OWN, Benchmark, function_problems


@pytest.fixture(scope="module")
def drawn() -> list[Item | str]:
    return [item(1, number, ()) for number in range(1200)]


@pytest.fixture(scope="module")
def made(drawn: list[Item | str]) -> list[Item]:
    return [each for each in drawn if isinstance(each, Item)]


def pairs(task: Composition) -> set[tuple[str, str]]:
    return {(f"{a.name} {a.takes}", f"{b.name} {b.takes}") for a, b in pairwise(task.parts)}


def run_module(source: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "item"}
    exec(source, space)
    return space


def test_nothing_is_asked_whose_programs_fail_or_disagree(drawn: list[Item | str]) -> None:
    reasons = Counter(each for each in drawn if isinstance(each, str))
    assert set(reasons) <= {"always the same", "changes nothing", "no program", "too large"}
    assert reasons.total() < len(drawn) / 4


def test_most_operations_are_drawn(made: list[Item]) -> None:
    """So that the tests here are about most rows."""
    used = {(each.name, each.takes) for one in made for each in one.task.parts}
    assert len(used) > 0.8 * len({(each.name, each.takes) for each in OPERATIONS})


def test_a_program_keeps_its_doctests_and_assertions(made: list[Item]) -> None:
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    for one in made[:400]:
        space = run_module(forms.program(one))  # its assertions are run
        told = space[one.name].__doc__
        runner.run(parser.get_doctest(told, space, one.name, None, None), out=lambda _: None)
    assert not runner.failures
    assert runner.tries > 200


def test_an_answer_does_what_was_asked(made: list[Item]) -> None:
    for one in made[:400]:
        asked, answered = forms.task(one)
        assert one.name in asked["content"]
        code = re.fullmatch(r"```python\n(.*)```", answered["content"], re.DOTALL)
        assert code
        function = run_module(code[1])[one.name]
        assert all(function(*example.arguments) == example.result for example in one.examples)


def test_questions_have_the_right_answers(made: list[Item]) -> None:
    """What a call returns, which call returns it, and what its lines change: all of it by running the program shown."""
    asked: Counter[str] = Counter()
    for one in made:
        question, answer = (turn["content"] for turn in forms.question(one))
        code, _, wanted = question.partition("```\n\n")
        space = run_module(code.removeprefix("```python\n")) if code.startswith("```python") else {}
        if value := re.fullmatch(r"What does `(.*)` return\?", wanted):
            assert repr(eval(value[1], space)) == answer.strip("`")
            asked["output"] += 1
        elif value := re.fullmatch(r"Name a call that returns `(.*)`\.", wanted):
            assert repr(eval(answer.strip("`"), space)) == value[1]
            asked["input"] += 1
        elif value := re.fullmatch(r"Which lines does `(.*)` run, and what do they change\?", wanted):
            lines = answer.removeprefix("```python\n").removesuffix("\n```").split("\n")
            assert lines[-1].split("  # ")[1] == repr(eval(value[1], space))
            assert all(line.split("  # ")[0] in code for line in lines)
            asked["lines"] += 1
    assert min(asked.values()) > 50
    assert len(asked) == 3


def test_a_trace_says_what_each_line_changes() -> None:
    lines = ["total = 0", "for n in numbers:", "    if n > 1:", "        total += n", "return total"]
    found = [str(ran) for ran in trace(lines, [Parameter("numbers", "numbers")], ([1, 2],))]
    assert found == [
        "total = 0  # total = 0",
        "for n in numbers:  # n = 1",
        "    if n > 1:",
        "for n in numbers:  # n = 2",
        "    if n > 1:",
        "        total += n  # total = 2",
        "for n in numbers:",
        "return total  # 2",
    ]
    given = [3, 1]
    sort = trace(["numbers.sort()", "return numbers"], [Parameter("numbers", "numbers")], (given,))
    assert sort[0].changed == {"numbers": "[1, 3]"}, "a change in place is seen"
    assert given == [3, 1]
    with pytest.raises(ZeroDivisionError):
        trace(["return 1 // n"], [Parameter("n", "int")], (0,))


def test_texts_have_no_open_places(made: list[Item]) -> None:
    for one in made:
        assert not re.search(r"[{}<>]", one.text.replace("'", "")), one.text
        assert one.text.endswith((".", "is never empty."))


def test_a_held_out_pair_is_in_no_training_item(made: list[Item]) -> None:
    """Not even inside of a longer chain."""
    held = {pair for one in made if one.task.held_out for pair in pairs(one.task)}
    trained = {pair for one in made if not one.task.held_out for pair in pairs(one.task)}
    assert all(pairs(one.task) - trained for one in made if one.task.held_out)
    assert held - trained
    share = sum(one.task.held_out for one in made) / sum(len(one.task.parts) > 1 for one in made)
    assert 0.08 < share < 0.3


def test_names_of_evaluation_are_not_taken() -> None:
    names = {problem.entry_point for problem in Benchmark.read(OWN).problems}
    found = islice(grammar.items(0, count(), False, Counter()), 300)
    assert not names & {one.name for one in found}
    one = item(3, 0, ())
    assert isinstance(one, Item)
    again = item(3, 0, (one.name,))
    assert isinstance(again, Item)
    assert again.name != one.name


def test_the_small_scope_asks_plainly_and_holds_pairs_of_its_own_out() -> None:
    counts: Counter[str] = Counter()
    trained = list(islice(grammar.items(0, count(), False, counts, "small"), 300))
    held = list(islice(grammar.items(0, count(), True, counts, "small"), 40))
    assert len({parameter.name for one in trained for parameter in one.task.parameters if parameter.type == "int"}) == 2
    for one in trained:
        asked, answered = (turn["content"] for turn in forms.task(one))
        assert asked == prompts.asked(one.head())
        assert answered == f"```python\n{one.function(one.programs[0])}```"
        lines = one.programs[0].lines
        assert len(one.task.parts) <= 2
        assert [line.startswith("result = ") for line in lines[:2]].count(True) == len(one.task.parts) - 1
        looped = one.task.parts[-1].name == "product"
        assert len(lines) == len(one.task.parts) + (3 if looped else 0), "an operation a line"
        assert lines[-1].startswith("return ")
        assert not one.task.constants
    known = {part.name for one in trained for part in one.task.parts}
    assert sum({part.name for part in one.task.parts} <= known for one in held) > 35, "known one by one"
    assert not {one.task.signature for one in trained} & {one.task.signature for one in held}


def test_the_stage_writes_the_same_items_in_every_form(tmp_path: Path) -> None:
    rows = {}
    for form in ("programs", "tasks", "tasks"):
        config = GrammarConfig(items=30, form=form, shards=2)
        place = tmp_path / f"{form}{len(rows)}"
        manifest = grammar.run(output=str(place), config=config, options=BeamOptions())
        rows[place.name] = [row for shard in sorted(place.glob("doc*")) for row in pq.read_table(shard).to_pylist()]
        assert manifest.total("out", "documents") == 30
    programs, tasks, again = rows.values()
    assert tasks == again
    assert [row["path"].split("/")[1] for row in programs] == [row["path"].split("/")[1] for row in tasks]
    assert {row["kind"] for row in programs} == {"synthetic"}
    assert all(json.loads(row["text"])[1]["role"] == "assistant" for row in tasks)
    assert len({row["id"] for row in (*programs, *tasks)}) == 60


def test_held_out_problems_are_a_benchmark_whose_references_pass(tmp_path: Path) -> None:
    held_out.run(output=str(tmp_path / "held"), config=HeldOutConfig(problems=20), options=BeamOptions())
    problems = function_problems(Benchmark.read(str(tmp_path / "held" / "problems.jsonl")))
    assert len(problems) == 20
    for problem in problems:
        space = run_module(problem.prompt + problem.solution + "\n" + problem.test)
        space["check"](space[problem.entry_point])
        assert (problem.level or 0) > 1
