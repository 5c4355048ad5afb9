"""The engine against decoding without a cache; what an answer depends on, and where it ends."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.requests import Piece, Request
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.parallel.model_directory import LoadedModel
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.tokenizer import Tokenizer

ROWS = 8
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
    for place in (0, ROWS + 2, ROWS + 5):
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
    completions = engine.generate(prompts(5) * 4 * ROWS, config)
    lengths = []
    for completion in completions:
        *said, last = completion.tokens
        assert (last, set(said) <= {letter}, completion.finish_reason) == (end, True, "stop")
        assert completion.text == "a" * len(said)
        lengths.append(len(said))
    # The end comes with probability 1 / (1 + e^2): after 7.4 letters on average.
    assert 4 < np.mean(lengths) < 12


def said(engine: Engine, requests: list[Request]) -> list[list[Piece]]:
    """The pieces of each answer."""
    pieces: dict[int, list[Piece]] = {number: [] for number in engine.submit(requests)}
    while engine.busy:
        for piece in engine.step():
            pieces[piece.request].append(piece)
    return list(pieces.values())


def test_log_probabilities_are_those_of_the_whole_row(
    engine: Engine, all_logprobs: Callable[[list[int]], np.ndarray]
) -> None:
    """Of the tokens that were drawn, of those of the prompt, and of the likeliest in each place."""
    (prompt,) = prompts(40)
    (pieces,) = said(engine, [Request(tuple(prompt), SAMPLED, 0, (), 3, prompt_logprobs=True)])
    tokens = [token for piece in pieces for token in piece.tokens]
    own = [each for piece in pieces for each in piece.logprobs or ()]
    assert pieces[0].prompt_logprobs is not None
    assert all(piece.prompt_logprobs is None for piece in pieces[1:])
    expected = all_logprobs(prompt + tokens)
    for place, (rated, token) in enumerate(
        zip([*pieces[0].prompt_logprobs, *own], [*prompt[1:], *tokens], strict=True)
    ):
        assert rated.token == token
        assert rated.logprob == pytest.approx(expected[place, token], abs=1e-4)
        best = np.sort(expected[place])[::-1][:3]
        np.testing.assert_allclose([logprob for _, logprob in rated.top], best, atol=1e-4)
        np.testing.assert_allclose([expected[place, which] for which, _ in rated.top], best, atol=1e-4)


def test_a_prompt_that_was_read_is_not_read_again(engine: Engine) -> None:
    """Samples of one prompt, and prompts that begin alike, at the same time and later."""
    (stem, *ends) = prompts(150, 3, 4, 5)
    before = engine.read_tokens
    said(engine, [Request(tuple(stem), SAMPLED, seed) for seed in range(6)])
    assert engine.read_tokens - before == 149
    said(engine, [Request((*stem, *end), GREEDY) for end in ends])
    assert engine.read_tokens - before < 149 + 20


def test_what_is_cancelled_ends_and_leaves_its_row(engine: Engine) -> None:
    long = SamplingConfig(max_tokens=150)
    numbers = engine.submit([Request((5,), long, seed) for seed in range(ROWS + 2)])
    engine.step()
    assert (engine.running, engine.waiting) == (ROWS, 2)
    for number in (numbers[0], numbers[-1]):
        engine.cancel(number)
    engine.cancel(10**9)  # nobody's
    ended = {}
    while engine.busy:
        ended.update({piece.request: piece.finish_reason for piece in engine.step() if piece.finish_reason})
    assert ended == dict.fromkeys(numbers, "length") | dict.fromkeys((numbers[0], numbers[-1]), "cancelled")
    assert (engine.running, engine.waiting, engine.step()) == (0, 0, [])


def test_guesses_save_steps_and_change_no_answer(
    constant: Callable[[dict[int, float]], Engine], model: LoadedModel, tokenizer: Tokenizer
) -> None:
    asked = prompts(5, 40, 90)
    plain = Engine(model, tokenizer, EngineConfig(rows=8))
    guessing = Engine(model, tokenizer, EngineConfig(rows=8, draft=4))
    for sampling in (SamplingConfig(max_tokens=100), SAMPLED):
        assert guessing.generate(asked, sampling) == plain.generate(asked, sampling)
    repeating = constant({7: 5.0})
    guessing._weights = repeating._weights
    before = guessing.steps
    guessing.generate([[7, 7]], SamplingConfig(max_tokens=100))
    assert guessing.steps - before <= 22  # 5 tokens a step


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
