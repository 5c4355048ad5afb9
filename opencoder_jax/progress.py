"""How far along a long job is: a bar on a terminal; elsewhere, as in a log, one plain line a minute and a last one.

Use it in a `with` statement, `with Progress("train", 18_350_080, "tokens") as progress:`, and call
`progress.update_to(65_536, loss="8.3041")` as often as you like.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS = 60  # between two plain lines


class Progress:
    """Follows one job, on the standard error."""

    def __init__(self, name: str, total: int, unit: str, done: int = 0, shown: bool = True) -> None:
        """Shows nothing yet but an empty bar.

        Args:
            total: how much there is to do, in units; if that is 0, there is no bar, and the last line says so.
            unit: "B" for bytes, else a word in the plural.
            done: how much was done before this job began; it doesn't count in the rate.
            shown: False: say nothing at all.
        """
        self._name, self._total, self._unit = name, total, unit if unit == "B" else f" {unit}"
        self._first = self._done = done
        self._shown = shown
        self._values: dict[str, object] = {}
        self._began = self._said = time.monotonic()
        self._bar: tqdm | None = None
        if shown and total and sys.stderr.isatty():
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=name,
                unit=self._unit,
                unit_scale=total >= 10_000,
                dynamic_ncols=True,
                mininterval=0.5,
                file=sys.stderr,
            )

    @property
    def done(self) -> int:
        """Units that are done."""
        return self._done

    def update_to(self, done: int, **values: object) -> None:
        """Says that `done` units are done by now, and what else is known, such as a loss."""
        self._done = done
        self._values |= values
        if self._bar is not None:
            self._bar.set_postfix(self._values, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._said >= SECONDS:
            self._say()

    def close(self) -> None:
        """Ends the bar, or says the last line."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._say()
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say(self) -> None:
        if not self._shown:
            return
        self._said = time.monotonic()
        line = f"{self._name}: nothing to do"
        if self._total:
            rate = (self._done - self._first) / max(self._said - self._began, 1e-9)
            line = (
                f"{self._name}: {_short(self._done)} of {_short(self._total)}{self._unit}"
                f" ({self._done / self._total:.0%}), {_short(rate)}{self._unit}/s"
            )
        values = ", ".join(f"{name} {value}" for name, value in self._values.items())
        print(f"{line}; {values}" if values else line, file=sys.stderr, flush=True)


def _short(number: float) -> str:
    """A number in three digits: 999, 0.25, 65.5k, 18.4M."""
    return str(int(number)) if number == int(number) < 1000 else tqdm.format_sizeof(number)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """While something runs that can't say how far it is: how long so far, on a terminal or as a line a minute."""
    terminal, began, ended = sys.stderr.isatty(), time.monotonic(), threading.Event()

    def say() -> None:
        while not ended.wait(1 if terminal else SECONDS):
            line = f"{what}: {time.monotonic() - began:.0f} s"
            print(f"\r{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
