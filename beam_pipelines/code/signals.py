"""Measures every document: one column a signal, in a table beside the text.

A signal says nothing about quality by itself; thresholds do (filter.py), so that they can be tuned without measuring
again (paper section 2.1.3). Names and definitions are OpenCoder's (opc_data_filtering): `qsc_code_` for code and data,
`qsc_doc_` for text, `qsc_codepython_` for Python. Each signal is a small function of a `View`; SIGNALS is the list of
them. Where a signal doesn't apply, or its denominator is zero, its column is null.

A signal that fails is named in the column `errors` and leaves the others alone; the filter sets such documents aside.
(The reference stops at the first failure and then passes every rule that it didn't get to.)

Cost: about 3 MB/s a core on Python source, most of it Python's own parser; no subprocess, no timer, no model.
"""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from beam_pipelines.code import signals_general as general
from beam_pipelines.code import signals_python as python
from beam_pipelines.code.view import View
from beam_pipelines.manifest import Manifest
from beam_pipelines.runner import BeamOptions
from beam_pipelines.stage import Result, main, map_stage, require_inputs
from opencoder_jax.recipe import configurable

SPEED = 3.0  # megabytes of Python source a second on one core

Signal = Callable[[View], float | None]


def top_grams(view: View, length: int) -> float:
    """Share of characters in the most frequent n-gram of words: see `Grams.top`."""
    return view.grams.top(length)


def duplicate_grams(view: View, length: int) -> float:
    """Share of characters in repeated n-grams of words: see `Grams.duplicate`."""
    return view.grams.duplicate(length)


_WORDS: dict[str, Signal] = {
    "num_chars": general.num_chars,
    "num_words": general.num_words,
    "num_lines": general.num_lines,
    "mean_word_length": general.mean_word_length,
    "frac_words_unique": general.frac_words_unique,
    "frac_chars_alphabet": general.frac_chars_alphabet,
    "frac_chars_digital": general.frac_chars_digital,
    "frac_chars_whitespace": general.frac_chars_whitespace,
    "frac_chars_replacement_symbols": general.frac_chars_replacement_symbols,
    "frac_chars_hex_words": general.frac_chars_hex_words,
    **{f"frac_chars_top_{length}grams": partial(top_grams, length=length) for length in (2, 3, 4)},
    **{f"frac_chars_dupe_{length}grams": partial(duplicate_grams, length=length) for length in range(5, 11)},
}

CODE: dict[str, Signal] = {f"qsc_code_{name}": signal for name, signal in _WORDS.items()} | {
    "qsc_code_size_file_byte": general.size_file_byte,
    "qsc_code_num_chars_line_max": general.num_chars_line_max,
    "qsc_code_num_chars_line_mean": general.num_chars_line_mean,
    "qsc_code_frac_chars_comments": general.frac_chars_comments,
    "qsc_code_frac_chars_string_length": general.frac_chars_string_length,
    "qsc_code_frac_chars_long_word_length": general.frac_chars_long_word_length,
    "qsc_code_frac_lines_dupe_lines": general.frac_code_lines_dupe_lines,
    "qsc_code_frac_lines_long_string": general.frac_lines_long_string,
    "qsc_code_frac_lines_prompt_comments": general.frac_lines_prompt_comments,
    "qsc_code_frac_lines_assert": general.frac_lines_assert,
    "qsc_code_cate_xml_start": general.cate_xml_start,
    "qsc_code_cate_autogen": general.cate_autogen,
    "qsc_code_cate_encoded_data": general.cate_encoded_data,
}

