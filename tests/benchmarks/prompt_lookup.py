"""What guessing tokens from the prompt (EngineConfig.draft) gains where a model edits code that it was given.

    python -m tests.benchmarks.prompt_lookup [--draft=7] [--tokens=192]

The model is SmolLM2-135M-Instruct, of the extra `real_model`. Each task hands it some functions of Python's own library
and asks for them again with a name changed; greedy, one task at a time, as someone who waits for an edit does. The
answers must be the same with and without guesses. Prints the ratio of the tasks' times: their median, and of the sums.
"""

import argparse
import statistics
import sysconfig
import time
from pathlib import Path

import numpy as np

from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.tokenization import chat
from tests.benchmarks.smollm2 import smollm2

# File, first and last line, what is asked.
TASKS = (
    ("bisect.py", 21, 52, "Rename the argument `a` to `values`."),
    ("heapq.py", 130, 157, "Rename the argument `heap` to `queue`."),
    ("textwrap.py", 419, 460, "Rename `margin` to `indentation`."),
    ("shlex.py", 305, 345, "Add type annotations."),
    ("copy.py", 61, 105, "Rename `cls` to `kind`."),
    ("queue.py", 120, 155, "Rename `timeout` to `seconds`."),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=192)
    flags = parser.parse_args()
    model, tokenizer = smollm2(parser)
    engines = [Engine(model, tokenizer, EngineConfig(rows=1, draft=draft)) for draft in (0, flags.draft)]
    settings = SamplingConfig(max_tokens=flags.tokens)
    ratios, seconds = [], np.zeros(2)
    for name, first, last, asked in TASKS:
        code = "".join(
            (Path(sysconfig.get_path("stdlib")) / name).read_text().splitlines(keepends=True)[first - 1 : last]
        )
        said = [chat.turn("user", f"{asked} Answer with the whole code.\n\n```python\n{code}```")]
        prompt = chat.encode_prompt(tokenizer, said)
        spent, steps, answers = [], [], []
        for engine in engines:
            engine.generate([prompt], settings)  # compiles, and reads the prompt
            before, began = engine.steps, time.perf_counter()
            answers.append(engine.generate([prompt], settings)[0].tokens)
            spent.append(time.perf_counter() - began)
            steps.append(engine.steps - before)
        assert np.array_equal(answers[0], answers[1]), "guesses changed an answer"
        ratios.append(spent[0] / spent[1])
        seconds += spent
        print(
            f"{name}: {len(answers[0])} tokens in {spent[0]:.2f} s and {steps[0]} steps; with guesses"
            f" {spent[1]:.2f} s and {steps[1]}: {ratios[-1]:.2f} times",
            flush=True,
        )
    print(f"median {statistics.median(ratios):.2f} times, in all {seconds[0] / seconds[1]:.2f}")


if __name__ == "__main__":
    main()
