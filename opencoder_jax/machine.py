"""What this machine is, and where its user's caches lie."""

import os
import platform
from pathlib import Path


def user_cache(name: str) -> Path:
    """A folder of ours for what can be made again. Raises RuntimeError where the user has no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "opencoder_jax", name)


def processor() -> str:
    """What it can do, as far as the system tells: programs compiled for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")
