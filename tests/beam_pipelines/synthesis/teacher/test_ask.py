"""Asking a teacher who misbehaves in every way: all seeds come to an end, nothing is paid twice, the funnel adds up."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.synthesis.teacher import ask
from opencoder_jax.beam_pipelines.synthesis.teacher.ask import AskConfig
from opencoder_jax.beam_pipelines.synthesis.teacher.teacher import TeacherConfig
from opencoder_jax.clients import openai_client
from opencoder_jax.clients.recorded_answers import FILE, RecordedAnswers
from opencoder_jax.recipe import UserError
from tests.stub_teacher import KINDS, StubTeacher, seed_text

MakeStage = Callable[..., str]
Batch = Callable[..., Any]
ENDS = {  # of a seed of each kind; "cut at times" is either
    "cut": "answer is cut",
    "empty": "answer is empty",
    "always fails": "no answer",
    "refused": "refused",
    "malformed": "no section Test",
}


@pytest.fixture
def stub() -> Iterator[StubTeacher]:
    stub = StubTeacher()
    yield stub
    stub.close()


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_client, "_pause", lambda *_: 0.0)


@pytest.fixture
def seeds(tmp_path: Path, batch: Batch, stage_directory: MakeStage) -> Callable[[int], str]:
    def make(count: int) -> str:
        parts = [[seed_text(number) for number in range(first, count, 2)] for first in (0, 1)]
        names = [[f"{number}.py" for number in range(first, count, 2)] for first in (0, 1)]
        shards = [
            [batch(*({"text": text, "path": path} for text, path in zip(texts, paths, strict=True)))]
            for texts, paths in zip(parts, names, strict=True)
        ]
        return stage_directory(tmp_path / "seeds", shards)

    return make


def rows(output: Path, table: str) -> list[dict[str, Any]]:
    return [row for file in sorted(output.glob(f"{table}-*")) for row in pq.read_table(file).to_pylist()]


def number_of(row: dict[str, Any]) -> int:
    return int(row["path"].split(".")[0])


def check_ends(output: Path, manifest: Manifest, count: int) -> None:
    kept = {number_of(row): json.loads(row["text"]) for row in rows(output, "documents")}
    lost = {number_of(row): row["reason"] for row in rows(output, "drops")}
    assert kept.keys() | lost.keys() == set(range(count))
    assert not kept.keys() & lost.keys()
    for number, kind in ((number, KINDS[number % len(KINDS)]) for number in range(count)):
        if kind != "cut at times":
            assert lost.get(number) == ENDS.get(kind), kind
        if number in kept:
            assert len(kept[number]["solutions"]) == 2
            assert kept[number]["tests"].count("assert") == 4
    reasons = Counter(lost.values())
    assert manifest.table("drop", "documents") == dict(reasons)
    assert manifest.total("out", "documents") == len(kept)
    counts = manifest.tally["count"]
    # Every answer was good, cut or empty, and was recorded; those that didn't come cost nothing.
    answers = sum(counts[f"answers: {what}"] for what in ("good", "answer is cut", "answer is empty"))
    assert counts["tokens: read"] == 100 * answers
    assert counts["tokens: written"] == 10 * answers
    assert counts["answers: answer is empty"] == 3 * reasons["answer is empty"]
    assert counts["answers: refused"] == reasons["refused"]
    assert counts["answers: none"] == reasons["no answer"]
    assert counts["answers: good"] == 2 * len(kept) + reasons["no section Test"]


def run(seeds: str, folder: Path, url: str, output: str = "asked", **fields: Any) -> Manifest:
    config = TeacherConfig(server=url, model="stub", at_once=8, **fields)
    settings = AskConfig(solutions=2)
    return ask.run(seeds, str(folder / "answers"), str(folder / output), settings, config, BeamOptions())


def test_every_trouble_ends_and_the_funnel_adds_up(
    stub: StubTeacher, seeds: Callable[[int], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 3 * len(KINDS)
    given = seeds(count)
    check_ends(tmp_path / "asked", run(given, tmp_path, stub.url, price_read=2.0, price_written=8.0), count)
    assert max(stub.answered.values()) == 1
    assert f"paid now: {stub.answered.total():,} requests" in capsys.readouterr().err
    # All of it again, from the record alone; what no server answered is asked about again.
    stub.recorded = set(stub.answered)
    first, asked = (tmp_path / "asked" / "documents-00000-of-00002.parquet").read_bytes(), stub.requests
    run(given, tmp_path, stub.url, "again")
    assert (tmp_path / "again" / "documents-00000-of-00002.parquet").read_bytes() == first
    assert stub.repeated == []
    assert stub.requests - asked == count / len(KINDS) * 7  # six times where it always fails, once where it refuses


def test_a_wrong_key_stops_at_once_and_nothing_is_lost(
    stub: StubTeacher, seeds: Callable[[int], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.kinds = ("good",)
    reply = stub.reply
    monkeypatch.setattr(stub, "reply", lambda *given: reply(*given) if stub.requests < 40 else (401, b"expired"))
    given = seeds(150)
    with pytest.raises(UserError, match="401 expired"):
        run(given, tmp_path, stub.url)
    asked = stub.answered.total()
    assert 40 <= asked < 60
    with RecordedAnswers(tmp_path / "answers") as record:
        assert len(record) == asked
    monkeypatch.undo()
    monkeypatch.setattr(openai_client, "_pause", lambda *_: 0.0)
    assert run(given, tmp_path, stub.url).total("out", "documents") == 150
    assert max(stub.answered.values()) == 1


def test_a_server_that_answers_nothing_ends_the_run(
    stub: StubTeacher, seeds: Callable[[int], str], tmp_path: Path
) -> None:
    stub.kinds = ("always fails",)
    with pytest.raises(UserError, match="20 requests in a row got no answer"):
        run(seeds(100), tmp_path, stub.url)


@pytest.mark.parametrize("budget", [{"most_tokens": 1100}, {"most_cost": 0.11, "price_read": 1000.0}])
def test_a_budget_is_kept(
    stub: StubTeacher, seeds: Callable[[int], str], tmp_path: Path, budget: dict[str, Any]
) -> None:
    stub.kinds = ("good",)
    given = seeds(60)
    with pytest.raises(UserError, match="the budget is spent"):
        run(given, tmp_path, stub.url, **budget)
    assert stub.requests <= 10 + 8 + 2  # and what was on its way
    with pytest.raises(UserError, match="the budget is spent"):  # what was paid before counts
        run(given, tmp_path, stub.url, **budget)
    assert stub.requests <= 10 + 8 + 2


def test_most_seeds_are_each_shards_first(stub: StubTeacher, seeds: Callable[[int], str], tmp_path: Path) -> None:
    stub.kinds = ("good",)
    config = TeacherConfig(server=stub.url, model="stub")
    settings = AskConfig(solutions=1, most_seeds=5)
    made = ask.run(seeds(20), str(tmp_path / "answers"), str(tmp_path / "out"), settings, config, BeamOptions())
    assert {number_of(row) for row in rows(tmp_path / "out", "documents")} == {0, 2, 4, 1, 3}
    assert made.table("drop", "documents") == {"not asked about": 15}


def test_without_a_server_only_the_record_is_read(seeds: Callable[[int], str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no answer"):
        run(seeds(2), tmp_path, "")
    with pytest.raises(ValueError, match="name the teacher"):
        TeacherConfig()


# ------------------------------------------------------------------------------------------------------------- kills

# Asks without the stage, whose imports take seconds.
QUICK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from opencoder_jax.clients import openai_client
from opencoder_jax.clients.recorded_answers import RecordedAnswers
from opencoder_jax.beam_pipelines.synthesis.teacher.teacher import NoAnswerError, Teacher, TeacherConfig
openai_client._pause = lambda *_: 0.0
with RecordedAnswers(Path(sys.argv[1])) as record, ThreadPoolExecutor(8) as threads:
    teacher = Teacher(TeacherConfig(server=sys.argv[2], model="stub"), record)
    def ask(number):
        try:
            return teacher.ask([{"role": "user", "content": f"seed_{number}"}], str(number))
        except NoAnswerError:
            return ""
    assert len(list(threads.map(ask, range(int(sys.argv[3]))))) == int(sys.argv[3])
"""
STAGE = """
import sys
from opencoder_jax.clients import openai_client
from opencoder_jax.beam_pipelines.__main__ import main
openai_client._pause = lambda *_: 0.0
main(sys.argv[1:])
"""


