"""What may go wrong where pipelines run, as one line: servers that are away, workers that are lost, workers' errors."""

import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import grpc  # type: ignore[import-untyped]
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from opencoder_jax.beam_pipelines.core.stores.systems import Unreachable
from opencoder_jax.recipe import TryAgain, UserError

JOB_SERVER_SECONDS = 30  # to wait for one that is only starting


class _Ended(BaseException):
    """Raised by a signal within a pipeline."""


@contextmanager
def noticed_loss() -> Iterator[None]:
    """Ends a pipeline by Ctrl-C, or when a worker process has ended before it.

    Beam waits for ever for a worker that never came, and some of its code swallows what a signal raises there. So the
    signal is repeated until the pipeline has ended.

    Raises:
        TryAgain: a worker ended; as it's killed where memory is short.
    """
    main = threading.main_thread().ident
    if main is None or main != threading.get_ident():  # only there signals can be handled
        yield
        return
    ended, interrupted, codes = threading.Event(), threading.Event(), list[str]()

    def insist() -> None:
        while not ended.wait(1):  # Ctrl-C ends workers, too, and shall be heard first
            signal.pthread_kill(main, signal.SIGINT if interrupted.is_set() else signal.SIGUSR1)

    def heard(number: int, _: object) -> NoReturn:
        if number == signal.SIGINT and not interrupted.is_set():
            interrupted.set()
            threading.Thread(target=insist, daemon=True).start()
        raise _Ended

    def hook(thread: threading.ExceptHookArgs) -> None:
        if not str(thread.exc_value).startswith("Worker subprocess exited"):
            others(thread)
        elif not ended.is_set():
            codes.append(str(thread.exc_value).rpartition(" ")[2])
            insist()  # in the thread that the worker had

    others, threading.excepthook = threading.excepthook, hook
    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    except BaseException:
        if interrupted.is_set():
            raise KeyboardInterrupt from None
        if codes:
            raise TryAgain(f"a worker process ended (code {codes[0]}); the same command goes on from here") from None
        raise
    finally:
        ended.set()
        threading.excepthook = others
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        if not codes:  # else one may still come, which would end this process
            signal.signal(signal.SIGUSR1, before[signal.SIGUSR1])


def refuse_absent_server(options: PipelineOptions) -> None:
    """Waits a while for the job server that the flags name; Beam itself would wait for minutes without a word.

    Raises:
        UserError: nothing answers there.
    """
    portable = options.view_as(PortableOptions)
    endpoint = portable.job_endpoint
    if not endpoint or endpoint == "embed":
        return
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--job_endpoint={endpoint}: write HOST:PORT, such as localhost:8099")
    wait = min(portable.job_server_timeout, JOB_SERVER_SECONDS)
    until, told = time.monotonic() + wait, False
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=max(1, wait)).close()
        except (OSError, OverflowError) as error:
            if time.monotonic() >= until:
                raise UserError(
                    f"--job_endpoint={endpoint}: no job server answers ({error}); start it, or name the right address"
                ) from None
            if not told:
                print(f"waiting {wait} s for the job server at {endpoint} ({error})", file=sys.stderr, flush=True)
                told = True
            time.sleep(min(1, wait / 10))
        else:
            return


@contextmanager
def explained_cluster() -> Iterator[None]:
    """Tells what a cluster lost from what a worker's Python raised, whose traceback the message holds.

    Raises:
        UserError: the job server says nothing.
        TryAgain: the server, or a worker and with it the job, has gone.
        RuntimeError: a worker's error.
    """
    try:
        yield
    except grpc.FutureTimeoutError:
        raise UserError("the job server doesn't answer as one: is it another program's port?") from None
    except grpc.RpcError as error:
        told = error.details() if isinstance(error, grpc.Call) else str(error)
        raise TryAgain(f"the job server went away ({told}); start it and run the same command again") from None
    except RuntimeError as error:
        if "Traceback (most recent call last):" in str(error):
            raise
        told = " ".join(str(error).split())[:300]
        raise TryAgain(f"the cluster ended the job ({told}); the same command goes on from here") from None


# The errors of a worker that are the user's to mend, not ours, as Beam wraps them.
_OS_ERRORS = "OSError|PermissionError|FileNotFoundError|FileExistsError|NotADirectoryError|IsADirectoryError"
_LACKING = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'|AttributeError: Can't get attribute")
_MENDABLE = re.compile(rf"(?:RuntimeError: )?(?:[\w.]+\.)?(?:UserError|Unreachable|{_OS_ERRORS}): (.*)")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Makes one line of an error that the user can mend.

    Of a worker's error only the text of its traceback reaches the driver; the exception that ended it comes last,
    behind those that it was raised from.
    """
    try:
        yield
    except UserError as error:
        raise UserError(_without_step(str(error))) from None
    except Unreachable as error:
        raise UserError(f"{name}: {_without_step(str(error))}") from None
    except RuntimeError as error:
        last = str(error).rsplit("Traceback (most recent call last):\n", 1)[-1]
        ending = next((line for line in last.splitlines() if not line.startswith(" ")), "")
        if mendable := _MENDABLE.match(ending):
            raise UserError(f"{name}: {_without_step(mendable[1])}") from None
        if _LACKING.match(ending):
            raise UserError(
                f"{name}: a worker hasn't this project, or another version of it ({_without_step(ending)}); install "
                "the same version of it and its requirements there"
            ) from None
        raise


def _without_step(message: str) -> str:
    return message.split(" [while running")[0]
