"""Training learns what there is to learn, at the pace that it has always learnt it."""

import json
from pathlib import Path

import pytest
from learning import CURVE, learn, write_corpus


@pytest.mark.slow
def test_the_curve_is_the_golden_one_and_ends_near_the_entropy(tokenizer_model: bytes, tmp_path: Path) -> None:
    entropy = write_corpus(tmp_path, tokenizer_model)
    curve = learn(tmp_path, tmp_path / "run")
    golden = json.loads(CURVE.read_text())
    # Another machine rounds otherwise, and training makes a little of it much; a wrong gradient changes far more.
    assert curve == pytest.approx(golden, rel=0.05)
    assert curve["25"] > 5 * entropy
    assert 0.97 * entropy < curve["250"] < 1.2 * entropy
