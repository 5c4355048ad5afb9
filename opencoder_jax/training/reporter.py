"""What a run says while it runs: a progress bar, metrics.jsonl, and TensorBoard or Weights & Biases where asked for.

A step is reported one step late, while the devices work on the next, so that nothing waits for the report. Each row has

    step, tokens, loss (nats a token), gradient_norm, learning_rate    the same in every repetition of the run
    epochs                       how often each source was read so far
    skipped                      updates that the spike guard left out so far, where there's a guard
    held_out                     loss and bits a byte of each held-out source, on the steps that evaluate
    tokens_per_second, mfu       since the row before, without padding, and of attention what documents need; without
                                 mfu where the chip's peak isn't known (flops.py)
    padding, targets             in that time: the share of positions without a token, of tokens that count in the loss
    input_wait                   the share of that time in which the next batch wasn't there yet
    memory_gb                    the most that was in use on one of this host's devices, or by the process on a CPU
    seconds                      of training up to here
"""

import math
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
from jax.sharding import Mesh

from opencoder_jax.data.batches import Batches
from opencoder_jax.model import flops
from opencoder_jax.parallel.hosts import leads
from opencoder_jax.progress import Progress
from opencoder_jax.recipe import UserError
from opencoder_jax.training.feed import Content, Feed
from opencoder_jax.training.held_out import HeldOutLoss
from opencoder_jax.training.metrics import Board, MetricsFile, boards_of
from opencoder_jax.training.run import Recipe
from opencoder_jax.training.spikes import PATIENCE
from opencoder_jax.training.step import StepMetrics

# The part of a row that two runs of the same recipe don't share.
TIMING = ("seconds", "tokens_per_second", "mfu", "padding", "targets", "input_wait", "memory_gb")


class _Pending(NamedTuple):
    step: int
    rate: float
    measured: StepMetrics
    content: Content  # of all batches up to this step's


