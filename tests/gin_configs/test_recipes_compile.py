"""Every recipe at its true size, compiled for the chips that it names: it fits, runs our kernel, moves what it must.

Each row length of a recipe is a program. Recipes that lower to the same text share one: annealing is pretraining with
another learning rate.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

from opencoder_jax.compile.chips import Topology
from opencoder_jax.compile.communication import due
from opencoder_jax.compile.lower import Compiled, lower_for
from opencoder_jax.recipe import bind
from opencoder_jax.training.run import Recipe

ROOT = Path(__file__).resolve().parents[2]
STAGES = sorted(
    path for stage in ("pretrain", "anneal", "sft") for path in (ROOT / "gin_configs" / stage).glob("*.gin")
)


def recipe_of(file: str) -> Recipe:
    bind([file])
    return Recipe.from_gin()


def row_lengths() -> list[tuple[str, int]]:
    """Each recipe of a stage that names its chips, and each step at which its row length changes."""
    recipes = {str(path.relative_to(ROOT)): recipe_of(str(path)) for path in STAGES}
    return [(file, first) for file, of in recipes.items() if of.mesh.topology for first, _, _ in of.data.phases]


@pytest.fixture(scope="module")
def programs() -> dict[tuple[str, str], Compiled]:
    """What has been compiled, by chips and text."""
    return {}


def test_every_recipe_but_the_cookbooks_names_its_chips() -> None:
    files = {path.relative_to(ROOT / "gin_configs") for path in STAGES}
    assert files - {Path(file).relative_to("gin_configs") for file, _ in row_lengths()} == {
        Path(name)
        for name in (
            "pretrain/cookbook.gin",
            "anneal/cookbook.gin",
            "sft/cookbook_stage1.gin",
            "sft/cookbook_stage2.gin",
        )
    }


@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.slow  # a program takes a minute or two of two cores, one for v6e three
@pytest.mark.parametrize(("file", "step"), row_lengths())
def test_a_recipe_on_its_chips(file: str, step: int, programs: dict[tuple[str, str], Compiled]) -> None:
    recipe = recipe_of(file)
    topology = Topology.parse(recipe.mesh.topology or "")
    lowered = lower_for(recipe, topology, step)
    key = str(topology), lowered.text
    compiled = programs[key] = programs.get(key) or lowered.compile()

    assert sum(compiled.memory.values()) < topology.chip.memory
    assert compiled.unexplained == []
    # And what is due is there: the reader of the program has missed nothing.
    asked = due(recipe, lowered.mesh.shape, lowered.state.parameters, lowered.rows, lowered.length)
    for kind in ("all-gather", "reduce-scatter", "all-to-all"):
        moved = sum(one.bytes for one in compiled.collectives if one.kind == kind)
        assert moved > 0.99 * sum(one.bytes for one in asked if one.kind == kind and "at most" not in one.what)
    assert set(compiled.kernels) == {"attention_forward", "attention_backward"}
    assert compiled.executed_flops > compiled.model_flops * 0.85  # the kernels count what they say of themselves
