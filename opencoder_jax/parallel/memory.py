"""How much memory is free, so that what can't fit is refused before it is read."""

from pathlib import Path

import jax

MEMORY = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> float:
    """Bytes that the default device can still hold; infinity where nothing tells.

    An accelerator's own memory; on CPUs what the system says is available, or what a container's limit leaves of it.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        told = device.memory_stats() or {}
        return float(told["bytes_limit"] - told.get("bytes_in_use", 0)) if "bytes_limit" in told else float("inf")
    free = float("inf")
    if MEMORY.exists():
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        free = float(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        # What the page cache holds of the container's share is given back when it is wanted.
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return min(free, float(limit) - float(used) + float(cached["inactive_file"]))
    except (OSError, KeyError, ValueError):  # none, or none in force: "max" is no number
        return free
