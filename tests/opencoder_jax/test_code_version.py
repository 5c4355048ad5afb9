"""Which edits make an output stale: those that can have changed its bytes, and no others."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opencoder_jax import code_version
from opencoder_jax.beam_pipelines.__main__ import COMMANDS, VERBS

Edit = Callable[..., dict[str, str]]

STAGE = '''"""A stage."""

import json
from pathlib import Path

from first_helper import unused, used

LIMIT = 3
OTHER = 4


class Config:
    """Its fields."""

    size: int = 1

    def twice(self):
        return self.size * 2


def run(config: Config):
    """Runs."""
    if config.size > LIMIT:
        raise ValueError(f"too large: {LIMIT}")
    return used(Path(__file__).with_name("first_rules.json"))


def never_called():
    return OTHER
'''
HELPER = """import numpy as np


def used(path):
    import second_helper

    return second_helper.deep(path)


def unused():
    return 1
"""
DEEP = "STEP = 5\n\n\ndef deep(path):\n    return STEP\n"


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Writes the stage with some files edited, and returns its code version."""
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {
        "first_stage.py": STAGE,
        "first_helper.py": HELPER,
        "second_helper.py": DEEP,
        "first_rules.json": '{"a": 1}',
    }

    def version(file: str = "", old: str = "", new: str = "") -> dict[str, str]:
        assert old in files.get(file, ""), f"{old} isn't in {file}"
        for name, text in files.items():
            (tmp_path / name).write_text(text.replace(old, new) if name == file else text)
        code_version._source.cache_clear()
        code_version._data.cache_clear()
        return code_version.code_version(("first_stage", "run"))

    yield version
    code_version._source.cache_clear()
    code_version._data.cache_clear()
    assert "first_stage" not in sys.modules, "the sources are read, not run"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("first_stage.py", "LIMIT = 3", "LIMIT = 3  # why"),
        ("first_stage.py", "LIMIT = 3", "\n\n\nLIMIT = 3"),
        ("first_stage.py", '"""Runs."""', '"""Runs it all."""'),
        ("first_stage.py", '"""A stage."""', '"""Another word for a stage."""'),
        ("first_stage.py", "too large", "larger than it may be"),
        ("first_stage.py", "OTHER = 4", "OTHER = 5"),
        ("first_stage.py", "return OTHER", "return 2 * OTHER"),
        ("first_stage.py", "config: Config)", "config: Config) -> object"),
        ("first_stage.py", "OTHER = 4", "OTHER = 4\n\n\nclass NewConfig:\n    field: int = 1"),
        ("first_helper.py", "return 1", "return 2"),
        ("first_rules.json", '{"a": 1}', '{\n\n  "a": 1}\n'),
    ],
)
def test_what_changes_no_byte_changes_no_version(edit: Edit, file: str, old: str, new: str) -> None:
    assert edit(file, old, new) == edit()


@pytest.mark.parametrize(
    ("file", "old", "new", "module"),
    [
        ("first_stage.py", "LIMIT = 3", "LIMIT = 4", "first_stage"),
        ("first_stage.py", "config.size > LIMIT", "config.size >= LIMIT", "first_stage"),
        ("first_stage.py", "size: int = 1", "size: int = 2", "first_stage"),
        ("first_stage.py", "self.size * 2", "self.size * 3", "first_stage"),
        ("first_rules.json", "1", "2", "first_stage"),
        ("first_helper.py", "second_helper.deep(path)", "second_helper.deep(str(path))", "first_helper"),
        ("second_helper.py", "STEP = 5", "STEP = 6", "second_helper"),
    ],
)
def test_what_can_change_a_byte_changes_the_version_of_its_module(
    edit: Edit, file: str, old: str, new: str, module: str
) -> None:
    before, after = edit(), edit(file, old, new)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {module}


STAGES = [name for name in VERBS if name not in COMMANDS]


@pytest.fixture(scope="module")
def versions() -> dict[str, dict[str, str]]:
    return {name: code_version.code_version((VERBS[name].module, "run")) for name in STAGES}


@pytest.mark.parametrize("verb", STAGES)
def test_every_stage_has_a_version_and_none_hangs_on_what_keeps_the_books(
    verb: str, versions: dict[str, dict[str, str]]
) -> None:
    assert VERBS[verb].module in versions[verb]
    assert code_version.BOOKKEEPING.isdisjoint(versions[verb])


def test_nothing_is_imported_for_it() -> None:
    """Whether a training is up to date is known without JAX."""
    ask = "import sys; from opencoder_jax.code_version import code_version as ask\n"
    ask += "assert 'opencoder_jax.model.decoder' in ask(('opencoder_jax.training.train', 'main'))\n"
    ask += "sys.exit(', '.join(sys.modules.keys() & {'jax', 'opencoder_jax.training.run'}))"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stderr.strip() == ""


def test_what_keeps_the_books_is_there() -> None:
    for module in code_version.BOOKKEEPING:
        assert code_version._source(module), f"{module} is no module: take it out of BOOKKEEPING"


def test_stages_hang_on_their_own_rooms(versions: dict[str, dict[str, str]]) -> None:
    """Redaction's lists rerun no deduplication, thresholds no signals, pages no decontamination."""
    rooms = {
        verb: {".".join(module.split(".")[1:3]) for module in version if ".beam_pipelines." in module}
        for verb, version in versions.items()
    }
    apart = ["deduplication", "redaction", "filtering", "tokens", "synthesis"]
    for verb, room in itertools.product(STAGES, apart):
        if f".{room}." not in VERBS[verb].module and (verb, room) not in {
            ("decontaminate", "deduplication"),  # the same words
            ("inspect", "filtering"),  # shows its rules
            ("hold_out", "filtering"),  # draws as `sample` does
        }:
            assert f"beam_pipelines.{room}" not in rooms[verb], f"{verb} hangs on {room}"
    assert not any(module.startswith("opencoder_jax.reports") for module in versions["decontaminate"])
