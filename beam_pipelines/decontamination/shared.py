"""A value that is made once and read by every worker: its arrays lie end to end in a file, mapped where it's local.

Workers that map a file share its pages, so that a machine holds one copy, and nobody waits for a second one to be made.
"""

import mmap
import pickle
from pathlib import Path
from typing import Any

from opencoder_jax.beam_pipelines.core.storage import Directory

_ALIGNED = 64  # bytes


def share(value: Any, directory: Directory, name: str) -> None:
    """Writes a value to a file, whole or not at all."""
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    places, end = [], 0
    with directory.atomic(name) as stream:
        for buffer in buffers:
            raw = buffer.raw()
            stream.write(raw)
            stream.write(bytes(-len(raw) % _ALIGNED))
            places.append((end, end + len(raw)))
            end += len(raw) + -len(raw) % _ALIGNED
        last = pickle.dumps((rest, places))
        stream.write(last + len(last).to_bytes(8, "little"))


def shared(directory: Directory, name: str) -> Any:
    """The value that `share` wrote; its arrays can't be written. From a remote file it's read into memory."""
    if "://" in directory.uri:
        data = memoryview(directory.read_bytes(name))
    else:
        with (Path(directory.uri) / name).open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    length = int.from_bytes(data[-8:], "little")
    rest, places = pickle.loads(data[-8 - length : -8])
    return pickle.loads(rest, buffers=[data[start:stop] for start, stop in places])
