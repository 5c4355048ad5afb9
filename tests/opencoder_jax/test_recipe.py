"""Recipes: what binds, what wins, and how a mistake is told."""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.recipe import (
    UserError,
    bind,
    build,
    check_bindings,
    configurable,
    gin_text,
    operative,
    parse_flags,
    refuse_unknown,
)

ROOT = Path(__file__).resolve().parents[2]
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@configurable
@dataclass(frozen=True)
class OvenConfig:
    heat: float = 200.0
    bread: str = "rye"
    fan: bool = False
    rack: int | None = 1
    phases: tuple[tuple[int, int], ...] = ((0, 20),)

    def __post_init__(self) -> None:
        if self.heat > 300:
            raise ValueError(f"heat={self.heat}: the oven melts; take at most 300")


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def refused(*bindings: str) -> str:
    with pytest.raises(UserError) as caught:
        bind((), bindings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_binds_some_fields_and_leaves_the_others(tmp_path: Path) -> None:
    bind([write(tmp_path / "oven.gin", "OvenConfig.heat = 180.0", "OvenConfig.phases = ((0, 5), (5, 30))")])
    assert build(OvenConfig) == OvenConfig(180.0, phases=((0, 5), (5, 30)))


def test_binding_again_forgets_what_was_bound() -> None:
    bind((), ["OvenConfig.heat=180"])
    bind()
    assert build(OvenConfig) == OvenConfig()


def test_a_flag_wins_over_the_last_file_and_that_over_the_first_and_its_include(tmp_path: Path) -> None:
    base = write(tmp_path / "base.gin", "OvenConfig.heat = 1.0", "OvenConfig.bread = 'a'", "OvenConfig.phases = ()")
    first = write(tmp_path / "first.gin", f"include '{base}'", "OvenConfig.heat = 2.0", "OvenConfig.bread = 'b'")
    second = write(tmp_path / "second.gin", "OvenConfig.heat = 3.0")
    bind([first, second])
    assert build(OvenConfig) == OvenConfig(3.0, "b", phases=())
    bind([first, second], ["OvenConfig.heat=4.0"])
    assert build(OvenConfig) == OvenConfig(4.0, "b", phases=())


def test_a_caller_wins_over_every_recipe() -> None:
    bind((), ["OvenConfig.heat=180"])
    assert OvenConfig(heat=90.0).heat == 90.0


def test_recipes_of_the_repository_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    published = "gin_configs/models/opencoder_1p5b.gin"
    bind([published])
    bind([write(tmp_path / "derived.gin", f"include '{published}'", "OvenConfig.heat = 7.0")])
    assert build(OvenConfig).heat == 7.0


@pytest.mark.parametrize(
    ("binding", "bread"),
    [("rye", "rye"), ("'rye'", "rye"), ('"rye"', "rye"), ("runs/a b", "runs/a b"), ("a=b", "a=b"), ("it's", "it's")],
)
def test_a_string_needs_no_quotes_that_the_shell_would_strip(binding: str, bread: str) -> None:
    bind((), [f"OvenConfig.bread={binding}"])
    assert build(OvenConfig).bread == bread


def test_a_name_of_a_room_that_is_not_loaded_is_no_mistake() -> None:
    program = "from opencoder_jax.recipe import bind; bind((), ['TrainConfig.steps=10', 'ModelConfig.layers=2'])"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_misspelt_name_is_told_with_the_nearest() -> None:
    message = refused("TrianConfig.steps=10")
    assert "TrianConfig" in message
    assert message.endswith("Did you mean TrainConfig?")


@pytest.mark.parametrize(
    ("field", "advice"), [("heet", "Did you mean heat?"), ("colour", "It has heat, bread, fan, rack, phases.")]
)
def test_a_misspelt_field_is_told_with_the_nearest_or_all(field: str, advice: str) -> None:
    message = refused(f"OvenConfig.{field}=10")
    assert "OvenConfig" in message
    assert message.endswith(advice)


def test_a_misspelt_name_in_a_file_is_told_with_the_file(tmp_path: Path) -> None:
    recipe = write(tmp_path / "bad.gin", "OvenConfig.heat = 1.0", "Zzz.steps = 10")
    with pytest.raises(UserError, match=r"bad\.gin, line 2: Zzz\.steps: no configuration is called Zzz"):
        bind([recipe])


@pytest.mark.parametrize("text", ["OvenConfig.heat = = 1", "OvenConfig.heat", "OvenConfig.heat = (1", "\0", "1 = 2"])
def test_a_file_that_is_no_recipe_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"bad\.gin"):
        bind([write(tmp_path / "bad.gin", text)])


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^gin file nowhere/at_all\.gin: no such file$"):
        bind(["nowhere/at_all.gin"])
    with pytest.raises(UserError, match=r"missing\.gin"):
        bind([write(tmp_path / "outer.gin", "include 'missing.gin'")])


