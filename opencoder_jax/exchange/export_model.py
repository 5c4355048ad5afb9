"""A model directory as a Hugging Face folder: what transformers, vLLM and llama.cpp's converter read.

Each chunk of the checkpoint is read, turned and written before the next, so the memory holds the largest chunk twice,
and not the model. Checksums are added up on the way: a damaged checkpoint isn't exported. The folder is there whole or
not at all.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_jax.exchange.directory import ORIGIN, made
from opencoder_jax.exchange.folder import CONFIG
from opencoder_jax.exchange.model_card import Story, model_card
from opencoder_jax.exchange.safetensors_file import CODES, DTYPES, SHARD_BYTES, SafetensorsWriter
from opencoder_jax.exchange.tokenizer_export import hugging_face_files
from opencoder_jax.files import read_json, write_json, write_whole
from opencoder_jax.model.huggingface import Weight, to_config, weights
from opencoder_jax.parallel.model_directory import CHECKPOINTS, choose_step, read_config
from opencoder_jax.parallel.streamed import StoredArray, word_sum
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.hugging_face import open_tokenizer
from opencoder_jax.tokenization.tokenizer import TextTokenizer, Tokenizer
from opencoder_jax.tokenization.tokenizer_files import FOREIGN, GENERATION_CONFIG, TOKENIZER, TOKENIZER_JSON


def export_model(
    source: Path,
    target: Path,
    step: int | None = None,
    dtype: str | None = None,
    base: bool = False,
    story: Story | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> str:
    """Makes the Hugging Face folder `target` of a model directory, and says what it holds.

    Args:
        source: a run, or what was imported.
        step: which checkpoint; the newest by default.
        dtype: of the tensors; by default what they came in, else float32, in which they were trained.
        base: the model completes texts and knows no chats.
        story: what the model card tells beside the run itself.
        shard_bytes: the most that a file holds.

    Raises:
        UserError: there is no such checkpoint, it's damaged, a number doesn't fit the dtype, or the disk is full.
    """
    config, step = read_config(source), choose_step(source, step)
    checkpoint = source / CHECKPOINTS / str(step)
    origin = read_json(source / ORIGIN, {})
    found = weights(config)
    dtypes = _dtypes(found, dtype, origin)
    tensors = {name: (dtypes[name], weight.theirs) for name, weight in _in_order(found)}
    size = sum(DTYPES[CODES[kind]].itemsize * int(np.prod(shape)) for kind, shape in tensors.values())
    most = max(set(dtypes.values()), key=list(dtypes.values()).count)
    sums = read_json(checkpoint / "sums" / "metadata", {})
    with made(target, size) as folder:
        with SafetensorsWriter(folder, tensors, shard_bytes) as writer:
            for weight in found:
                total = _write(weight, checkpoint, writer)
                if sums.get(name := ".".join(("parameters", *weight.path))) != total:
                    raise UserError(f"checkpoint {checkpoint} is damaged (the checksum of {name} is wrong)")
        ids = _tokenizer_files(source, folder, base)
        write_whole(folder / CONFIG, json.dumps(to_config(config, most) | ids, indent=2) + "\n")
        card = model_card(source, target.name, config, step, base, story or Story(), origin)
        write_whole(folder / "README.md", card)
        files = sorted(path.name for path in folder.iterdir())
    return f"{target}: {config.parameters():,} parameters of step {step:,} as {most}; {', '.join(files)}"


def _dtypes(found: list[Weight], dtype: str | None, origin: Mapping[str, Any]) -> dict[str, str]:
    """The dtype of each tensor."""
    names = [name for weight in found for name in weight.names]
    if dtype:
        return dict.fromkeys(names, dtype)
    return dict.fromkeys(names, origin.get("dtype", "float32")) | origin.get("other_dtypes", {})


def _in_order(found: list[Weight]) -> Iterator[tuple[str, Weight]]:
    """The tensors as Hugging Face's files have them: the embedding, the layers one by one, the norm, the head."""
    tables = [(weight.names[0], weight) for weight in found if not weight.stacked]
    stacks = [weight for weight in found if weight.stacked]
    layers = [
        (name, weight)
        for group in zip(*(weight.names for weight in stacks), strict=True)
        for name, weight in zip(group, stacks, strict=True)
    ]
    yield from (each for each in tables if each[1].path == ("embedding",))
    yield from layers
    yield from (each for each in tables if each[1].path != ("embedding",))


def _write(weight: Weight, checkpoint: Path, writer: SafetensorsWriter) -> int:
    """Writes what is made of one weight, and gives its checksum."""
    try:
        stored = StoredArray(checkpoint, weight.path)
    except (ValueError, OSError) as error:
        raise UserError(f"checkpoint {checkpoint} is damaged ({'.'.join(weight.path)}: {_line(error)})") from None
    if stored.shape != weight.shape:
        raise UserError(f"checkpoint {checkpoint}: {'.'.join(weight.path)} is {stored.shape}, not {weight.shape}")
    axis = weight.shape.index(weight.theirs[0]) if not weight.stacked else 0
    total = 0
    for start in range(0, weight.shape[axis], stored.chunk[axis]):
        part = slice(start, min(start + stored.chunk[axis], weight.shape[axis]))
        try:
            block = stored.read((slice(None),) * axis + (part,))
        except (ValueError, OSError) as error:
            raise UserError(f"checkpoint {checkpoint} is damaged ({'.'.join(weight.path)}: {_line(error)})") from None
        total += word_sum(block)
        if not weight.stacked:
            writer.write(weight.names[0], weight.to_theirs(block), start)
            continue
        for layer, one in enumerate(block, start):
            writer.write(weight.names[layer], weight.to_theirs(one))
    return total % 2**32


def _tokenizer_files(source: Path, folder: Path, base: bool) -> dict[str, Any]:
    """Writes the tokenizer's files and the generation config, and gives the ids that config.json names."""
    if not any((source / name).exists() for name in (TOKENIZER, TOKENIZER_JSON)):
        return {}  # weights alone came in, and go out
    tokenizer = open_tokenizer(source)
    if isinstance(tokenizer, Tokenizer):
        write_whole(folder / TOKENIZER, tokenizer.model)
        for name, text in hugging_face_files(tokenizer, base, str(source / TOKENIZER)).items():
            write_whole(folder / name, text)
        write_json(folder / GENERATION_CONFIG, _ids(tokenizer, base))
    else:
        for name in FOREIGN:
            if (source / name).is_file():
                write_whole(folder / name, (source / name).read_bytes())
        if not (folder / GENERATION_CONFIG).exists():
            write_json(folder / GENERATION_CONFIG, _ids(tokenizer, base))
    return {name: value for name, value in read_json(folder / GENERATION_CONFIG).items() if name in _IDS}


_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _ids(tokenizer: TextTokenizer, base: bool) -> dict[str, Any]:
    """Where texts begin and end. Of ours, an answer ends with the message or with the document."""
    start = tokenizer.controls.get("<s>") if base else tokenizer.im_start
    ends = sorted(tokenizer.ends)
    return dict(zip(_IDS, (start, ends if len(ends) > 1 else ends[0], tokenizer.pad), strict=True))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
