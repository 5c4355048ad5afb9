"""The files that a tokenizer is, beside a model or token records: ours is one, a foreign one several."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

TOKENIZER = "tokenizer.model"  # ours, a SentencePiece model

TOKENIZER_JSON = "tokenizer.json"  # a foreign one, as Hugging Face's library writes it
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
GENERATION_CONFIG = "generation_config.json"
# All that belongs to a foreign tokenizer.
FOREIGN = (TOKENIZER_JSON, TOKENIZER_CONFIG, CHAT_TEMPLATE, GENERATION_CONFIG, "special_tokens_map.json")


def read_tokenizer(directory: Path) -> dict[str, bytes]:
    """The files of a directory's tokenizer by name, the one that makes its tokens first.

    Raises:
        FileNotFoundError: there is none.
    """
    foreign = (directory / TOKENIZER_JSON).exists() and not (directory / TOKENIZER).exists()
    first, *rest = FOREIGN if foreign else (TOKENIZER,)
    return {
        name: (directory / name).read_bytes() for name in (first, *rest) if name == first or (directory / name).exists()
    }


def fingerprint(files: Mapping[str, bytes]) -> str:
    """SHA-256, in hexadecimal, of the first file, which makes the tokens."""
    return hashlib.sha256(next(iter(files.values()))).hexdigest()
