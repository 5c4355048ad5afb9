"""A rule of one's own is a row, and a signal of one's own a function and its name: the whole of what it takes, run."""

import subprocess
import sys
from pathlib import Path

import pytest

from opencoder_jax.recipe import ROOT

# A profile of one's own, in a folder `strict`: the package's thresholds, and one rule more for all code.
HEAD = 'extends = "fixed"\n'
TABLE = """
[[rules]]
signal = "qsc_code_num_lines"
above = 2000
"""

# A signal: a function at the end of beam_pipelines/signals/fixed/code.py, where CODE names it.
SIGNAL = '''
def frac_lines_tabs(view: View) -> float | None:
    """Lines that begin with a tab, by lines."""
    return ratio(sum(line.startswith("\\t") for line in view.lines), view.num_lines)


CODE |= named(frac_lines_tabs)
'''
SIGNAL_TABLE = """
[[rules]]
signal = "qsc_code_frac_lines_tabs"
above = 0.5
"""

# Reads code.py with the function at its end, as an editor would leave it, then measures and judges two documents.
JUDGE = """
import sys
from pathlib import Path
from opencoder_jax.beam_pipelines.signals.fixed import code
exec(compile(Path(sys.argv[1]).read_text(), code.__file__, "exec"), vars(code))
import pyarrow as pa
from opencoder_jax.beam_pipelines.core.documents import SCHEMA
from opencoder_jax.beam_pipelines.filtering.filter import Filter, FilterConfig, FilterRules
from opencoder_jax.beam_pipelines.filtering.rules import load_profile
from opencoder_jax.beam_pipelines.signals.measure import SIGNALS, MeasureSignals, SignalsConfig
lines = [f"value_{number} = compute_{number}(first, second)" for number in range(int(sys.argv[2]))]
texts = ["\\n".join(lines), "\\n\\t".join(["", *lines])]
blank = {name: 0 if kind == pa.int64() else "" for name, kind in zip(SCHEMA.names, SCHEMA.types)}
rows = [blank | {"id": f"{i:032x}", "text": text, "language": "Ruby", "kind": "code"} for i, text in enumerate(texts)]
documents = pa.RecordBatch.from_pylist(rows, SCHEMA)
rules = FilterRules(FilterConfig("strict"), load_profile("strict", set(SIGNALS)))
result = Filter(rules)(documents, MeasureSignals(SignalsConfig())(documents).table)
print([drop.row for drop in result.drops if sys.argv[3] in drop.detail])
"""


@pytest.mark.parametrize(
    ("table", "signal", "lines", "rule", "dropped"),
    [
        (TABLE, "", 1900, "qsc_code_num_lines", []),
        (TABLE, "", 2100, "qsc_code_num_lines > 2000 ", [0, 1]),
        (SIGNAL_TABLE, SIGNAL, 60, "qsc_code_frac_lines_tabs > 0.5 ", [1]),
    ],
    ids=["within the bound", "beyond the bound", "a signal of one's own"],
)
def test_what_one_adds_drops_what_it_names(
    tmp_path: Path, table: str, signal: str, lines: int, rule: str, dropped: list[int]
) -> None:
    assert len([line for line in (HEAD + table + signal).splitlines() if line]) <= 15
    (tmp_path / "strict").mkdir()
    (tmp_path / "strict" / "profile.toml").write_text(HEAD)
    (tmp_path / "strict" / "others.toml").write_text(table)
    code = (ROOT / "beam_pipelines" / "signals" / "fixed" / "code.py").read_text()
    (tmp_path / "code.py").write_text(code + signal)
    command = [sys.executable, "-c", JUDGE, str(tmp_path / "code.py"), str(lines), rule]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == f"{dropped}\n"
