"""The engine against decoding without a cache; what an answer depends on, and where it ends."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from opencoder_jax.data.tokenizer import Tokenizer
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.parallel.model_directory import LoadedModel
from opencoder_jax.recipe import UserError

ROWS = 32
GREEDY = SamplingConfig(max_tokens=20)
SAMPLED = SamplingConfig(temperature=1.0, top_p=0.9, max_tokens=20)


def prompts(*lengths: int) -> list[list[int]]:
    random = np.random.default_rng(len(lengths))
    return [random.integers(4, 290, length).tolist() for length in lengths]


def test_equals_decoding_without_a_cache(engine: Engine, next_tokens: Callable[[list[int], int], list[int]]) -> None:
    """Lengths around those that prompts are padded to."""
    asked = prompts(1, 7, 64, 65, 128)
    for prompt, completion in zip(asked, engine.generate(asked, GREEDY), strict=True):
        assert completion.tokens == next_tokens(prompt, GREEDY.max_tokens)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_answer_does_not_depend_on_the_others(engine: Engine, sampling: SamplingConfig) -> None:
    asked = prompts(*range(3, 3 + ROWS + 5), 70)
    together = engine.generate(asked, sampling)
    for place in (0, 4, ROWS + 2, ROWS + 5):
        assert engine.generate([asked[place]], sampling, seeds=[place]) == [together[place]]
    backwards = engine.generate(asked[::-1], sampling, seeds=range(len(asked))[::-1])
    assert backwards[::-1] == together


def test_seeds_make_samples_differ_and_repeat(engine: Engine) -> None:
    prompt = prompts(5) * 6
    samples = engine.generate(prompt, SAMPLED)
    assert engine.generate(prompt, SAMPLED) == samples
    assert len({completion.text for completion in samples}) == 6
    greedy = engine.generate(prompt, GREEDY)
    assert len({completion.text for completion in greedy}) == 1


def test_an_answer_is_cut_off_at_its_length(engine: Engine, tokenizer: Tokenizer) -> None:
    for count in (1, 16, 17):
        (completion,) = engine.generate(prompts(5), SamplingConfig(max_tokens=count))
        assert (len(completion.tokens), completion.finish_reason) == (count, "length")
        assert completion.text == tokenizer.decode(completion.tokens)


def test_a_stop_string_ends_an_answer(engine: Engine, tokenizer: Tokenizer) -> None:
    (whole,) = engine.generate(prompts(5), GREEDY)
    (stop,) = re.findall(r"[\x00-\x7f]{2}", whole.text)[1:2]
    (stopped,) = engine.generate(prompts(5), GREEDY, stop=["never said", stop])
    assert (stopped.text, stopped.finish_reason) == (whole.text[: whole.text.index(stop)], "stop")
    assert stopped.tokens == whole.tokens[: len(stopped.tokens)]
    assert stop in tokenizer.decode(stopped.tokens)
    assert stop not in tokenizer.decode(stopped.tokens[:-1])


def test_a_stop_string_may_lie_across_tokens(
    constant: Callable[[dict[int, float]], Engine], tokenizer: Tokenizer
) -> None:
    letter = tokenizer.encode("a")[-1]
    (stopped,) = constant({letter: 5.0}).generate(prompts(5), GREEDY, stop=["aaa"])
    assert (stopped.text, stopped.tokens, stopped.finish_reason) == ("", [letter] * 3, "stop")


@pytest.mark.parametrize("control", ["end_of_document", "im_end"])
def test_the_end_of_a_document_or_message_ends_an_answer(
    constant: Callable[[dict[int, float]], Engine], tokenizer: Tokenizer, control: str
) -> None:
    end = getattr(tokenizer, control)
    letter = tokenizer.encode("a")[-1]
    engine = constant({letter: 2.0, end: 0.0})
    config = SamplingConfig(temperature=1.0, max_tokens=100)
    completions = engine.generate(prompts(5) * ROWS, config)
    lengths = []
    for completion in completions:
        *said, last = completion.tokens
        assert (last, set(said) <= {letter}, completion.finish_reason) == (end, True, "stop")
        assert completion.text == "a" * len(said)
        lengths.append(len(said))
    # The end comes with probability 1 / (1 + e^2): after 7.4 letters on average.
    assert 4 < np.mean(lengths) < 12


def test_no_prompts(engine: Engine) -> None:
    assert engine.generate([], GREEDY) == []


def test_a_prompt_that_cannot_be_answered_is_named(engine: Engine) -> None:
    with pytest.raises(UserError, match="prompt 1 is empty"):
        engine.generate([[5], []], GREEDY)
    with pytest.raises(UserError, match="prompt 1 has 237 tokens; with 20 more they exceed the model's context of 256"):
        engine.generate(prompts(236, 237), GREEDY)


def test_a_tokenizer_of_another_model(model: LoadedModel, tokenizer: Tokenizer) -> None:
    other = model._replace(config=model.config.__class__())
    with pytest.raises(UserError, match="don't belong together"):
        Engine(other, tokenizer)
