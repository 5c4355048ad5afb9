"""How many of GitHub linguist's own samples come out as the language that linguist files them under.

Run: python -m tests.benchmarks.languages --linguist=CHECKOUT [--wrong]

A checkout of https://github.com/github-linguist/linguist holds `samples/LANGUAGE/file`; `samples/LANGUAGE/filenames/…`
are files whose name alone says it. Each is given to `identify` by its name and its head, as a source gives it. Other
folders of files by language do as well: --samples=DIR. Printed: the share that is right, the languages with a wrong
one, and the time a file takes.

Linguist asks a classifier last, trained on these same samples; content_rules.json stands for it here. Whoever wrote its
rules had seen the samples, so the share says that nothing is lost, not how well the rules do on files never seen.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, identify

FOLDERS = {"Fstar": "F*", "ProC": "Pro*C"}  # languages whose name is no name of a folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--linguist", type=Path, help="a checkout of linguist")
    where.add_argument("--samples", type=Path, help="a folder with a folder for each language")
    parser.add_argument("--wrong", action="store_true", help="name every file that comes out otherwise")
    flags = parser.parse_args()
    samples = flags.samples or flags.linguist / "samples"
    seconds, right, wrong = 0.0, 0, []
    for path in sorted(path for path in samples.glob("*/**/*") if path.is_file()):
        folder = path.relative_to(samples).parts[0]
        wanted = FOLDERS.get(folder, folder)
        head = path.read_bytes()[:HEAD_BYTES]
        begin = time.process_time()
        found = identify(path.name, head).name
        seconds += time.process_time() - begin
        right += found == wanted
        if found != wanted:
            wrong.append((wanted, found, path))
    files = right + len(wrong)
    if not files:
        raise SystemExit(f"{samples}: no LANGUAGE/FILE in it")
    print(f"{right} of {files} right, {right / files:.2%}; {1e6 * seconds / files:.0f} µs of the processor a file")
    print("wrong:", ", ".join(f"{name} {count}" for name, count in Counter(name for name, *_ in wrong).most_common()))
    for wanted, found, path in wrong if flags.wrong else ():
        print(f"{wanted} -> {found}: {path}")


if __name__ == "__main__":
    main()