TEXT: dict[str, Signal] = {f"qsc_doc_{name}": signal for name, signal in _WORDS.items()} | {
    "qsc_doc_num_sentences": general.num_sentences,
    "qsc_doc_entropy_unigram": general.entropy_unigram,
    "qsc_doc_frac_words_all_caps": general.frac_words_all_caps,
    "qsc_doc_frac_chars_curly_bracket": general.frac_chars_curly_bracket,
    "qsc_doc_frac_chars_hyperlink_html_tag": general.frac_chars_hyperlink_html_tag,
    "qsc_doc_frac_chars_dupe_lines": general.frac_chars_dupe_lines,
    "qsc_doc_frac_lines_dupe_lines": general.frac_text_lines_dupe_lines,
    "qsc_doc_frac_lines_end_with_readmore": general.frac_lines_end_with_readmore,
}

PYTHON: dict[str, Signal] = {
    "qsc_codepython_cate_ast": python.cate_ast,
    "qsc_codepython_cate_var_zero": python.cate_var_zero,
    "qsc_codepython_frac_lines_func_ratio": python.frac_lines_func_ratio,
    "qsc_codepython_frac_lines_simplefunc": python.frac_lines_simplefunc,
    "qsc_codepython_frac_lines_pass": python.frac_lines_pass,
    "qsc_codepython_frac_lines_import": python.frac_lines_import,
    "qsc_codepython_frac_lines_print": python.frac_lines_print,
    "qsc_codepython_score_lines_no_logic": python.score_lines_no_logic,
}

SIGNALS = CODE | TEXT | PYTHON

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("bytes", pa.int64()),
        *((name, pa.float64()) for name in SIGNALS),
        ("errors", pa.string()),  # the signals that failed, and how; empty for nearly all documents
    ]
)


def applicable(kind: str, language: str) -> dict[str, Signal]:
    """The signals that a document gets."""
    if kind in ("text", "web"):
        return TEXT
    return CODE | PYTHON if language == "Python" else CODE


@configurable
@dataclass(frozen=True)
class SignalsConfig:
    """What is measured.

    Attributes:
        skip: signals that aren't measured; their columns stay null, so that their rules don't fire.
    """

    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.skip:
            if name not in SIGNALS:
                raise ValueError(f"skip={name!r} is no signal; see SIGNALS in beam_pipelines/code/signals.py")


@dataclass(frozen=True)
class MeasureSignals:
    """The kernel: documents in, the same number of rows of SCHEMA out."""

    config: SignalsConfig

    def __call__(self, documents: pa.RecordBatch) -> Result:
        columns: dict[str, list[float | None]] = {name: [None] * documents.num_rows for name in SIGNALS}
        errors = [""] * documents.num_rows
        counts: dict[str, int] = {}
        fields = [documents.column(name).to_pylist() for name in ("text", "language", "kind", "bytes")]
        with warnings.catch_warnings(), _no_collector():
            warnings.simplefilter("ignore")  # Python's parser warns of the odd escapes in what it reads
            for row, (text, language, kind, size) in enumerate(zip(*fields, strict=True)):
                view = View(text, language, kind, size)
                for name, signal in applicable(kind, language).items():
                    if name in self.config.skip:
                        continue
                    try:
                        columns[name][row] = signal(view)
                    except Exception as error:
                        errors[row] += f"{name}: {type(error).__name__}: {error}\n"
                        counts[f"failed {name}"] = counts.get(f"failed {name}", 0) + 1
        arrays = [
            *(documents.column(name) for name in ("id", "language", "bytes")),
            *(pa.array(columns[name], pa.float64()) for name in SIGNALS),
            pa.array(errors, pa.string()),
        ]
        return Result(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA), (), counts)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Pauses the cycle collector: syntax trees are many objects without cycles, and it doubles the time to parse."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def run(inputs: Sequence[str], output: str, config: SignalsConfig, options: BeamOptions) -> Manifest:
    """Writes the table "signals", aligned with the documents."""
    require_inputs("signals", inputs, "documents")
    return map_stage(
        "signals", MeasureSignals(config), inputs, output, config, options, table="signals", megabytes_per_second=SPEED
    )


if __name__ == "__main__":
    main("beam_pipelines.code.signals")
