"""`python -m opencoder_jax`: the verbs are told, found, and each loads only what it needs."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from opencoder_jax.__main__ import VERBS, has_tpu, main
from opencoder_jax.recipe import UserError

ROOT = Path(__file__).resolve().parents[2]


def opencoder_jax(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "opencoder_jax", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_verb_every_verb_is_listed_with_an_example(arguments: tuple[str, ...]) -> None:
    ended = opencoder_jax(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    for verb in VERBS:
        assert f"python -m opencoder_jax {verb} --" in ended.stdout


def test_an_unknown_verb_is_one_line_with_the_nearest() -> None:
    ended = opencoder_jax("trian", "--gin_file=x")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: unknown verb trian; did you mean train?\n"


def test_a_verb_like_no_other_is_answered_with_the_list() -> None:
    verbs = "cookbook, train, launch, compile, generate, eval, export_tokenizer"
    with pytest.raises(UserError, match=f"^unknown verb xyzzy; the verbs are {verbs}$"):
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


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_every_verb_names_flags_that_it_has(verb: str) -> None:
    helped = opencoder_jax(verb, "--help")
    assert helped.returncode == 0, helped.stderr
    flags = [word.split("=")[0] for word in VERBS[verb].example.split() if word.startswith("--")]
    assert [flag for flag in flags if flag not in helped.stdout] == []
