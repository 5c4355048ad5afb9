"""Conversations in batches: whole in a row, apart from each other, trained on where the assistant speaks."""

from pathlib import Path

import numpy as np
import pytest

from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.data.token_records import write_records
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.chat import Message
from opencoder_jax.tokenization.tokenizer import Tokenizer
from opencoder_jax.training.counts import count_sources

LENGTH = 192


def conversation(number: int) -> list[Message]:
    turns: list[Message] = [{"role": "system", "content": f"Be {number}."}] if number % 3 == 0 else []
    for turn in range(1 + number % 2):
        turns.append({"role": "user", "content": f"Q{number}.{turn}?"})
        turns.append({"role": "assistant", "content": f"A{number}.{turn}!"})
    return turns


@pytest.mark.parametrize("packing", ["pack", "pad"])
def test_rows_of_conversations(packing: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    conversations = [conversation(number) for number in range(40)]
    # One is longer than any row.
    conversations.append([*conversation(1), {"role": "user", "content": "long " * LENGTH}, *conversation(2)[-1:]])
    encoded = [chat.encode(tokenizer, messages) for messages in conversations]
    assert max(len(tokens) for tokens, _ in encoded[:-1]) <= LENGTH < len(encoded[-1][0])
    write_records(tmp_path / "chats", [encoded], tokenizer.model, tokenizer.vocab_size)
    config = DataConfig(
        mixture={"chats": 1.0}, phases=((0, LENGTH, 2),), packing=packing, attend_across_documents=False, seed=3
    )
    batches = Batches(config, tmp_path, tokenizer.pad, tokenizer.end_of_document)
    assert batches.dropped == 1

    seen: set[bytes] = set()
    step = 0
    while len(seen) < 40:
        batch = batches(step)
        step += 1
        assert step < 200
        for tokens, targets, positions, loss in zip(*batch, strict=True):
            starts = np.flatnonzero((positions == 0) & (tokens != tokenizer.pad))
            stops = [*starts[1:].tolist(), LENGTH]
            for start, stop in zip(starts.tolist(), stops, strict=True):
                own = tokens[start:stop]
                own = own[own != tokenizer.pad]
                assert positions[start : start + len(own)].tolist() == list(range(len(own)))
                # The last token of a row may be only a target.
                match = [
                    (number, whole, mask)
                    for number, (whole, mask) in enumerate(encoded[:-1])
                    if len(whole) - len(own) in (0, 1) and whole[: len(own)].tolist() == own.tolist()
                ]
                assert len(match) == 1
                number, whole, mask = match[0]
                seen.add(bytes([number]))
                count = len(whole) - 1
                trained = loss[start : start + count] == 1
                assert trained.tolist() == (mask[1:] == 1).tolist()
                assert targets[start : start + count][trained].tolist() == whole[1:][trained].tolist()
                assert not loss[start + count : stop].any()
    # Two rows a batch: one a conversation, or several.
    assert step == 20 if packing == "pad" else step < 15


@pytest.mark.parametrize("packing", ["pack", "pad", "fragment"])
def test_weights_are_of_tokens_and_what_a_run_reads_is_counted(
    packing: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    long = "three words more " * 20
    turns: list[Message] = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A!"}]
    short = [chat.encode(tokenizer, turns)] * 30
    longer = [chat.encode(tokenizer, [*turns, {"role": "user", "content": long}, turns[1]])] * 30
    tokens, half = len(longer[0][0]), len(longer[0][0]) - 2
    longer += [(np.concatenate([tokens, tokens]), np.concatenate([mask, mask])) for tokens, mask in longer[:5]]
    write_records(tmp_path / "short", [short], tokenizer.model, tokenizer.vocab_size)
    write_records(tmp_path / "longer", [longer], tokenizer.model, tokenizer.vocab_size)
    config = DataConfig(
        mixture={"short": 1.0, "longer": 3.0},
        phases=((0, tokens, 8),),
        packing=packing,
        attend_across_documents=False,
        seed=3,
    )
    batches = Batches(config, tmp_path, tokenizer.pad, tokenizer.end_of_document)
    assert half > len(short[0][0])

    read, known = {"short": 0, "longer": 0}, {"short": set(short[0][0].tolist())}
    rows, steps = 0, 200
    for step in range(steps):
        batch = batches(step)
        for row in batch.tokens:
            rows += 1
            held = row[row != tokenizer.pad]
            read["short" if set(held.tolist()) <= known["short"] else "longer"] += len(held)
    assert read["longer"] / read["short"] == pytest.approx(3, rel=0.05)

    counts = count_sources(batches, steps)
    assert [(source.records, source.dropped) for source in counts.values()] == [
        (30, 0),
        (35, 0 if packing == "fragment" else 5),
    ]
    if packing == "pad":
        assert counts["short"].padding == pytest.approx(1 - len(short[0][0]) / tokens)
        assert counts["longer"].padding == 0
        assert counts["short"].trained == short[0][1].sum() / len(short[0][0])
        assert counts["longer"].trained == longer[0][1].sum() / tokens
        assert counts["short"].epochs == pytest.approx(read["short"] / sum(len(ids) for ids, _ in short))
        assert counts["longer"].epochs == pytest.approx(read["longer"] / (30 * tokens))
