"""What a Hugging Face folder or a GGUF file holds, and that it is all of a model: no tensor more, none less."""

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from opencoder_jax.exchange.gguf_file import GGUFFile
from opencoder_jax.exchange.safetensors_file import SafetensorsFolder
from opencoder_jax.files import read_json
from opencoder_jax.model.huggingface import Weight
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.tokenizer_files import FOREIGN

CONFIG = "config.json"
# Older exports hold what follows from the configuration.
_FOLLOWS = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


class Tensors(Protocol):
    """Tensors by their names, with shapes and the names of dtypes."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    @abstractmethod
    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A tensor, or some of its rows."""


class Foreign(NamedTuple):
    """A model made elsewhere.

    Attributes:
        name: of the folder or file, for errors.
        config: of config.json, or what it would be.
        about: its name and licence, where they're known.
        files: the content of those that come along, by their names.
        tensors: the weights.
    """

    name: str
    config: Mapping[str, Any]
    about: dict[str, Any]
    files: Mapping[str, bytes]
    tensors: Tensors


def open_foreign(path: Path) -> Foreign:
    """A Hugging Face folder, or a GGUF file, alone in a folder or not. Raises UserError for what is neither."""
    if path.is_file() or not (path / CONFIG).exists():
        files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
        if len(files) != 1 or files[0].suffix != ".gguf":
            found = f"has {len(files)} GGUF files: name one" if files[1:] else f"has no {CONFIG} and no GGUF file"
            raise UserError(f"{path}: {found if path.is_dir() else 'neither a folder nor a GGUF file'}")
        gguf = GGUFFile(files[0])
        content = {name: text.encode() for name, text in gguf.files.items()}
        return Foreign(str(files[0]), gguf.config, gguf.about, content, gguf)
    config = read_json(path / CONFIG)
    if not isinstance(config, dict):
        raise UserError(f"{path / CONFIG}: a JSON object is wanted, this is a {type(config).__name__}")
    names = ("tokenizer.model", *FOREIGN)
    files_there = {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
    about = {"name": config.get("_name_or_path") or path.resolve().name, "license": _licence(path / "README.md")}
    return Foreign(str(path / CONFIG), config, about, files_there, SafetensorsFolder(path))


def _licence(card: Path) -> str | None:
    """The licence in the head of a model card."""
    if not card.is_file():
        return None
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license: *\"?([\w.-]+)\"? *$", head[1], re.MULTILINE) if head else None
    return found[1] if found else None


def compare(foreign: Foreign, weights: Sequence[Weight], tied: bool) -> None:
    """Raises UserError for the first tensor that is missing, too much or of another shape."""
    wanted = {name: weight.theirs for weight in weights for name in weight.names}
    found = {name: shape for name, shape in foreign.tensors.shapes.items() if not _FOLLOWS.fullmatch(name)}
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    if tied and head in found and embedding in found:
        shape = found.pop(head)
        if shape != found[embedding] or not _equal(foreign.tensors, head, embedding):
            raise UserError(f"{foreign.name}: tie_word_embeddings is true, but {head} isn't {embedding}")
    if missing := [name for name in wanted if name not in found]:
        advice = "; is tie_word_embeddings missing?" if missing == [head] else ""
        raise UserError(f"{foreign.name}: the tensor {missing[0]} is missing ({len(missing)} in all{advice})")
    if odd := sorted(found.keys() - wanted.keys()):
        raise UserError(f"{foreign.name}: the decoder has no place for the tensor {odd[0]} ({len(odd)} such in all)")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise UserError(f"{foreign.name}: {name} is {list(found[name])}, and {list(shape)} by its configuration")


def _equal(tensors: Tensors, one: str, other: str, rows: int = 4096) -> bool:
    """Whether two tables are the same."""
    starts = range(0, tensors.shapes[one][0], rows)
    parts = ((tensors.read(one, at, at + rows), tensors.read(other, at, at + rows)) for at in starts)
    return all(np.array_equal(*pair) for pair in parts)
