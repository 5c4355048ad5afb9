"""A worker process of a local pipeline: Beam's own, but what it says goes to the driver and not to the terminal too.

It's called with the driver's process id, and ends with it, however that ends: Beam's would wait for it for ever.
"""

import logging
import os
import signal
import sys
import threading
import time


def end_with(driver: int) -> None:
    """Ends this process once the one that started it is gone."""
    while os.getppid() == driver:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C reaches it, too; who says so is the driver
    threading.Thread(target=end_with, args=[int(sys.argv.pop(1))], daemon=True).start()

# Beam's first warning would install a handler that prints every message; one that exists already prevents that.
logging.getLogger().addHandler(logging.NullHandler())

from apache_beam.runners.worker import sdk_worker_main  # noqa: E402

from opencoder_jax.beam_pipelines.core.memory import return_large_arrays  # noqa: E402

if __name__ == "__main__":
    return_large_arrays()
    sdk_worker_main.main(sys.argv)