class Reporter:
    """Reads what the steps measured, and passes it on. Only the first host writes; every host checks."""

    def __init__(self, recipe: Recipe, batches: Batches, mesh: Mesh, output: Path, step: int):
        """Opens the file and the boards that rows go to, for a run that goes on after `step` updates."""
        self._recipe, self._batches, self._mesh = recipe, batches, mesh
        self._boards: list[Board] = []
        trained = 0.0
        if leads():
            file = MetricsFile(output / "metrics.jsonl", step)
            train = recipe.train
            boards = boards_of(train.tensorboard, train.wandb_project, recipe.settings, output, step)
            self._boards, trained = [file, *boards], file.seconds
        self._pending: _Pending | None = None
        self._began = time.perf_counter() - trained
        self._content, self._seconds, self._waited = Content(), trained, 0.0  # as of the last row
        total = batches.tokens_before(recipe.train.steps)
        self._progress = Progress("train", total, "tokens", batches.tokens_before(step), shown=leads())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()
        for board in self._boards:
            board.close()

    def later(self, step: int, rate: float, measured: StepMetrics, content: Content) -> None:
        """Takes what an update measured, while the devices still work on it."""
        self._pending = _Pending(step, rate, measured, content)

    def read(self, feed: Feed, held_out: Mapping[str, HeldOutLoss] | None = None) -> None:
        """Waits for the update that was taken last, and reports it.

        Raises:
            UserError: its loss or gradient is not a finite number and no guard left the update out, or the guard left
                out too many.
        """
        if self._pending is None:
            return
        (step, rate, measured, content), self._pending = self._pending, None
        measured = jax.device_get(measured)
        self._check(step, measured)
        tokens = self._batches.tokens_before(step)
        config = self._recipe.train
        if not (step in (1, config.steps) or step % config.log_every == 0 or held_out):
            self._progress.update_to(tokens)
            return
        row: dict[str, Any] = {
            "step": step,
            "tokens": tokens,
            "loss": float(measured.loss),
            "learning_rate": rate,
            "gradient_norm": float(measured.gradient_norm),
            "epochs": self._batches.epochs_before(step),
        }
        if self._recipe.optimizer.spike_limit is not None:
            row["skipped"] = int(measured.skipped)
        if held_out:
            row["held_out"] = {source: score._asdict() for source, score in held_out.items()}
        row |= self._timing(content, feed)
        shown: dict[str, object] = {"step": step, "loss": f"{row['loss']:.4f}"}
        shown |= {"MFU": f"{row['mfu']:.1%}"} if "mfu" in row else {}
        self._progress.update_to(tokens, **shown)
        for board in tuple(self._boards):
            try:
                board.write(row)
            except Exception as error:
                if isinstance(board, MetricsFile):
                    raise
                # A service that doesn't answer is no reason to stop: the file has every row.
                print(f"warning: step {step}: {type(error).__name__}: {error}; no more rows go there", file=sys.stderr)
                self._boards.remove(board)

    def _check(self, step: int, measured: StepMetrics) -> None:
        guarded = self._recipe.optimizer.spike_limit is not None
        if guarded and measured.skipped_in_a_row >= PATIENCE:
            raise UserError(
                f"step {step}: the last {PATIENCE} updates stood out so far that the guard left them out (loss "
                f"{measured.loss}); the checkpoints before them are sound. Lower OptimizerConfig.peak_learning_rate, "
                "raise OptimizerConfig.spike_limit or change DataConfig.seed, in another --output"
            )
        if not guarded and not (math.isfinite(measured.loss) and math.isfinite(measured.gradient_norm)):
            raise UserError(
                f"step {step}: the loss is {measured.loss} and the gradient's norm {measured.gradient_norm}; the"
                " checkpoints before it are sound. Lower OptimizerConfig.peak_learning_rate, set"
                " OptimizerConfig.spike_limit or change DataConfig.seed, in another --output"
            )

    def _timing(self, content: Content, feed: Feed) -> dict[str, float]:
        """What differs from run to run. An evaluation or a checkpoint in between counts as time, not as work."""
        seconds = time.perf_counter() - self._began
        elapsed = seconds - self._seconds
        since = content.plus(self._content, -1)
        speed = since.tokens / elapsed
        timing = {
            "tokens_per_second": speed,
            "padding": 1 - since.tokens / since.positions,
            "targets": since.targets / max(1.0, since.tokens),
        }
        device = self._mesh.devices.flat[0]
        # A query of a row that is one document meets (length + 1) / 2 keys; of documents' these meet so many.
        cost = flops.flops_per_token(self._recipe.model, 2 * since.keys / max(1.0, since.tokens) - 1)
        share = flops.mfu(speed, cost, self._mesh.size, device.device_kind)
        if share is not None:
            timing["mfu"] = share
        timing |= {"input_wait": (feed.waited - self._waited) / elapsed, "memory_gb": _memory_gb(), "seconds": seconds}
        self._content, self._seconds, self._waited = content, seconds, feed.waited
        return timing


def speed_words(recipe: Recipe, mesh: Mesh) -> str:
    """How the run's MFU is counted, or why it isn't."""
    kind = mesh.devices.flat[0].device_kind
    if kind not in flops.PEAK_FLOPS:
        return f"no MFU: the peak FLOP/s of {kind!r} isn't in opencoder_jax/model/flops.py"
    cost = flops.flops_per_token(recipe.model, recipe.data.phases[-1][1])
    whole = f"{cost / 1e9:,.2f} GFLOP a token of a row that is one document"
    return f"{flops.FORMULA}; {whole}, peak {flops.PEAK_FLOPS[kind] / 1e12:,.0f} TFLOP/s a chip"


def _memory_gb() -> float:
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [stat["peak_bytes_in_use"] for stat in stats if stat and "peak_bytes_in_use" in stat]
    if not peaks:  # a CPU; the system counts in KiB, on macOS in bytes
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peaks = [used if sys.platform == "darwin" else used * 1024]
    return max(peaks) / 1e9
