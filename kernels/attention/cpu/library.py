"""Our kernels for CPUs, compiled for this machine when they are first needed.

They are C++, and what compiles them is the compiler that the machine has (`CXX`, c++, g++ or clang++), once: the
library lies below the user's cache folder, under a name that tells source, compiler and processor. A machine without a
compiler takes XLA's own kernels, which are slower.
"""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import jax

from opencoder_jax.machine import processor, user_cache

MAIN = Path(__file__).with_name("kernels.cc")
HEADERS = tuple(sorted(Path(__file__).parent.glob("*.h")))
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread")
TARGETS = ("opencoder_product", "opencoder_layers")


@cache
def loaded() -> bool:
    """Compiles the kernels if need be, and tells XLA of them; False, and a warning, where that can't be done."""
    if (by := compiler()) is None:
        logging.warning("no C++ compiler (c++, g++, clang++) is there: on CPUs, answers take longer")
        return False
    try:
        library = ctypes.CDLL(str(compiled(by, user_cache("kernels"))))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        said = error.stderr[-500:] if isinstance(error, subprocess.CalledProcessError) else str(error)
        logging.warning("%s couldn't compile kernels for this CPU; answers take longer: %s", by, said)
        return False
    for target in TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
    return True


def compiler() -> str | None:
    """The path of the machine's C++ compiler."""
    named = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next(filter(None, map(shutil.which, named)), None)


def compiled(by: str, folder: Path) -> Path:
    """The library, compiled unless it's there. Raises OSError, or CalledProcessError with what the compiler says."""
    told = "\n".join((*(source.read_text() for source in (MAIN, *HEADERS)), by, jax.__version__, *FLAGS, processor()))
    library = folder / f"kernels-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            new = Path(made) / library.name
            command = [by, *FLAGS, "-isystem", jax.ffi.include_dir(), str(MAIN), "-o", str(new)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            new.replace(library)  # others may compile it, too
    return library
