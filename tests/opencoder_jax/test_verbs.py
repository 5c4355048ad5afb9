"""Both tables of verbs: told, found, each loading only what it needs; their examples and those of README are right."""

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import opencoder_jax.__main__ as opencoder
import opencoder_jax.beam_pipelines.__main__ as beam
from opencoder_jax.__main__ import VERBS, has_tpu, main
from opencoder_jax.recipe import UserError, check_recipe

BEAM_FLAGS = (
    "runner",
    "project",
    "region",
    "temp_location",
    "extra_package",
    "job_endpoint",
    "environment_type",
    "environment_config",
)

ROOT = Path(__file__).resolve().parents[2]


def opencoder_jax(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "opencoder_jax", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_verb_every_verb_is_listed_with_an_example(arguments: tuple[str, ...]) -> None:
    ended = opencoder_jax(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    for verb in VERBS:
        assert f"python -m opencoder_jax {verb} " in ended.stdout


def test_an_unknown_verb_is_one_line_with_the_nearest() -> None:
    ended = opencoder_jax("trian", "--gin_file=x")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: unknown verb trian; did you mean train? ")
    assert ended.stderr.count("\n") == 1


def test_a_verb_like_no_other_is_answered_with_the_list() -> None:
    with pytest.raises(UserError, match=f"^unknown verb xyzzy; the verbs are {', '.join(VERBS)} "):
        main(["xyzzy"])


def test_the_list_of_verbs_loads_no_room() -> None:
    program = "import sys, opencoder_jax.__main__ as m; m.main([]); print(*sys.modules, file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"jax", "tensorflow", "apache_beam"} & set(ended.stderr.split())


@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.skipif(has_tpu(), reason="it is loaded to run on the TPU")
def test_libtpu_is_not_loaded_to_run_where_there_is_no_tpu() -> None:
    program = (
        "import opencoder_jax.__main__ as m; m.leave_libtpu_alone(); import jax; jax.devices();"
        "print('libtpu' in open('/proc/self/maps').read())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "False\n", "")


ALL = [(beam, verb) for verb in beam.VERBS] + [(opencoder, verb) for verb in opencoder.VERBS]


@pytest.mark.parametrize(("program", "verb"), ALL, ids=[verb for _, verb in ALL])
def test_a_verb_s_help_names_its_flags_and_the_fields_that_it_reads(
    program: ModuleType, verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())  # `compile` sets some of it
    with pytest.raises(SystemExit) as ended:
        program.main([verb, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    row = program.VERBS[verb]
    flags = [word.split("=")[0] for word in row.example.split() if word.startswith("--") and "--gin." not in word]
    assert [flag for flag in flags if flag not in text] == []
    told = set(re.findall(r"^  (\w+)\.\w+: ", text, re.MULTILINE))
    assert told == row.reads


def commands_in(text: str) -> list[str]:
    """The commands of a Markdown text: lines of code, put together where they go on, and what stands in backticks."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    found = re.findall(r"^    (python -m (?:opencoder_jax|beam_pipelines)\b.*)$", joined, re.MULTILINE)
    lines = [re.split(r"\s{2,}", command)[0] for command in found]
    return lines + re.findall(
        r"`(python -m (?:opencoder_jax|beam_pipelines)\b[^`\n]*)`", re.sub(r"(?m)^    .*$", "", text)
    )


README = [command for file in ("README.md", "CONTRIBUTING.md") for command in commands_in((ROOT / file).read_text())]


def test_the_commands_of_the_readme_are_found() -> None:
    code = "    python -m opencoder_jax train --data=DIR \\\n        --output=DIR   # a remark\n"
    text = code + "and `python -m beam_pipelines x`.\n"
    assert commands_in(text) == ["python -m opencoder_jax train --data=DIR --output=DIR", "python -m beam_pipelines x"]
    assert len(README) > 20


@pytest.mark.parametrize("line", README)
def test_the_commands_of_the_readme_exist_with_their_flags_and_fields(line: str) -> None:
    _, _, name, *words = shlex.split(line.replace("…", ""))
    if name not in ("opencoder_jax", "beam_pipelines"):
        assert find_spec(name), f"there is no module {name}"
        return
    if not words or words[0].isupper() or words[0] == "--help":
        return
    program = {"opencoder_jax": opencoder, "beam_pipelines": beam}[name]
    flags = words[1 : words.index("--") if "--" in words else None]  # behind that, another command's
    check_recipe(flags)
    asked = [words[0], *(word for word in flags if word.startswith("--program="))]  # `compile` compiles several
    known = set(re.findall(r"--([a-z_]+)", help_of(program, *asked))) | {"gin_file", *BEAM_FLAGS}
    for flag in (word.removeprefix("--").split("=")[0] for word in flags if word.startswith("--")):
        assert flag in known or flag.startswith("gin."), f"{words[0]} has no flag --{flag}"


@cache
def help_of(program: ModuleType, *arguments: str) -> str:
    """What a verb's --help says."""
    before = os.environ.copy()  # `compile` sets some of it
    with redirect_stdout(io.StringIO()) as told, pytest.raises(SystemExit):
        program.main([*arguments, "--help"])
    os.environ.clear()
    os.environ.update(before)
    return told.getvalue()
