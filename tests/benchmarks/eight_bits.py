"""What weights in fewer bits (EngineConfig.weights) cost in quality, and what they gain, on the real model.

    python -m tests.benchmarks.eight_bits [--tokens=1000]

The model is SmolLM2-135M-Instruct, of the extra `real_model`; the text, the first lines of files of Python's library.
Prints for each dtype the bits a byte, how often the likeliest token is that of float32, and the tokens a second of a
greedy answer, after compiling.
"""

import argparse
import math
import sysconfig
import time
from pathlib import Path

import numpy as np

from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.requests import Request, TokenLogprob
from opencoder_jax.inference.sampling import SamplingConfig
from tests.benchmarks.smollm2 import smollm2

FILES = ("json/decoder.py", "heapq.py", "textwrap.py", "queue.py")


def rated(engine: Engine, prompt: tuple[int, ...]) -> list[TokenLogprob]:
    """The log-probabilities of all of a text's tokens but the first."""
    engine.submit([Request(prompt, SamplingConfig(max_tokens=1), 0, prompt_logprobs=True, top_logprobs=1)])
    found: list[TokenLogprob] = []
    while engine.busy:
        for piece in engine.step(math.inf):
            found += piece.prompt_logprobs or ()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1000, help="of each file")
    flags = parser.parse_args()
    model, tokenizer = smollm2(parser)
    texts = [(Path(sysconfig.get_path("stdlib")) / name).read_text() for name in FILES]
    prompts = [tuple(tokenizer.encode_array(text)[: flags.tokens].tolist()) for text in texts]
    size = sum(len(tokenizer.decode(np.array(prompt[1:], np.int32)).encode()) for prompt in prompts)
    exact: list[int] = []
    for weights in ("float32", "bfloat16", "int8"):
        engine = Engine(model, tokenizer, EngineConfig(rows=2, weights=weights))
        found = [each for prompt in prompts for each in rated(engine, prompt)]
        likeliest = [each.top[0][0] for each in found]
        exact = exact or likeliest
        bits = -sum(each.logprob for each in found) / math.log(2) / size
        same = np.mean(np.equal(likeliest, exact))
        settings = SamplingConfig(max_tokens=64)
        engine.generate([prompts[0][:100]], settings)
        began = time.perf_counter()
        tokens = len(engine.generate([prompts[0][:100]], settings)[0].tokens)
        rate = tokens / (time.perf_counter() - began)
        print(
            f"{weights}: {bits:.4f} bits a byte, {same:.2%} likeliest tokens the same, {rate:.0f} tokens/s", flush=True
        )


if __name__ == "__main__":
    main()
