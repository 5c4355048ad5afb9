"""A trace of some steps of a run, for XProf: what the devices and the runtime did, and which step it belongs to."""

from pathlib import Path
from typing import Self

import jax
from jaxtyping import PyTree


class Trace:
    """Traces those of the wanted steps that this process takes: a run may go on, or end, among them.

    The calls of Python aren't in it. For them JAX would hook into the state of every thread, also of one that is just
    ending: beside a checkpoint that is being written, that crashes the process now and then (jaxlib 0.10.2).
    """

    def __init__(self, directory: Path, steps: tuple[int, int] | None):
        """Traces into `directory` from the first step to before the second; None: nothing."""
        self._directory = directory
        self._wanted = range(*steps) if steps else range(0)
        self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:
            jax.profiler.stop_trace()

    def step(self, step: int) -> jax.profiler.StepTraceAnnotation:
        """What to take a step in, so that it has its number."""
        if step in self._wanted and not self._running:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._directory), profiler_options=options)
            self._running = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def after(self, step: int, state: PyTree) -> None:
        """Ends the trace after its last step, whose results are `state`."""
        if self._running and step + 1 not in self._wanted:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False
