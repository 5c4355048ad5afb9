"""The cookbook as small as it can be: a little source code, and flags that make every step take seconds."""

import shutil
import sysconfig
from pathlib import Path

# A few kilobytes of everything: enough for every mechanism, not for a model.
TINY = [
    "--gin.CollectConfig.max_corpus_bytes=3000000",
    "--gin.TokenizerConfig.vocab_size=700",
    "--gin.TokenizerConfig.minimum_count=1",
    "--gin.ModelConfig.vocab_size=700",
    "--gin.ModelConfig.width=32",
    "--gin.ModelConfig.layers=1",
    "--gin.ModelConfig.ffn_width=64",
    "--gin.ModelConfig.heads=2",
    "--gin.ModelConfig.kv_heads=1",
    "--gin.ModelConfig.head_size=16",
    "--gin.TrainConfig.steps=6",
    "--gin.TrainConfig.checkpoint_every=2",
    "--gin.TrainConfig.log_every=1",
    "--gin.OptimizerConfig.warmup_steps=1",
    "--gin.TokenRecordsConfig.heldout=0.2",
    "--gin.LibraryCrawlConfig.sites=12",
    "--gin.GrammarConfig.items=40",
    "--gin.HeldOutConfig.problems=4",
    "--gin.EvaluateConfig.samples_per_problem=1",
    "--gin.EvaluateConfig.ks=(1,)",
    "--gin.ModelConfig.context=2048",
    "--gin.SamplingConfig.max_tokens=8",
]
MODULES = [
    "json",
    "email",
    "statistics.py",
    "textwrap.py",
    "heapq.py",
    "difflib.py",
    "bisect.py",
    "fractions.py",
    "html",
]


def copy_source(folder: Path) -> None:
    """Some real modules with doctests, and a copy of one."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in MODULES:
        path = library / name
        if path.is_dir():
            shutil.copytree(path, folder / "library" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / "library").mkdir(exist_ok=True, parents=True)
            shutil.copy(path, folder / "library" / name)
    shutil.copytree(folder / "library" / "json", folder / "fork" / "json")
