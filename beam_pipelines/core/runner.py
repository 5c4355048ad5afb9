"""Where pipelines run: any Beam runner by its own flags, or the cores of this machine.

Locally the runner is pinned to FnApiRunner: Beam's DirectRunner would try to download Prism. A worker process costs
seconds to start, so little work is done in the driver's own process; and kernels that are compiled code (Arrow, numba)
work in threads of it, as they don't hold Python's lock. The bytes that come out are the same.
"""

import argparse
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from opencoder_jax.beam_pipelines.core.engines.failures import explained_cluster, noticed_loss, refuse_absent_server
from opencoder_jax.beam_pipelines.core.memory import large_arrays_returned
from opencoder_jax.code_version import code_version
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
            UserError: there is no such runner, or it refuses its flags; or no job server answers.
            TryAgain: the cluster lost the job.
        """
        with self._local(seconds, threads) if self.is_local() else self._elsewhere() as pipeline:
            yield pipeline

    def is_local(self) -> bool:
        """Whether this machine does the work, in Beam's local runner."""
        return not any(flag.startswith("--runner") for flag in self.flags)

    @contextmanager
    def _elsewhere(self) -> Iterator[beam.Pipeline]:
        # Beam would run `pip freeze` for each job, for seconds, to log what differs; `SameVersion` refuses what does.
        options = PipelineOptions([*self.flags, "--experiments=disable_logging_submission_environment"])
        refuse_absent_server(options)
        # What the cluster says would be printed, tracebacks of Java and all; its last error comes as an exception.
        logging.getLogger().addHandler(logging.NullHandler())
        try:
            pipeline = beam.Pipeline(options=options)
        except ValueError as error:  # a runner that Beam doesn't know, or flags that this one refuses
            raise UserError(" ".join(str(error).split())) from None
        yield pipeline
        with explained_cluster():
            result = pipeline.run()
            try:
                if not options.view_as(StandardOptions).no_wait_until_finish:
                    result.wait_until_finish()
            except BaseException:
                with suppress(Exception):  # nobody would read what it still writes; it may be gone already
                    result.cancel()
                raise

    @contextmanager
    def _local(self, seconds: float, threads: bool) -> Iterator[beam.Pipeline]:
        workers = PipelineOptions(list(self.flags)).view_as(DirectOptions).direct_num_workers
        if not any(flag.startswith("--direct_num_workers") for flag in self.flags):
            workers = 1 if seconds < (WORTH_THREADS if threads else WORTH_STARTING) else os.cpu_count() or 1
        runner, flags = FnApiRunner(), [*self.flags, f"--direct_num_workers={workers}"]
        if workers > 1 and threads:
            flags.append("--direct_running_mode=multi_threading")
        elif workers > 1:
            program = f"{shlex.quote(sys.executable)} -m opencoder_jax.beam_pipelines.core.worker {os.getpid()}"
            command = f"exec {program} 2>/dev/null"  # it prints the traceback of every error that it reports
            runner = FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))
        with large_arrays_returned(), ExitStack() as quiet:
            if workers > 1 and threads:  # they print the traceback of every error that they report, as worker.py says
                nowhere = quiet.enter_context(open(os.devnull, "w"))
                quiet.enter_context(redirect_stderr(nowhere))
            elif workers > 1:
                quiet.enter_context(noticed_loss())
            with beam.Pipeline(runner=runner, options=PipelineOptions(flags)) as pipeline:
                yield pipeline


LOCAL = BeamOptions()  # on this machine, by default


def libraries() -> dict[str, str]:
    """What must be the same on every worker: it runs what was pickled here, and the bytes of files depend on it."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, "apache_beam": beam.__version__, "pyarrow": pyarrow.__version__}


class SameVersion(beam.DoFn):
    """A step for workers of a cluster: refuses those whose code or libraries aren't those of the submitter.

    Their shards would be made by other rules than the manifest says.
    """

    def __init__(self, step: beam.DoFn) -> None:
        super().__init__()
        self.step = step
        self.wanted = self._here()

    def _here(self) -> dict[str, str]:
        return libraries() | code_version((type(self.step).__module__, type(self.step).__name__))

    def setup(self) -> None:
        """Compares, then sets the step up."""
        here = self._here()
        different = sorted(name for name in self.wanted | here if self.wanted.get(name) != here.get(name))
        if different:
            raise UserError(
                f"worker {socket.gethostname()}: {', '.join(different[:5])}{' …' if len(different) > 5 else ''} "
                "differ from the submitter's; install the same version of this project and its requirements there"
            )
        self.step.setup()

    def process(self, element: Any) -> Any:
        return self.step.process(element)

    def teardown(self) -> None:
        self.step.teardown()
