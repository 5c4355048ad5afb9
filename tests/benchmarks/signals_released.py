"""Runs OpenCoder's released filter over JSON lines: what tests.benchmarks.signals starts in another interpreter.

Run: PYTHON signals_released.py CHECKOUT <documents.jsonl >measured.jsonl

Needs a checkout of opc_data_filtering and its packages in that interpreter, and nothing of ours. The filter's timers
work on the main thread only, so it runs there. Its draws by `random.random()` always hit, to compare. A line that comes
back holds the signals, the rules that fired, errors, how code and comments were split, and the processor seconds.
"""

import contextlib
import importlib
import json
import random
import sys
import time


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    # By name, as the checkout is no part of this environment.
    make_view = importlib.import_module("document").QSCodeDocument
    measure = importlib.import_module("pipeline.compute_quality_signals").ComputeCodeQualitySignal()
    judge = importlib.import_module("pipeline.compute_filtering").CodeFilter()
    random.random = lambda: 1.0
    for line in sys.stdin:
        document = json.loads(line)
        kind, natural, language = document["doc_type"], document["lang"], document["program_lang"]
        with contextlib.redirect_stdout(sys.stderr):
            start = time.process_time()
            measured = json.loads(measure.evaluate(**document))
            signals = measured.get("quality_signal", "")
            judged = json.loads(judge.evaluate(kind, natural, language, signals))
            seconds = time.process_time() - start
            fields = {"content": document["text"], "language": natural, "extension": document["ext"]}
            fields |= {"filename": document["filename"], "file_size_in_byte": document["file_size_in_byte"]}
            view = make_view(**fields, program_lang=language, doc_type=kind)
            split = [len(view.code_normalized_lines), len(view.comment_raw_content)]
        hits = [rule for rule, hit in json.loads(judged["hit_map"]).items() if hit]
        result = {"signals": json.loads(signals or "{}"), "hits": hits, "split": split, "seconds": seconds}
        result["errors"] = sorted(json.loads(measured.get("err_msg", "{}")))
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
