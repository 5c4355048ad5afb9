"""Which kernels a compiled program runs, beside what XLA fuses itself, and how often."""

import re
from collections import Counter

from opencoder_jax.compile.hlo import Instruction, Program

LIBRARIES = {"cudnn": "cuDNN", "cublas": "cuBLAS"}


def kernels_of(program: Program) -> dict[str, int]:
    """Runs of each kernel in one run of the program; 0 where a loop's turns can't be counted.

    Ours have the names that they were given in Pallas; a GPU's libraries have theirs, and its products that XLA makes
    with Triton are one.
    """
    found: Counter[str] = Counter()
    for instruction, runs in program.walk():
        if name := _name(instruction):
            found[name] += runs or 0
    return dict(sorted(found.items()))


def _name(instruction: Instruction) -> str | None:
    if instruction.opcode == "custom-call":
        if found := re.search(r"([\w.-]+)/pallas_call", instruction.source):
            return found[1]
        if found := re.search(r'custom_call_target="__(cudnn|cublas)\$([\w$]+)', instruction.text):
            return f"{LIBRARIES[found[1]]} {found[2]}"
    if re.search(r'"kind":"__triton\w*gemm\w*"', instruction.text):
        return "products (Triton, by XLA)"
    return None
