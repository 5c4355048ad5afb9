"""Where pipelines run: any Beam runner by its own flags, or the cores of this machine.

Locally the runner is pinned to FnApiRunner: Beam's DirectRunner would try to download Prism. A worker process costs
seconds to start, so little work is done in the driver's own process. The bytes that come out are the same.
"""

import argparse
import os
import sys
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from opencoder_jax.recipe import UserError

# Work of one core, in seconds, above which starting worker processes pays (each imports Beam first, about 3 s).
WORTH_STARTING = 6.0


@dataclass(frozen=True)
class BeamOptions:
    """Beam's flags, such as `--runner=DataflowRunner --project=…`; none for this machine.

    `--direct_num_workers=N` says how many processes work here; without it all cores do where that pays.

    Raises:
        UserError: for a flag that Beam doesn't know.
    """

    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for options in PipelineOptions.__subclasses__():
            options._add_argparse_args(parser)
        unknown = parser.parse_known_args(list(self.flags))[1]
        if unknown:
            raise UserError(f"unknown argument {unknown[0]}: no flag of this stage or of Apache Beam; see --help")

    def pipeline(self, seconds: float) -> beam.Pipeline:
        """A pipeline for `with`, whose work would take one core about `seconds`.

        Raises:
            UserError: there is no such runner, or it refuses its flags.
        """
        if any(flag.startswith("--runner") for flag in self.flags):
            try:
                return beam.Pipeline(options=PipelineOptions(list(self.flags)))
            except ValueError as error:  # a runner that Beam doesn't know, or flags that this one refuses
                raise UserError(" ".join(str(error).split())) from None
        workers = PipelineOptions(list(self.flags)).view_as(DirectOptions).direct_num_workers
        if not any(flag.startswith("--direct_num_workers") for flag in self.flags):
            workers = 1 if seconds < WORTH_STARTING else os.cpu_count() or 1
        if workers == 1:
            return beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(self.flags)))
        worker = SubprocessSDKEnvironment.from_command_string(f"{sys.executable} -m beam_pipelines.worker")
        options = PipelineOptions([*self.flags, f"--direct_num_workers={workers}"])
        return beam.Pipeline(runner=FnApiRunner(default_environment=worker), options=options)