def recorded(folder: Path) -> int:
    """The whole lines of the record: what a killed process has left for the next one."""
    file = folder / FILE
    return file.read_bytes().count(b"\n") if file.exists() else 0


def killed(stub: StubTeacher, command: list[str], after: int) -> bool:
    """Starts it and kills it once the server had `after` more requests; False where it ended before."""
    until = stub.requests + after
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with stub.more:
        while stub.requests < until and process.poll() is None:
            stub.more.wait(0.05)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def forbid_what_is_recorded(stub: StubTeacher, folder: Path) -> None:
    """From now on, whoever asks for what stands in the record pays twice."""
    with RecordedAnswers(folder) as record:
        for line in record.all():
            stub.recorded.add(line["key"])


def by_content(stub: StubTeacher) -> None:
    """Has the server tell requests apart as the record does, instead of by their header."""
    from opencoder_jax.clients.recorded_answers import request_key

    reply = stub.reply
    stub.reply = lambda body, key: reply(body, request_key("chat/completions", body))  # type: ignore[method-assign]


def test_a_killed_teacher_pays_nothing_twice(stub: StubTeacher, tmp_path: Path) -> None:
    by_content(stub)
    command = [sys.executable, "-c", QUICK, str(tmp_path), stub.url, "104"]
    for after in (3, 40):
        assert killed(stub, command, after)
        forbid_what_is_recorded(stub, tmp_path)
    subprocess.run(command, check=True)
    assert stub.recorded
    assert stub.repeated == []
    assert recorded(tmp_path) == len(stub.answered)
    # What was on its way when a kill came can't be known to have been answered.
    assert stub.answered.total() - len(stub.answered) <= 2 * 8


