"""Measures every document: one column a signal, in a table beside the text.

A signal says nothing about quality by itself; thresholds do (filtering/), so that they can be tuned without measuring
again (paper section 2.1.3). Names are OpenCoder's (opc_data_filtering): `qsc_code_` for code and data, `qsc_doc_` for
text, `qsc_codepython_` for Python, and so on. Each signal is a small function of a `View`. Where one doesn't apply, or
its denominator is zero, its column is null.

There are two sets of definitions: "fixed" (fixed/), ours, and "reference" (released/), the released code's with its
defects (a bare "generate" marks generated code, "password" is a pass statement), to reproduce its decisions. A profile
of thresholds says which of them it was made for.

A signal that fails is named in the column `errors` and leaves the others alone; the filter sets such documents aside.
(The release stops at the first failure and then passes every rule that it didn't get to.)

Cost: 5 to 9 MB/s a core, most of it parsing; no subprocess, no timer, no model.
"""

import gc
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.signals.fixed import code, programs, python, text
from opencoder_jax.beam_pipelines.signals.released import code as released_code
from opencoder_jax.beam_pipelines.signals.released import programs as released_programs
from opencoder_jax.beam_pipelines.signals.released import python as released_python
from opencoder_jax.beam_pipelines.signals.released.view import ReferenceView
from opencoder_jax.beam_pipelines.signals.views.signal import Signal
from opencoder_jax.beam_pipelines.signals.views.view import View
from opencoder_jax.checks import check, one_of
from opencoder_jax.recipe import configurable

SPEED = 6.0  # megabytes of source a second on one core


def _prefixed(prefix: str, signals: Mapping[str, Signal]) -> dict[str, Signal]:
    return {f"{prefix}_{name}": signal for name, signal in signals.items()}


def _of_languages(languages: Mapping[str, Mapping[str, Signal]]) -> dict[str, dict[str, Signal]]:
    """qsc_codepython_…, qsc_codec_…, qsc_codecpp_… and so on."""
    names = {language: language.lower().replace("+", "p").replace("#", "sharp") for language in languages}
    return {language: _prefixed(f"qsc_code{names[language]}", signals) for language, signals in languages.items()}


@dataclass(frozen=True)
class Definitions:
    """What the names of the signals mean.

    Attributes:
        view: how a document is looked at.
        code: the signals of all code and data.
        text: the signals of text.
        languages: the further signals of code by linguist's name of its language.
    """

    view: type[View]
    code: Mapping[str, Signal]
    text: Mapping[str, Signal]
    languages: dict[str, dict[str, Signal]]

    def applicable(self, kind: str, language: str) -> dict[str, Signal]:
        """The signals that a document gets."""
        if kind in ("text", "web"):
            return dict(self.text)
        return {**self.code, **self.languages.get(language, {})}


CODE = _prefixed("qsc_code", code.CODE)
TEXT = _prefixed("qsc_doc", text.TEXT)

DEFINITIONS = {
    "fixed": Definitions(View, CODE, TEXT, _of_languages({"Python": python.PYTHON, **programs.LANGUAGES})),
    "reference": Definitions(
        ReferenceView,
        _prefixed("qsc_code", released_code.CODE),
        _prefixed("qsc_doc", released_code.TEXT),
        _of_languages({"Python": released_python.PYTHON, **released_programs.LANGUAGES}),
    ),
}

# All signals, in the fixed definitions; the reference has the same names.
SIGNALS: dict[str, Signal] = reduce(or_, [CODE, TEXT, *DEFINITIONS["fixed"].languages.values()])

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("bytes", pa.int64()),
        ("natural_language", pa.string()),  # of text: "zh" or "en", which have different thresholds; "" for code
        *((name, pa.float64()) for name in SIGNALS),
        ("errors", pa.string()),  # the signals that failed, and how; empty for nearly all documents
    ]
)


@configurable
@dataclass(frozen=True)
class SignalsConfig:
    """What is measured.

    Attributes:
        definitions: what the names mean: "fixed" or "reference"; see the module.
        skip: signals that aren't measured; their columns stay null, so that their rules don't fire.
    """

    definitions: str = "fixed"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self, definitions=one_of(*DEFINITIONS))
        for name in self.skip:
            if name not in SIGNALS:
                raise ValueError(f"skip={name!r} is no signal; see beam_pipelines/signals")


@dataclass(frozen=True)
class MeasureSignals:
    """The kernel: documents in, the same number of rows of SCHEMA out."""

    config: SignalsConfig

    def __call__(self, documents: pa.RecordBatch) -> Result:
        columns: dict[str, list[float | None]] = {name: [None] * documents.num_rows for name in SIGNALS}
        errors = [""] * documents.num_rows
        counts: dict[str, int] = {}
        natural = [""] * documents.num_rows
        fields = [documents.column(name).to_pylist() for name in ("text", "language", "kind", "bytes", "path")]
        definitions = DEFINITIONS[self.config.definitions]
        applicable = cache(definitions.applicable)
        with warnings.catch_warnings(), _no_collector():
            warnings.simplefilter("ignore")  # Python's parser warns of the odd escapes in what it reads
            for row, (content, language, kind, size, path) in enumerate(zip(*fields, strict=True)):
                view = definitions.view(content, language, kind, size, path)
                natural[row] = view.natural_language if kind in ("text", "web") else ""
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
            pa.array(natural, pa.string()),
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


def run(documents: str, output: str, config: SignalsConfig, options: BeamOptions) -> Manifest:
    """Writes the table "signals", aligned with the documents.

    Args:
        documents: the directory of the documents.
    """
    kernel = MeasureSignals(config)
    return map_stage("signals", kernel, [documents], output, config, options, "signals", megabytes_per_second=SPEED)
