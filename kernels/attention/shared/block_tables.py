"""How the tables of block sizes are read. They hold, for some head sizes, blocks that are good up to that size."""

from collections.abc import Mapping
from typing import Any


def entry_for(entries: Mapping[str, Any], head_size: int) -> Any:
    """The entry of the smallest head size that is large enough. Raises ValueError if none is."""
    size = min((int(size) for size in entries if int(size) >= head_size), default=None)
    if size is None:
        raise ValueError(f"attention: no blocks for head size {head_size} in the table; the largest is 256")
    return entries[str(size)]
