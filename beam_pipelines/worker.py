"""A worker process of a local pipeline: Beam's own, but its log goes to the driver and not to the terminal too."""

import logging
import sys

# Beam's first warning would install a handler that prints every message; one that exists already prevents that.
logging.getLogger().addHandler(logging.NullHandler())

from apache_beam.runners.worker import sdk_worker_main  # noqa: E402

if __name__ == "__main__":
    sdk_worker_main.main(sys.argv)
