"""Programs of other languages a second in the sandbox, compiled and run, and run again; beside the compiler alone.

Run: python -m tests.benchmarks.polyglot [--language=C++] [--programs=40] [--workers=2]

Each program differs from the others, so that each is compiled. The peer is what any harness pays: the row's plain
command line of the compiler, without a jail, as often and as many at once. Beside the clock stands the processor time,
which hardly depends on what else the machine does.
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from opencoder_jax.sandbox.languages.polyglot import Polyglot
from opencoder_jax.sandbox.languages.toolchains import find
from opencoder_jax.sandbox.pool import Sandbox

SOURCES = {
    "C": '#include <stdio.h>\nint main(void) { printf("%d\\n", NUMBER); return 0; }\n',
    "C++": (
        "#include<assert.h>\n#include<bits/stdc++.h>\n"
        "bool close(std::vector<float> a, float by) {\n"
        "  for (size_t i = 0; i < a.size(); i++)\n    for (size_t j = i + 1; j < a.size(); j++)\n"
        "      if (std::abs(a[i] - a[j]) < by) return true;\n  return false;\n}\n"
        'int main() { assert(close({1.0f, 2.0f, NUMBER}, 0.0f) == false); printf("%d\\n", NUMBER); }\n'
    ),
    "Go": 'package main\nimport "fmt"\nfunc main() { fmt.Println(NUMBER) }\n',
    "Rust": 'fn main() { println!("{}", NUMBER); }\n',
    "Java": "public class Main { public static void main(String[] a) { System.out.println(NUMBER); } }\n",
    "JavaScript": "console.log(NUMBER);\n",
}


def measured(action: Callable[[int], None], count: int, workers: int) -> tuple[float, float]:
    """Seconds by the clock and of all processors, of so many calls."""

    def spent() -> float:
        usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    clock, processors = time.perf_counter(), spent()
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(action, range(10, 10 + count)))
    return time.perf_counter() - clock, spent() - processors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", default="C++", choices=SOURCES)
    parser.add_argument("--programs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    flags = parser.parse_args()
    source, toolchain = SOURCES[flags.language], find(flags.language)
    toolchain.prepare()
    # A sandbox's processes are waited for by its own, so their time is in the outcomes.
    inside = [0.0]

    with Sandbox(workers=flags.workers) as sandbox:
        polyglot = Polyglot(sandbox)

        def ours(number: int) -> None:
            outcome = polyglot.build(flags.language, source.replace("NUMBER", str(number))).run()
            assert outcome.stdout == f"{number}\n", outcome
            inside[0] += outcome.cpu_seconds

        def plain(number: int) -> None:
            with tempfile.TemporaryDirectory() as folder:
                row = toolchain.language
                Path(folder, row.file.replace("{main}", "Main")).write_text(source.replace("NUMBER", str(number)))
                for line in (*row.compile, row.run):
                    words = toolchain.line(line, "Main", 512 << 20)
                    environment = toolchain.environment()
                    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)

        ours(1)
        rows = {"compiled and run": measured(ours, flags.programs, flags.workers)}
        rows["run again"] = measured(ours, flags.programs, flags.workers)
        rows["without a jail"] = measured(plain, flags.programs, flags.workers)
    print(f"{flags.language}, {toolchain.version}; {flags.programs} programs, {flags.workers} at once\n")
    print(f"{'':20}{'programs/s':>12}{'seconds each':>14}")
    for name, (clock, _) in rows.items():
        print(f"{name:20}{flags.programs / clock:12.1f}{clock / flags.programs:14.3f}")
    print(f"\nprocessor time of one without a jail: {rows['without a jail'][1] / flags.programs:.3f} s")


if __name__ == "__main__":
    main()