def test_a_value_that_the_configuration_refuses_is_told_in_its_words() -> None:
    bind((), ["OvenConfig.heat=400"])
    with pytest.raises(UserError, match=r"^OvenConfig: heat=400: the oven melts; take at most 300$"):
        build(OvenConfig)


@given(
    st.builds(
        OvenConfig,
        heat=st.floats(max_value=300, allow_nan=False, allow_infinity=False),
        bread=st.text(st.characters(codec="utf-8")),
        phases=st.lists(st.tuples(INTEGERS, INTEGERS), max_size=3).map(tuple),
    )
)
def test_the_operative_text_of_a_configuration_builds_it_again(
    tmp_path_factory: pytest.TempPathFactory, config: OvenConfig
) -> None:
    path = tmp_path_factory.getbasetemp() / "operative.gin"
    path.write_text(operative(config), "utf-8")
    bind([str(path)])
    assert build(OvenConfig) == config


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bake", epilog="Example: bake --output=loaf")
    parser.add_argument("--output")
    return parser


def test_flags_of_the_command_and_of_the_recipe_are_told_apart(tmp_path: Path) -> None:
    recipe = write(tmp_path / "oven.gin", "OvenConfig.heat = 180.0", "OvenConfig.bread = 'spelt'")
    flags, rest = parse_flags(
        parser(), ["--output=loaf", f"--gin_file={recipe}", "--gin.OvenConfig.heat=190", "--runner=X", "more"]
    )
    assert (flags.output, rest) == ("loaf", ["--runner=X", "more"])
    assert build(OvenConfig) == OvenConfig(190, "spelt")


@pytest.mark.parametrize("flag", ["--gin.OvenConfig.heat", "--gin.heat=1", "--gin."])
def test_a_malformed_override_is_told(flag: str) -> None:
    with pytest.raises(UserError, match=r"write --gin\.Name\.field=value"):
        parse_flags(parser(), [flag])


def test_help_shows_the_example_and_the_override(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_flags(parser(), ["--help"], OvenConfig)
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "Example: bake --output=loaf\n" in printed
    assert "a flag such as --gin.OvenConfig.heat=200.0:" in printed
    assert "OvenConfig.bread: str = 'rye'" in printed


def test_a_type_that_a_field_does_not_take_is_told_with_the_file(tmp_path: Path) -> None:
    recipe = write(tmp_path / "bad.gin", "OvenConfig.heat = 1.0", "OvenConfig.bread = 3")
    with pytest.raises(UserError, match=r"bad\.gin, line 2: OvenConfig\.bread=3: must be str, such as 'rye'$"):
        bind([recipe])
    assert refused("OvenConfig.phases=[(0, 5)]").endswith(
        "OvenConfig.phases=[(0, 5)]: must be tuple[tuple[int, int], ...], such as ((0, 20),)"
    )
    assert "must be int" in refused("TrainConfig.steps=ten")  # of a room that isn't loaded


def test_a_macro_may_stand_for_any_value(tmp_path: Path) -> None:
    bind([write(tmp_path / "macro.gin", "HEAT = 150.0", "OvenConfig.heat = %HEAT")])
    assert build(OvenConfig).heat == 150.0


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("hot/OvenConfig.heat = 1.0", "hot/OvenConfig: a recipe has no scopes; take hot/ away"),
        ("hot/OvenConfig:\n  heat = 1.0", "hot/OvenConfig: a recipe has no scopes; take hot/ away"),
        ("import os", "import os: a recipe imports nothing; take the line out"),
        ("from os import path", "import os.path: a recipe imports nothing; take the line out"),
        ("OvenConfig.heat = @OvenConfig()", "@OvenConfig: a field takes a value, no reference"),
        ("OvenConfig.heat = %HEAT", "%HEAT isn't bound; write HEAT = VALUE in the recipe"),
        ("HEAT = %HEAT\nOvenConfig.heat = %HEAT", "%HEAT stands for itself"),
        ("HEAT = 'a'\nOvenConfig.heat = %HEAT", "OvenConfig.heat='a': must be float"),
        ("OvenConfig.heat = 1e999", "OvenConfig.heat=inf: must be float, of finite numbers"),
        ("OvenConfig.heat = true", "'true' is no value; write a number, True, False, None or 'text'"),
    ],
)
def test_what_a_recipe_does_not_take_is_told_with_the_line(tmp_path: Path, statement: str, told: str) -> None:
    with pytest.raises(UserError, match=r"^recipe: [^\n]*bad\.gin[,:] line \d[^\n]*$") as caught:
        bind([write(tmp_path / "bad.gin", statement)])
    assert told in str(caught.value)
    assert str(caught.value).count("bad.gin") == 1


