"""Every recipe that is shipped: it binds, it is built whole (without its numbers), and it has the published figures.

Sources of the figures: arXiv 2411.04905, its released checkpoints, and the released scripts of instruction tuning.
"""

from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh

from opencoder_jax.parallel.mesh import AXES, data_parallel
from opencoder_jax.recipe import bind
from opencoder_jax.training.optimizer import learning_rate
from opencoder_jax.training.run import Recipe
from opencoder_jax.training.step import abstract_state

ROOT = Path(__file__).resolve().parents[2]
GIN_FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "gin_configs").rglob("*.gin"))
STAGES = [file for file in GIN_FILES if file.split("/")[1] in ("pretrain", "anneal", "sft")]

PARAMETERS = {"1p5b": 1_905_650_880, "8b": 7_771_262_976}
# The 8B ran on 512 H100, the 1.5B on 256 H800: there its width is divided over 64, in four copies (test below).
DEVICES = {"1p5b": 64, "8b": 512}


def recipe_of(file: str) -> Recipe:
    bind([file])
    return Recipe.from_gin()


@pytest.mark.parametrize("file", GIN_FILES)
def test_every_gin_file_binds(file: str) -> None:
    bind([file])


@pytest.mark.parametrize("file", STAGES)
def test_every_stage_is_built_and_divided_over_its_devices(file: str) -> None:
    recipe = recipe_of(file)
    size = "8b" if "8b" in file else "1p5b"
    devices = DEVICES[size] if size in file else 1
    mesh = AbstractMesh(recipe.mesh.sizes(devices), AXES)
    state = abstract_state(recipe, mesh)
    parameters = sum(weight.size for weight in jax.tree.leaves(state.parameters))
    assert parameters == recipe.model.parameters()
    if size in file:
        assert parameters == PARAMETERS[size]
    for _, _, rows in recipe.data.phases:
        assert recipe.train.microbatches(rows, data_parallel(mesh)) >= 1


def test_the_published_devices_of_the_1p5b() -> None:
    bind(["gin_configs/pretrain/opencoder_1p5b.gin"], ["MeshConfig.replica=4"])
    recipe = Recipe.from_gin()
    mesh = AbstractMesh(recipe.mesh.sizes(256), AXES)
    abstract_state(recipe, mesh)
    assert recipe.train.microbatches(1024, data_parallel(mesh)) == 2  # two rows of 256 devices at once


def test_tokens_a_step_and_steps() -> None:
    def sizes(file: str) -> tuple[list[int], int, int | None]:
        recipe = recipe_of(f"gin_configs/{file}.gin")
        return [length * rows for _, length, rows in recipe.data.phases], recipe.train.steps, recipe.train.init_step

    assert sizes("pretrain/opencoder_1p5b") == ([4_194_304], 484_865, None)
    assert sizes("pretrain/opencoder_8b") == ([8_388_608, 8_388_608], 300_000, None)
    # 100 B tokens each.
    assert sizes("anneal/opencoder_1p5b") == ([4_194_304], 100_000_000_000 // 4_194_304, 373_000)
    assert sizes("anneal/opencoder_8b") == ([8_388_608], 100_000_000_000 // 8_388_608, 300_000)
    assert recipe_of("gin_configs/anneal/opencoder_1p5b.gin").train.steps == 23_841
    assert recipe_of("gin_configs/anneal/opencoder_8b.gin").train.steps == 11_920
    for size in ("1p5b", "8b"):
        first = recipe_of(f"gin_configs/sft/opencoder_{size}_stage1.gin")
        second = recipe_of(f"gin_configs/sft/opencoder_{size}_stage2.gin")
        assert first.data.phases == ((0, 1216, 4096),)
        assert second.data.phases == ((0, 1500, 512),)
        assert first.train.steps == pytest.approx(4_210_000 / 4096, abs=1)  # 1 epoch
        assert second.train.steps == pytest.approx(3 * 367_000 / 512, abs=1)  # 3 epochs
        assert first.data.packing == second.data.packing == "pad"


@pytest.mark.parametrize("size", ["1p5b", "8b"])
def test_learning_rates(size: str) -> None:
    def rates(stage: str, *steps: int) -> list[float]:
        recipe = recipe_of(f"gin_configs/{stage}.gin")
        return [learning_rate(recipe.optimizer, recipe.train.steps, step) for step in steps]

    assert rates(f"pretrain/opencoder_{size}", 999, 1999, 299_999) == pytest.approx([1.5e-4, 3e-4, 3e-4])
    steps = recipe_of(f"gin_configs/anneal/opencoder_{size}.gin").train.steps
    assert rates(f"anneal/opencoder_{size}", 0, steps // 2, steps) == pytest.approx(
        [3e-4, 3e-4 * 30 ** -((steps // 2) / steps), 1e-5]
    )
    assert rates(f"sft/opencoder_{size}_stage1", 99, 100, 564) == pytest.approx([2e-5, 2e-5, 1e-5])
    assert rates(f"sft/opencoder_{size}_stage2", 99, 100, 1125) == pytest.approx([5e-5, 5e-5, 2.5e-5])


def test_the_annealing_mixture() -> None:
    for size in ("1p5b", "8b"):
        mixture = recipe_of(f"gin_configs/anneal/opencoder_{size}.gin").data.mixture
        assert mixture == {"refinecode": 83.94, "algorithmic": 12.44, "snippets": 2.71, "textbooks": 0.91}
        assert sum(mixture.values()) == pytest.approx(100)


def test_the_context_grows_during_pretraining() -> None:
    assert recipe_of("gin_configs/pretrain/opencoder_8b.gin").data.phases == ((0, 4096, 2048), (130_000, 8192, 1024))


def test_a_recipe_derives_from_another() -> None:
    """The cookbook changes sizes and rates of the 1.5B's recipes, and keeps how they work."""
    for stage in ("pretrain", "anneal"):
        full, small = (recipe_of(f"gin_configs/{stage}/{name}.gin") for name in ("opencoder_1p5b", "cookbook"))
        assert small.optimizer.schedule == full.optimizer.schedule
        assert small.optimizer.weight_decay == full.optimizer.weight_decay
        assert small.data.packing == full.data.packing
        assert small.data.attend_across_documents == full.data.attend_across_documents
        assert full.optimizer.peak_learning_rate > small.optimizer.final_learning_rate
    annealing = recipe_of("gin_configs/anneal/cookbook.gin").optimizer
    assert annealing.peak_learning_rate / annealing.final_learning_rate == pytest.approx(30)
