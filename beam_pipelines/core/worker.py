"""A worker process of a local pipeline: Beam's own, but what it says goes to the driver and not to the terminal too.

It's called with the driver's process id, and ends with it, however that ends: Beam's would wait for it for ever.
"""

import os
import signal

if __name__ == "__main__":
    # Ctrl-C reaches it, too; who says so is the driver.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import logging
import sys
import threading
import time


def end_with(driver: int) -> None:
    """Watches the process that started this one."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))

# Beam's first warning would install a handler that prints every message; one that exists already prevents that.
logging.getLogger().addHandler(logging.NullHandler())

from apache_beam.runners.worker import sdk_worker_main  # noqa: E402

from opencoder_jax.beam_pipelines.core.memory import return_large_arrays  # noqa: E402

if __name__ == "__main__":
    return_large_arrays()
    sdk_worker_main.main(sys.argv)
