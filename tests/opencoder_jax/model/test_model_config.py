"""The sizes of a decoder: the published parameter counts, and what is refused."""

import dataclasses
from typing import Any

import pytest

from opencoder_jax.model.config import ModelConfig
from opencoder_jax.recipe import bind, build

MODELS = "gin_configs/models/"


@pytest.mark.parametrize(
    ("file", "parameters"), [("opencoder_1p5b.gin", 1_905_650_880), ("opencoder_8b.gin", 7_771_262_976)]
)
def test_the_published_parameter_counts(file: str, parameters: int) -> None:
    bind([MODELS + file])
    assert build(ModelConfig).parameters() == parameters


def test_a_tied_head_is_counted_once() -> None:
    """SmolLM2-135M: 134,515,008 parameters by its model card's safetensors."""
    smol = ModelConfig(49_152, 30, 576, 9, 3, 64, 1536, tied_head=True)
    assert smol.parameters() == 134_515_008
    apart = dataclasses.replace(smol, tied_head=False)
    assert apart.parameters() - smol.parameters() == 49_152 * 576
    assert apart.matrix_parameters() == smol.matrix_parameters()  # a token goes through the matrix either way


def test_the_defaults_are_the_1p5b() -> None:
    bind([MODELS + "opencoder_1p5b.gin"])
    bound = build(ModelConfig)
    bind()
    assert build(ModelConfig) == bound


def test_the_cookbook_derives_from_the_1p5b() -> None:
    bind([MODELS + "cookbook.gin"])
    model = build(ModelConfig)
    assert (model.rope_theta, model.norm_eps) == (10_000.0, 1e-5)
    assert model.parameters() < 20_000_000


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layers": 0}, "layers=0"),
        ({"heads": 6, "kv_heads": 4}, "kv_heads=4"),
        ({"head_size": 7}, "head_size=7"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rope_scaling": (8.0, 4.0, 1.0, 8192)}, "rope_scaling"),
        ({"rope_scaling": (0.0, 1.0, 4.0, 8192)}, "rope_scaling"),
        ({"dtype": "float16"}, "one of bfloat16, float32"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(**fields)
