"""The tokenizer inside a GGUF file as Hugging Face's files: the same ids for the same text.

GGUF names the rule that splits text into words (`tokenizer.ggml.pre`); each name here has the rule that llama.cpp and
the model's own tokenizer.json have for it. Byte-level BPE only.
"""

import json
from collections.abc import Mapping
from typing import Any

from opencoder_jax.recipe import UserError

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}


def _rule(regex: str) -> dict[str, Any]:
    """Words by a rule, their bytes by GPT-2's alphabet."""
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _GPT2 | {"use_regex": False}]}


def _words(digits: str) -> str:
    """The rule of Llama 3's and Qwen's, which differ in how many digits a word has."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        rf"{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_DIGITS_APART = {"type": "Sequence", "pretokenizers": [_DIGITS, _GPT2]}
PRE_TOKENIZERS: Mapping[str, dict[str, Any]] = {
    "gpt-2": _GPT2,
    "smollm": _DIGITS_APART,
    "starcoder": _DIGITS_APART,
    "llama-bpe": _rule(_words(r"\p{N}{1,3}")),
    "qwen2": _rule(_words(r"\p{N}")),
}
_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type


def hugging_face_files(metadata: Mapping[str, Any], file: str) -> dict[str, str]:
    """tokenizer.json, tokenizer_config.json, generation_config.json and the template, by their names.

    Args:
        metadata: what the GGUF file says, by its keys.
        file: what errors call it.

    Raises:
        UserError: the tokenizer is of another kind.
    """

    def of(key: str, default: Any = None) -> Any:
        return metadata.get(f"tokenizer.ggml.{key}", default)

    kind, pre = of("model"), of("pre", "default")
    if kind != "gpt2":
        raise UserError(f"{file}: tokenizer.ggml.model is {kind!r}; only 'gpt2', byte-level BPE, can be read")
    if pre not in PRE_TOKENIZERS:
        raise UserError(f"{file}: tokenizer.ggml.pre is {pre!r}; known are {', '.join(PRE_TOKENIZERS)}")
    tokens: list[str] = of("tokens", [])
    types: list[int] = of("token_type", [1] * len(tokens))
    added = [
        {"id": index, "content": token, "special": kind == _CONTROL}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    names = {name: tokens[index] for name, key in _NAMES.items() if (index := of(f"{key}_token_id")) is not None}
    ends = [index for index in (of("eos_token_id"), of("eot_token_id")) if index is not None]
    start = names.get("bos_token") if of("add_bos_token") else None
    model = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": PRE_TOKENIZERS[pre],
        "post_processor": _starting_with(start, of("bos_token_id")) if start else None,
        "decoder": _GPT2,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in of("merges", [])],
        },
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    files: dict[str, Any] = {
        "tokenizer.json": model,
        "tokenizer_config.json": config,
        "generation_config.json": {
            "bos_token_id": of("bos_token_id"),
            "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
            "pad_token_id": of("padding_token_id"),
        },
    }
    texts = {name: json.dumps(content, ensure_ascii=False, indent=1) + "\n" for name, content in files.items()}
    template = metadata.get("tokenizer.chat_template")
    return texts | ({"chat_template.jinja": template} if template else {})


_NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _starting_with(token: str, index: int) -> dict[str, Any]:
    """What puts a token in front of every text."""
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    one, other = ({"Sequence": {"id": name, "type_id": place}} for place, name in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [first, one],
        "pair": [first, one, {"SpecialToken": {"id": token, "type_id": 1}}, other],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }
