"""A model behind any OpenAI-compatible server is asked once for each sample, also where the server fails in between."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opencoder_jax.evaluation.evaluate import main
from opencoder_jax.recipe import UserError
from tests.scripted_openai import Planned, Script

PROBLEMS = [
    {
        "task_id": f"toy/{number}",
        "prompt": f'def one() -> int:\n    """Return {number}."""\n',
        "entry_point": "one",
        "canonical_solution": f"    return {number}\n",
        "test": f"def check(candidate):\n    assert candidate() == {number}\n",
    }
    for number in range(4)
]


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """Right, in the form that is asked."""
    asked = body["messages"][0]["content"] if "messages" in body else body.get("prompt", "")
    code = f"    return {asked.partition('Return ')[2].partition('.')[0]}"
    if "messages" in body:
        choice: dict[str, Any] = {
            "message": {"content": f"```python\ndef one():\n{code}\n```"},
            "finish_reason": "stop",
        }
    else:
        choice = {"text": f"{code}\n", "finish_reason": "length"}
    return {"choices": [choice], "usage": {"completion_tokens": 5}, "data": [{"id": "tiny"}]}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("tests.scripted_openai.said", answer)
    script = Script()
    yield script
    script.server.shutdown()
    script.server.server_close()


def flags(script: Script, place: Path, *others: str) -> list[str]:
    benchmark = place / "toy.jsonl"
    benchmark.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    return [
        f"--benchmark_file={benchmark}",
        f"--server={script.url}",
        f"--output={place / 'out'}",
        "--server_requests=1",
        "--gin.EvaluateConfig.workers=1",
        *others,
    ]


@pytest.mark.parametrize("chat", [False, True])
def test_a_servers_model_is_scored(script: Script, tmp_path: Path, chat: bool) -> None:
    main(flags(script, tmp_path, f"--gin.EvaluateConfig.chat={chat}", "--gin.SamplingConfig.max_tokens=9"))
    score = json.loads((tmp_path / "out" / "score.json").read_text())
    assert score["pass_at_k"]["pass@1"]["estimate"] == 1
    assert score["truncated"] == (0 if chat else 1)
    about = json.loads((tmp_path / "out" / "run.json").read_text())["model"]
    assert (about["model"], about["server"]) == ("tiny", script.url)
    path, body, _ = script.asked[-1]
    assert path == ("/v1/chat/completions" if chat else "/v1/completions")
    assert (body["max_tokens"], body["temperature"], "stop" in body) == (9, 0.0, not chat)
    assert "top_k" not in body  # OpenAI's protocol doesn't know it


def test_a_server_that_fails_in_between_is_asked_for_the_rest_alone(script: Script, tmp_path: Path) -> None:
    command = flags(script, tmp_path, "--model=tiny")
    ok: list[Planned] = [(200, {}, answer({"prompt": problem["prompt"]})) for problem in PROBLEMS[:2]]
    script.plan = [*ok, (401, {}, {"error": {"message": "expired"}})]
    with pytest.raises(UserError, match=r"refuses no key.*expired"):
        main(command)
    kept = (tmp_path / "out" / "samples.jsonl").read_text()
    assert kept.count("\n") == 2
    script.asked.clear()
    script.plan.clear()
    moved = Script()
    command = [each.replace(script.url, moved.url) for each in command]  # the same model, served at another port
    try:
        main(command)
    finally:
        moved.server.shutdown()
        moved.server.server_close()
    script.asked = moved.asked
    assert json.loads((tmp_path / "out" / "run.json").read_text())["model"]["server"] == moved.url
    assert [body["prompt"] for _, body, _ in script.asked] == [problem["prompt"] for problem in PROBLEMS[2:]]
    assert (tmp_path / "out" / "samples.jsonl").read_text().startswith(kept)
    assert json.loads((tmp_path / "out" / "score.json").read_text())["samples"] == 4


def test_answers_are_written_in_another_harness_shape(script: Script, tmp_path: Path) -> None:
    main(flags(script, tmp_path, "--write_samples=evalplus"))
    lines = (tmp_path / "out" / "samples.evalplus.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["task_id"] for each in found] == [problem["task_id"] for problem in PROBLEMS]
    assert found[3]["solution"] == f"{PROBLEMS[3]['prompt']}    return 3\n"
    again = [flags(script, tmp_path)[0], f"--output={tmp_path / 'again'}"]
    main([*again, f"--samples={tmp_path / 'out' / 'samples.evalplus.jsonl'}"])
    assert json.loads((tmp_path / "again" / "score.json").read_text())["outcomes"] == {"passed": 4}