@pytest.mark.slow
def test_2000_seeds_and_20_kills(stub: StubTeacher, seeds: Callable[[int], str], tmp_path: Path) -> None:
    by_content(stub)
    count, kills, rng = 2000, 20, random.Random(0)
    given, answers, output = seeds(count), tmp_path / "answers", tmp_path / "asked"
    arguments = ["ask", f"--documents={given}", f"--answers={answers}", f"--output={output}"]
    arguments += [f"--gin.TeacherConfig.server={stub.url}", "--gin.TeacherConfig.model=stub"]
    arguments += ["--gin.TeacherConfig.at_once=8", "--gin.AskConfig.solutions=2"]
    command = [sys.executable, "-c", STAGE, *arguments]
    for _ in range(kills):
        assert killed(stub, command, rng.randrange(1, 250))
        forbid_what_is_recorded(stub, answers)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert stub.repeated == []
    assert recorded(answers) == len(stub.answered) > 2500
    assert stub.answered.total() - len(stub.answered) <= kills * 8
    check_ends(output, Manifest.read(str(output)), count)


@pytest.mark.slow
def test_from_seeds_to_chats_by_the_commands(
    stub: StubTeacher, seeds: Callable[[int], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wrong ones that a teacher made up fall by their tests; the right ones are chats whose answers run."""
    stub.kinds = ("good", "wrong", "busy")
    given, asked, kept = seeds(6), tmp_path / "asked", tmp_path / "kept"
    recipe = "--gin_file=gin_configs/data/educational_instruct.gin"
    teacher = [
        f"--gin.TeacherConfig.server={stub.url}",
        "--gin.TeacherConfig.model=stub",
        "--gin.AskConfig.solutions=2",
    ]
    places = [f"--documents={given}", f"--answers={tmp_path / 'answers'}", f"--output={asked}"]
    main(["ask", recipe, *places, *teacher])
    main(["validate", recipe, f"--asked={asked}", f"--output={kept}"])
    found = rows(kept, "documents")
    assert {number_of(row) for row in found} == {2, 3, 5}
    # Who adds nothing at all gives the argument back, as a function without a body of its own does.
    told = {number_of(row): row["reason"] for row in rows(kept, "drops")}
    assert told == {0: "tests can't fail", 1: "fails its tests", 4: "fails its tests"}
    for row in found:
        question, answer = json.loads(row["text"])
        assert f"add_{number_of(row)}" in question["content"]
        exec(answer["content"].split("```python\n")[1].split("```")[0], {})
    assert "dropped: fails its tests 2" in capsys.readouterr().out