def test_true_false_and_none_are_taken_where_the_field_means_them() -> None:
    assert check_bindings((), []) == {}
    bind((), ["OvenConfig.fan=true", "OvenConfig.rack=none", "OvenConfig.bread=none"])
    assert build(OvenConfig) == OvenConfig(fan=True, rack=None, bread="none")
    bind((), ["OvenConfig.fan=false"])
    assert build(OvenConfig).fan is False
    for word in ("no", "yes", "off", "0", "none", "'true'"):
        assert refused(f"OvenConfig.fan={word}").endswith("must be bool, such as False")


def test_an_include_is_also_looked_up_beside_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    write(folder / "inner.gin", "OvenConfig.heat = 5.0")
    write(folder / "middle.gin", "include 'inner.gin'")
    outer = write(tmp_path / "outer.gin", "include 'recipes/middle.gin'")
    bind([outer])
    assert build(OvenConfig).heat == 5.0
    assert gin_text(outer) == "OvenConfig.heat = 5.0"
    write(folder / "inner.gin", "include 'middle.gin'")
    with pytest.raises(UserError, match=r"includes itself"):
        bind([outer])


def test_an_override_of_what_a_command_does_not_read_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^--gin\.TrainConfig\.steps=1: this command doesn't read TrainConfig; it reads"
    ):
        parse_flags(parser(), ["--gin.TrainConfig.steps=1"], OvenConfig)


