"""AdamW and the learning rate, stage by stage.

OpenCoder follows the warm-up, stable, decay schedule of MiniCPM. The stages are runs of their own here, each a small
recipe, so a schedule is a function of the stage's own step: "stable" warms up and stays (pretraining; it may be
prolonged at any time), "exponential" falls from the peak to the final rate over the stage (annealing), "cosine" warms
up and falls to the final rate (instruction tuning).

The rate is computed on the host and given to the training step as an argument, beside Optax: a stage can then take over
the moments of the stage before it while its schedule starts anew, and stages that differ in their schedules alone are
one compiled program. Moments are float32: 8 bytes a parameter.
"""

import math
from dataclasses import dataclass

import jax
import optax
from jaxtyping import PyTree

from opencoder_jax.checks import Requirement, above, at_least, between, check, one_of, or_none
from opencoder_jax.recipe import configurable
from opencoder_jax.training.spikes import skip_spikes

SCHEDULES = ("stable", "exponential", "cosine")


@configurable
@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with decoupled weight decay and clipping by the global norm; the defaults are OpenCoder's pretraining.

    Warm-up and peak are published (arXiv 2411.04905, training details). The paper leaves beta1, beta2, epsilon,
    weight_decay and clip_norm unsaid: those are ours, the usual values of Llama-like models.

    Attributes:
        peak_learning_rate: after the warm-up.
        warmup_steps: updates in which the rate rises to its peak.
        schedule: what follows: "stable", "exponential" or "cosine".
        final_learning_rate: where "exponential" and "cosine" end.
        beta1: of the mean of the gradients.
        beta2: of the mean of their squares.
        epsilon: added to the root of that.
        weight_decay: of the matrices; norms don't decay.
        clip_norm: the gradient's norm is clipped to it.
        spike_limit: an update that stands out by more standard deviations is left out (spikes.py); None: none is.
    """

    peak_learning_rate: float = 3e-4
    warmup_steps: int = 2000
    schedule: str = "stable"
    final_learning_rate: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    spike_limit: float | None = None

    def __post_init__(self) -> None:
        beta = Requirement(lambda value: 0 <= value < 1, "0 or more and below 1")
        check(self, schedule=one_of(*SCHEDULES), warmup_steps=at_least(0), weight_decay=at_least(0))
        check(self, peak_learning_rate=above(0), epsilon=above(0), clip_norm=above(0), spike_limit=or_none(above(0)))
        check(self, final_learning_rate=between(0, self.peak_learning_rate), beta1=beta, beta2=beta)
        if self.schedule == "exponential" and self.final_learning_rate == 0:
            raise ValueError("final_learning_rate=0.0: an exponential decay never reaches 0; OpenCoder ends at 1e-5")


def learning_rate(config: OptimizerConfig, steps: int, step: int) -> float:
    """The rate of update number `step` (from 0) in a stage of `steps` updates.

    The warm-up is linear and its first update is not lost: update t has (t + 1) / warmup_steps of the peak.
    An exponential stage without warm-up is OpenCoder's annealing: peak * (final / peak) ** (t / steps).
    """
    peak, final = config.peak_learning_rate, config.final_learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / (steps - config.warmup_steps)
    if config.schedule == "exponential":
        return peak * (final / peak) ** done
    if config.schedule == "cosine":
        return final + (peak - final) * (1 + math.cos(math.pi * done)) / 2
    return peak


def decay_mask(axes: PyTree[tuple[str, ...]]) -> PyTree[bool]:
    """Which weights decay: matrices do, and the scales of the norms (one axis beside the stacked layers) don't."""
    return jax.tree.map(lambda names: len(set(names) - {"layers"}) > 1, axes, is_leaf=lambda x: isinstance(x, tuple))


def adamw(config: OptimizerConfig, mask: PyTree[bool]) -> optax.GradientTransformationExtraArgs:
    """Gradients to updates for a learning rate of 1; the caller scales them by minus the learning rate.

    Args:
        mask: which weights decay, see `decay_mask`.
    """
    plain = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask),
    )
    if config.spike_limit is None:
        return optax.with_extra_args_support(plain)
    return skip_spikes(plain, config.spike_limit)
