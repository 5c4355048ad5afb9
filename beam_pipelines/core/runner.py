"""Where pipelines run: any Beam runner by its own flags, or the cores of this machine.

Locally the runner is pinned to FnApiRunner: Beam's DirectRunner would try to download Prism. A worker process costs
seconds to start, so little work is done in the driver's own process; and kernels that are compiled code (Arrow, numba)
work in threads of it, as they don't hold Python's lock. The bytes that come out are the same.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from opencoder_jax.beam_pipelines.core.memory import return_large_arrays
from opencoder_jax.recipe import UserError

# Work of one core, in seconds, above which starting worker processes pays (each imports Beam first, about 3 s).
WORTH_STARTING = 6.0
WORTH_THREADS = 2.0  # the same for threads, which cost what passes through Beam's local connections


@dataclass(frozen=True)
class BeamOptions:
    """Beam's flags, such as `--runner=DataflowRunner --project=…`; none for this machine.

    `--direct_num_workers=N` says how many processes or threads work here; without it all cores do where that pays.

    Attributes:
        flags: Beam's.
        accept: the stages, by name or by the name of their directory, whose older output counts as up to date.

    Raises:
        UserError: for a flag that Beam doesn't know.
    """

    flags: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for options in PipelineOptions.__subclasses__():
            options._add_argparse_args(parser)
        unknown = parser.parse_known_args(list(self.flags))[1]
        if unknown:
            raise UserError(f"unknown argument {unknown[0]}: no flag of this stage or of Apache Beam; see --help")

    @contextmanager
    def pipeline(self, seconds: float, threads: bool = False) -> Iterator[beam.Pipeline]:
        """A pipeline whose work would take one core about `seconds`; it runs when the `with` block ends.

        Args:
            seconds: an estimate.
            threads: its work is done by code that releases Python's lock.

        Raises:
            UserError: there is no such runner, or it refuses its flags.
        """
        with self._local(seconds, threads) if self.is_local() else self._elsewhere() as pipeline:
            yield pipeline

    def is_local(self) -> bool:
        """Whether this machine does the work, in Beam's local runner."""
        return not any(flag.startswith("--runner") for flag in self.flags)

    def _elsewhere(self) -> beam.Pipeline:
        try:
            return beam.Pipeline(options=PipelineOptions(list(self.flags)))
        except ValueError as error:  # a runner that Beam doesn't know, or flags that this one refuses
            raise UserError(" ".join(str(error).split())) from None

    @contextmanager
    def _local(self, seconds: float, threads: bool) -> Iterator[beam.Pipeline]:
        return_large_arrays()
        workers = PipelineOptions(list(self.flags)).view_as(DirectOptions).direct_num_workers
        if not any(flag.startswith("--direct_num_workers") for flag in self.flags):
            workers = 1 if seconds < (WORTH_THREADS if threads else WORTH_STARTING) else os.cpu_count() or 1
        runner, flags = FnApiRunner(), [*self.flags, f"--direct_num_workers={workers}"]
        if workers > 1 and threads:
            flags.append("--direct_running_mode=multi_threading")
        elif workers > 1:
            command = f"{sys.executable} -m opencoder_jax.beam_pipelines.core.worker"
            runner = FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))
        with ExitStack() as quiet:
            if workers > 1 and threads:  # they print the traceback of every error that they report, as worker.py says
                nowhere = quiet.enter_context(open(os.devnull, "w"))
                quiet.enter_context(redirect_stderr(nowhere))
            with beam.Pipeline(runner=runner, options=PipelineOptions(flags)) as pipeline:
                yield pipeline
