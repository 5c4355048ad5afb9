"""A worker process of a local pipeline: Beam's own, but what it says goes to the driver and not to the terminal too."""

import logging
import os
import sys
from contextlib import redirect_stderr

# Beam's first warning would install a handler that prints every message; one that exists already prevents that.
logging.getLogger().addHandler(logging.NullHandler())

from apache_beam.runners.worker import sdk_worker_main  # noqa: E402

from opencoder_jax.beam_pipelines.core.memory import return_large_arrays  # noqa: E402

if __name__ == "__main__":
    return_large_arrays()
    # It prints the traceback of every error that it reports; the driver shows what's worth showing.
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        sdk_worker_main.main(sys.argv)
