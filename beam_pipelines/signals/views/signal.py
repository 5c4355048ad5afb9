"""What a signal is: a small function of a document's view, called by its own name."""

from collections.abc import Callable

from opencoder_jax.beam_pipelines.signals.views.view import View

Signal = Callable[[View], float | None]


def named(*signals: Signal, **others: Signal) -> dict[str, Signal]:
    """Signals by the names of their functions, then those that are given a name here."""
    return {signal.__name__: signal for signal in signals} | others


def ratio(part: float, whole: float) -> float | None:
    """A share; None where its denominator is zero."""
    return part / whole if whole else None


def lines_with(first: str, *others: str, lower: bool = False) -> Signal:
    """A signal: the share of code lines that hold one of some words anywhere, if `lower` in whatever case."""

    def share(view: View) -> float | None:
        lines = map(str.lower, view.code_lines) if lower else view.code_lines
        held = sum(1 for line in lines if first in line or (others and any(word in line for word in others)))
        return ratio(held, len(view.code_lines))

    return share
