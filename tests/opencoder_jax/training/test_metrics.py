"""Metrics files after a kill, and the unigram entropy against a plain count."""

import math
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from opencoder_jax.data.token_records import TokenRecords, write_records
from opencoder_jax.training.metrics import MetricsFile, read_metrics, unigram_entropy


def row(step: int) -> dict[str, float]:
    return {"step": step, "loss": 1 / 3 + step, "seconds": 2.5 * step}


def test_rows_after_the_restored_step_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with closing(MetricsFile(file, 0)) as metrics:
        for step in (1, 2, 3, 4):
            metrics.write(row(step))
            assert read_metrics(file)[-1] == row(step)  # on the disk at once
    file.write_text(file.read_text() + '{"step": 5, "lo')  # cut off by a kill
    with closing(MetricsFile(file, 2)) as metrics:
        assert metrics.seconds == 5.0
        metrics.write(row(3))
    assert read_metrics(file) == [row(1), row(2), row(3)]


def test_a_new_run_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    with closing(MetricsFile(tmp_path / "metrics.jsonl", 0)) as metrics:
        assert metrics.seconds == 0
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_unigram_entropy_is_that_of_the_mixture(tmp_path: Path, tokenizer_model: bytes) -> None:
    random = np.random.default_rng(0)
    sources, counts = {}, {}
    for name, largest in (("a", 20), ("b", 90)):
        records = [(random.integers(4, largest, 50), random.integers(0, 2, 50)) for _ in range(30)]
        write_records(tmp_path / name, [records], tokenizer_model, 2**31)
        sources[name] = TokenRecords.open(tmp_path / name)
        targets = [int(token) for tokens, mask in records for token in tokens[mask > 0]]
        counts[name] = {token: count / len(targets) for token, count in Counter(targets).items()}
    mixed = [0.75 * counts["a"].get(token, 0) + 0.25 * counts["b"].get(token, 0) for token in range(100)]
    expected = -sum(share * math.log(share) for share in mixed if share)
    assert unigram_entropy(sources, {"a": 3.0, "b": 1.0}) == pytest.approx(expected)
