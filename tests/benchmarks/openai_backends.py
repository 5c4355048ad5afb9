"""The OpenAI back ends of EvalPlus and lm-evaluation-harness, unmodified, against a server of ours.

    python -m opencoder_jax serve --checkpoint=RUN &
    PEERS/bin/python tests/benchmarks/openai_backends.py --server=http://127.0.0.1:8000

PEERS is a virtual environment with evalplus and lm-eval[api] (and no need of ours). Asks by each as its evaluations do,
lm-eval's tokenizer being the server's. Prints how many of the greedy answers lm-eval takes for greedy by their
log-probabilities: all of them where the model's text is UTF-8 and is tokenised as it was said, which that of random
weights isn't; of texts that no model would say, none may be.
"""

import argparse
import json
import time
import urllib.request
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    server = parser.parse_args().server
    with urllib.request.urlopen(f"{server}/v1/models") as answer:
        model = json.load(answer)["data"][0]
    print(f"model {model['id']}, context {model['max_model_len']}")
    evalplus(server, model["id"])
    lm_eval(server, model)


def evalplus(server: str, name: str) -> None:
    """Its one function that asks: four samples of a problem."""
    import openai
    from evalplus.gen.util.openai_request import make_auto_request

    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    began = time.perf_counter()
    said = make_auto_request(client, message="Write add(a, b).", model=name, max_tokens=32, temperature=0.8, n=4)
    assert len(said.choices) == 4
    assert len({choice.message.content for choice in said.choices}) > 1
    print(f"evalplus: {said.usage.completion_tokens} tokens of 4 samples in {time.perf_counter() - began:.1f} s")


def lm_eval(server: str, model: dict[str, Any]) -> None:
    """Its three kinds of requests, with the server's own tokenizer."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    api = LocalCompletionsAPI(
        base_url=f"{server}/v1/completions",
        model=model["id"],
        max_length=model["max_model_len"],
        num_concurrent=4,
        batch_size=2,
        max_retries=1,
    )
    assert api.tokenizer_backend == "remote", api.tokenizer_backend

    def asked(kind: str, *arguments: Any) -> Instance:
        return Instance(kind, {}, arguments, 0)

    prompts = [f"def add_{number}(a, b):\n" for number in range(6)]
    began = time.perf_counter()
    settings = {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False}
    answers = api.generate_until([asked("generate_until", prompt, dict(settings)) for prompt in prompts])
    rated = api.loglikelihood([asked("loglikelihood", *pair) for pair in zip(prompts, answers, strict=True) if pair[1]])
    others = api.loglikelihood([asked("loglikelihood", prompt, " qzx!") for prompt in prompts])
    rolling = api.loglikelihood_rolling([asked("loglikelihood_rolling", prompts[0])])
    assert not any(greedy for _, greedy in others)
    assert all(-1000 < each < 0 for each, _ in (*rated, *others))
    greedy = sum(is_greedy for _, is_greedy in rated)
    print(
        f"lm-eval: {len(answers)} answers; of their log-likelihoods {greedy} of {len(rated)} are greedy, of others 0 "
        f"of {len(others)}; rolling {rolling[0]:.3f}; {time.perf_counter() - began:.1f} s"
    )


if __name__ == "__main__":
    main()
