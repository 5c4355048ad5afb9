"""The court on a small corpus: releases as natural forks, from data to verdicts, killed on the way and not."""

import os
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from opencoder_jax.ablations import ablate
from opencoder_jax.files import read_json

ROOT = Path(__file__).resolve().parents[3]
MODULES = (
    *("json", "email", "html", "wsgiref", "urllib", "concurrent", "dbm", "curses", "venv", "zoneinfo", "importlib"),
    *("unittest", "logging", "http", "xmlrpc", "ctypes"),
)
TINY = [
    "--gin.TokenizerConfig.vocab_size=600",
    "--gin.ModelConfig.vocab_size=600",
    "--gin.ModelConfig.width=32",
    "--gin.ModelConfig.layers=1",
    "--gin.ModelConfig.ffn_width=64",
    "--gin.ModelConfig.heads=1",
    "--gin.BitsConfig.project_bytes=4000",
    "--gin.TrainConfig.evaluate_batches=1",
    "--gin.AblationConfig.seeds=2",
    "--gin.AblationConfig.most_seeds=2",
]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases of some packages of Python's library: the second has one file more and a changed one."""
    folder = tmp_path_factory.mktemp("releases")
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in MODULES:
        files = sorted((library / name).rglob("*.py"))
        for version in ("1.0", "1.1"):
            with zipfile.ZipFile(folder / f"{name}-{version}.zip", "w") as archive:
                for number, file in enumerate(files):
                    text = file.read_text(encoding="utf-8", errors="replace")
                    changed = f"# release {version}\n" * 40 if number == 0 else ""
                    archive.writestr(f"{name}/{file.relative_to(library / name)}", changed + text)
    return folder


def recipe(place: Path, **arms: tuple[str, ...]) -> str:
    """Claims of two arms, in a file."""
    first, second = arms
    place.write_text(f"""
AblationConfig.question = "Which?"
AblationConfig.stages = ("exact_duplicates", "train")
AblationConfig.arms = {arms!r}
AblationConfig.claims = {{
    "fewer tokens": ("tokens", {first!r}, {second!r}, "less", 0.05),
    "better": ("bits_per_byte", {first!r}, {second!r}, "less", 0.02),
    "copies": ("copies", {second!r}, "", "more", 0.05),
}}
""")
    return str(place)


def found(output: Path) -> dict[str, dict]:
    (decisions,) = read_json(output / ablate.RESULTS).values()
    return {each["claim"]["says"]: each for each in decisions}


@pytest.mark.slow
def test_counts_are_exact_and_a_planted_effect_is_found(releases: Path, tmp_path: Path) -> None:
    """The arm that is right has its words in order; the other one's are shuffled within half of the lines."""
    file = recipe(
        tmp_path / "planted.gin", plain=(), spoiled=("shuffle_lines --gin.ShuffleLinesConfig.words=True", "train")
    )
    ablate.main([file, f"--archives={releases}", f"--output={tmp_path}/run", *TINY, "--gin.TrainConfig.steps=120"])
    decisions = found(tmp_path / "run")
    assert decisions["better"]["outcome"] == "agrees"
    assert decisions["better"]["effect"]["high"] < 0
    # Every file but the first of a package stands in both of its releases.
    assert decisions["fewer tokens"]["outcome"] == "agrees"
    assert -0.5 < decisions["fewer tokens"]["effect"]["estimate"] < -0.3
    assert decisions["copies"]["outcome"] == "undecided"  # their lines are in other orders


@pytest.mark.slow
def test_killed_on_the_way_the_report_is_the_same_to_the_byte(releases: Path, tmp_path: Path) -> None:
    """Once in the middle of the data, once in the middle of training, once before the report."""
    command = [sys.executable, "-m", "opencoder_jax", "ablate", "two.gin", f"--archives={releases}", "--output=run"]
    command += [*TINY, "--gin.TrainConfig.steps=30", "--gin.OptimizerConfig.warmup_steps=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    reports = []
    for name, kills in (("whole", ()), ("killed", (3, 11, 16))):
        place = tmp_path / name
        place.mkdir()
        recipe(place / "two.gin", once=(), twice=("train",))
        for steps in kills:
            process = subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.DEVNULL)
            while finished(place / "run") < steps and process.poll() is None:
                time.sleep(0.02)
            assert process.poll() is None, "it ended before it could be killed"
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, cwd=place, env=environment, check=True, stderr=subprocess.DEVNULL)
        reports.append((place / "run" / "report.html").read_bytes())
    assert reports[0] == reports[1]


def finished(run: Path) -> int:
    return len([*run.glob("*/*/stage.json"), *run.glob("*/*/step.json")])
