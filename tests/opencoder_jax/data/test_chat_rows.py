"""Conversations in batches: whole in a row, apart from each other, trained on where the assistant speaks."""

from pathlib import Path

import numpy as np
import pytest

from opencoder_jax.data import chat
from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.data.chat import Message
from opencoder_jax.data.token_records import write_records
from opencoder_jax.data.tokenizer import Tokenizer

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
    write_records(tmp_path / "chats", [encoded], tokenizer.model)
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
