"""Writes a tokenizer as Hugging Face's `tokenizer.json`, `tokenizer_config.json` and chat template, with the same ids.

    python -m opencoder_jax export_tokenizer --tokenizer=runs/tokenizer/tokenizer.model --output=runs/hugging_face

`transformers` loads the directory with AutoTokenizer, and so do the servers built on it. It differs from us in one
thing, as is its way: it takes the names of control tokens in a text for the tokens themselves, unless it's loaded with
`split_special_tokens=True`. Then the ids of every text are ours.

Why they are the same. SentencePiece joins neighbours whose joint is a piece, the best score first, the leftmost of
equals; `tokenizers` joins neighbours that stand in a list of pairs, in the order of the list. A piece may have many
splits into two pieces, but only one matters: until a piece's two ends are joined, nothing has crossed them, so what is
inside went as it goes when the piece stands alone, and that is one way. So the list has one pair a piece, the last one
when the piece is encoded by itself; pieces that don't come out of themselves have none, as no text ever has them.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from opencoder_jax.recipe import UserError, parse_flags, refuse_unknown
from opencoder_jax.tokenization.chat import DEFAULT_SYSTEM
from opencoder_jax.tokenization.pre_split import hugging_face_rule
from opencoder_jax.tokenization.tokenizer import (
    END_OF_DOCUMENT,
    IM_END,
    IM_START,
    PAD,
    SPACE_SIGN,
    START,
    UNKNOWN,
    Tokenizer,
)

# ChatML as chat.py has it. What stands between `generation` and `endgeneration` is what is trained on, so
# apply_chat_template(…, return_assistant_tokens_mask=True) of `transformers` is our loss mask.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '" + IM_START + "system\\n" + DEFAULT_SYSTEM + IM_END + "\\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '" + IM_START + "' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' and (message['weight'] is not defined or message['weight'] != 0) %}"
    "{% generation %}{{ message['content'] + '" + IM_END + "' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '" + IM_END + "' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + IM_START + "assistant\\n' }}{% endif %}"
)


def main(argv: list[str]) -> None:
    """The command line. Raises UserError."""
    parser = argparse.ArgumentParser(prog="python -m opencoder_jax export_tokenizer", description=__doc__)
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="a tokenizer.model")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the three files go")
    parser.add_argument("--base", action="store_true", help="for a base model: texts end with </s>, not <|im_end|>")
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    files = hugging_face_files(Tokenizer.load(flags.tokenizer), base=flags.base, name=flags.tokenizer)
    directory = Path(flags.output)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_text(content, encoding="utf-8")
    print(f"{directory}: {', '.join(files)}")


def hugging_face_files(tokenizer: Tokenizer, base: bool = False, name: str = "tokenizer model") -> dict[str, str]:
    """The files by their names. `base` says that texts end with `</s>`; chats end with `<|im_end|>`.

    Raises:
        UserError: `name` isn't a plain BPE model, so that no list of pairs gives its ids.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model)
    Piece = proto.SentencePiece
    if proto.trainer_spec.model_type != proto.trainer_spec.BPE:
        raise UserError(f"{name}: not a BPE model, and no other kind can be written as a list of pairs to join")
    if odd := [piece.piece for piece in proto.pieces if piece.type in (Piece.USER_DEFINED, Piece.UNUSED)]:
        raise UserError(f"{name}: {len(odd)} pieces are user-defined or unused, such as {odd[0]!r}: not to be exported")
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == Piece.NORMAL}
    if strange := {character for piece in scores for character in piece} - scores.keys():
        raise UserError(f"{name}: pieces hold {min(strange)!r}, which isn't a piece itself: not to be exported")
    pairs = joins(scores)
    if len({scores[first + second] for first, second in pairs}) < len(pairs):
        raise UserError(f"{name}: pieces have equal scores, which no list of pairs can say: not to be exported")
    spelling = {piece.piece: piece.piece for piece in proto.pieces}
    spelling |= {piece: piece.replace(SPACE_SIGN, " ") for piece in scores}
    controls = {UNKNOWN: tokenizer.unknown, **tokenizer.controls}
    added = [
        {"id": index, "content": piece, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for piece, index in sorted(controls.items(), key=lambda item: item[1])
    ]
    model: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": hugging_face_rule()},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {spelling[piece.piece]: index for index, piece in enumerate(proto.pieces)},
            "merges": [[spelling[first], spelling[second]] for first, second in pairs],
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START if base else IM_START,
        "eos_token": END_OF_DOCUMENT if base else IM_END,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added
        },
        "chat_template": CHAT_TEMPLATE,
    }
    return {
        "tokenizer.json": json.dumps(model, ensure_ascii=False, indent=1) + "\n",
        "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=1) + "\n",
        "chat_template.jinja": CHAT_TEMPLATE,
    }


def joins(scores: dict[str, float]) -> list[tuple[str, str]]:
    """The pairs to join, the best piece first: of each piece, the last pair when it's encoded by itself."""
    by_score = sorted(scores, key=lambda piece: -scores[piece])
    rank = {piece: number for number, piece in enumerate(by_score)}
    pairs = (_last_pair(piece, rank) for piece in by_score if len(piece) > 1)
    return [pair for pair in pairs if pair is not None]


def _last_pair(piece: str, rank: dict[str, int]) -> tuple[str, str] | None:
    never = len(rank)
    parts = list(piece)
    while len(parts) > 2:
        ranks = [rank.get(first + second, never) for first, second in pairwise(parts)]
        best = min(ranks)
        if best == never:
            return None
        place = ranks.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]
