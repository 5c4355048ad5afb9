"""What a run makes of its data, said before it starts: what is dropped, how often a source is read, what is trained on.

A recipe that reads a tiny source a thousand times, or drops most of its conversations, trains as smoothly as any other.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from opencoder_jax.data.batches import Batches
from opencoder_jax.recipe import UserError

# Repeating data is worth ever less, and nothing after about 40 epochs (Muennighoff et al. 2023, arXiv 2305.16264).
MANY_EPOCHS = 40
# Shares of a source's examples: above the first their loss is pointed out, above the second the run is refused.
SOME_DROPPED, MOST_DROPPED = 0.01, 0.5

SAMPLED = 512  # rows of a source in which targets are counted: a second's reading


class SourceCounts(NamedTuple):
    """What a run makes of a source."""

    records: int
    dropped: int  # of them: longer than a row, or without anything to predict
    epochs: float  # how often the source is read in the run
    padding: float  # share of the positions of its rows that hold no token
    trained: float  # share of its tokens that are targets; counted in SAMPLED rows at most


def count_sources(batches: Batches, steps: int) -> dict[str, SourceCounts]:
    """What a run of so many steps makes of each source. Raises UserError for a damaged record."""
    epochs, length = batches.epochs_before(steps), batches.shape(0)[1]
    counts = {}
    for (name, records), rows in zip(batches.sources.items(), batches.rows, strict=True):
        places = rows.sample(length, SAMPLED)
        tokens = np.full((len(places), length + 1), batches.pad, np.int32)
        mask, starts = (np.zeros(tokens.shape, dtype) for dtype in (np.uint8, np.int32))
        for row, place in enumerate(places):
            rows.fill(place, tokens[row], mask[row], starts[row])
        if not batches.config.attend_across_documents:
            mask[starts > 0] = 0
        trained = mask[:, 1:].sum() / max(1, np.count_nonzero(tokens[:, :-1] != batches.pad))
        counts[name] = SourceCounts(len(records), rows.dropped, epochs[name], 1 - rows.filled, float(trained))
    return counts


def check_counts(counts: Mapping[str, SourceCounts], length: int) -> None:
    """Raises UserError where rows of `length` tokens lose most of a source."""
    for name, source in counts.items():
        if source.dropped > MOST_DROPPED * source.records:
            raise UserError(f"{name}: {_dropped(source, length)}")


def counts_table(counts: Mapping[str, SourceCounts], length: int) -> str:
    """A line a source, and what is out of the ordinary."""
    lines = [f"{'source':<20}{'records':>12}{'dropped':>10}{'trained':>12}{'epochs':>12}{'padding':>9}{'targets':>9}"]
    for name, source in counts.items():
        kept = source.records - source.dropped
        shares = f"{source.padding:>9.1%}{source.trained:>9.1%}"
        lines.append(f"{name:<20}{source.records:>12,}{source.dropped:>10,}{kept:>12,}{source.epochs:>12,.2f}{shares}")
    for name, source in counts.items():
        if source.dropped > SOME_DROPPED * source.records:
            lines.append(f"warning: {name}: {_dropped(source, length)}")
        if source.epochs > MANY_EPOCHS:
            advice = "lower its weight in DataConfig.mixture, or TrainConfig.steps"
            lines.append(f"warning: {name} is read {source.epochs:,.0f} times; {advice}")
    return "\n".join(lines)


def _dropped(source: SourceCounts, length: int) -> str:
    return (
        f"{source.dropped:,} of {source.records:,} examples fit no row of {length:,} tokens and are dropped; raise the"
        ' length in DataConfig.phases, set DataConfig.packing="fragment", or leave them out of the records by'
        " TokenRecordsConfig.chat_tokens"
    )