@pytest.mark.parametrize("flags", [["--outp=loaf"], ["--output"]])
def test_flags_are_not_abbreviated_and_a_slip_is_one_line(flags: list[str]) -> None:
    command = parser()
    with pytest.raises(UserError) as caught:
        refuse_unknown(command, parse_flags(command, flags)[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (["opencoder_jax", "cookbook", "--gin.TrainConfig.stepz=20", "--output=run"], "stepz. Did you mean steps?"),
        (["opencoder_jax", "train", "--gin.FilterConfig.nosuchfield=1"], "FilterConfig has no field nosuchfield"),
        (["opencoder_jax", "train", "--gin.TrainConfig.steps=ten"], "must be int"),
        (["beam_pipelines", "filter", "--gin.FilterConfig.seed=x"], "must be int"),
        (
            ["beam_pipelines", "refinecode", "--gin.NoConfig.seed=1", "--output=run"],
            "no configuration is called NoConfig",
        ),
    ],
)
def test_every_command_checks_its_recipe_before_it_loads_or_writes_anything(
    command: list[str], field: str, tmp_path: Path
) -> None:
    program = (
        "import sys, runpy\n"
        f"sys.argv = {command}\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "finally: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert field in done.stderr
    assert not {"jax", "apache_beam"} & set(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_argument_is_told_with_the_nearest() -> None:
    command = parser()
    _, rest = parse_flags(command, ["--outptu=loaf"])
    with pytest.raises(UserError, match=r"^unknown argument --outptu=loaf; did you mean --output\?$"):
        refuse_unknown(command, rest)
    refuse_unknown(command, [])


@pytest.mark.parametrize(
    ("statement", "code", "error"),
    [
        ("print(argv)", 0, ""),
        ("raise UserError('corpus/: no such folder')", 2, "error: corpus/: no such folder\n"),
        ("open('no/such/file')", 2, "error: no/such/file: No such file or directory\n"),
        ("raise OSError(28, 'No space left on device')", 2, "error: input/output: No space left on device\n"),
        ("raise KeyboardInterrupt", 130, "interrupted: run the same command again to go on from here\n"),
        (
            "import numppy",
            2,
            "error: the package numppy isn't installed; README says which requirements take it along\n",
        ),
        (
            "1 // 0",
            1,
            "error: ZeroDivisionError: integer division or modulo by zero (a fault of this program; the same command "
            "with --debug shows where)\n",
        ),
        (
            "raise RuntimeError('Traceback (most recent call last):\\n  File x\\nKeyError: 1 [while running 2]\\n')",
            1,
            "error: KeyError: 1 (a fault of this program; the same command with --debug shows where)\n",
        ),
    ],
)
def test_a_command_ends_with_its_code_and_one_line(statement: str, code: int, error: str) -> None:
    program = f"from opencoder_jax.recipe import *\ndef main(argv): {statement}\nrun_command(main)"
    ended = subprocess.run([sys.executable, "-c", program, "a", "b"], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (code, error)
    assert ended.stdout == ("['a', 'b']\n" if code == 0 else "")


def test_debug_shows_the_traceback_too() -> None:
    program = "from opencoder_jax.recipe import run_command\nrun_command(lambda argv: print(argv) or 1 // 0)"
    command = [sys.executable, "-c", program, "a", "--debug", "--", "--debug"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == "['a', '--', '--debug']\n"
    assert ended.stderr.count("Traceback") == 1
    assert ended.stderr.splitlines()[-1].startswith("error: ZeroDivisionError")


def test_a_thread_that_fails_is_one_line_too() -> None:
    program = (
        "import threading\nfrom opencoder_jax.recipe import run_command\ndef main(argv):\n"
        "    thread = threading.Thread(target=lambda: 1 // 0)\n    thread.start()\n    thread.join()\nrun_command(main)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.stderr == "warning: ZeroDivisionError: integer division or modulo by zero\n"
    assert ended.returncode == 0


@pytest.mark.parametrize("lines", [1, 100_000])
def test_an_output_that_nobody_reads_ends_a_command_quietly(lines: int) -> None:
    program = f"from opencoder_jax.recipe import run_command\nrun_command(lambda argv: print('x\\n' * {lines}))"
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_is_full_is_one_line() -> None:
    program = "from opencoder_jax.recipe import run_command\nrun_command(lambda argv: print('x'))"
    command, buffered = [sys.executable, "-c", program], os.environ | {"PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT, text=True, env=buffered)
    assert (ended.returncode, ended.stderr) == (2, "error: standard output: No space left on device\n")


def test_a_module_may_be_run_and_imported_at_once(tmp_path: Path) -> None:
    """`python -m stage` loads the module as `__main__`; its `run`, imported by name, is the copy that gin knows."""
    write(
        tmp_path / "kiln.py",
        "from dataclasses import dataclass",
        "from opencoder_jax.recipe import bind, build, configurable",
        "@configurable",
        "@dataclass(frozen=True)",
        "class KilnConfig:",
        "    heat: int = 1",
        "if __name__ == '__main__':",
        "    import kiln",
        "    bind((), ['KilnConfig.heat=7'])",
        "    print(build(kiln.KilnConfig).heat)",
    )
    ended = subprocess.run(
        [sys.executable, "-m", "kiln"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "7\n"


@pytest.mark.parametrize(
    ("guess", "meant"),
    [
        ("NearDuplicatesConfig.threshold=0.8", "Did you mean bands and rows, which"),
        ("TrainConfig.batch_size=8", r"Did you mean DataConfig\.phases, whose third number"),
        ("TrainConfig.learning_rate=1.0", r"Did you mean OptimizerConfig\.peak_learning_rate\?"),
        ("TrainConfig.stepz=8", r"Did you mean steps\?"),
    ],
)
def test_what_others_call_otherwise_is_told(guess: str, meant: str) -> None:
    with pytest.raises(UserError, match=meant):
        check_bindings((), [guess])
