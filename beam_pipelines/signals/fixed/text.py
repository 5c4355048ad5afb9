"""Signals of text: Markdown, plain text, pages.

The definitions are those of OpenCoder's released filter (quality_signals/doc.py); the signals that text shares with
code are in code.py. A share whose denominator is zero is None.
"""

import re
from collections import Counter
from pathlib import PurePosixPath

import numpy as np

from opencoder_jax.beam_pipelines.signals.fixed.code import SHARED, hex_word_chars
from opencoder_jax.beam_pipelines.signals.views.signal import Signal, named, ratio
from opencoder_jax.beam_pipelines.signals.views.view import View

_READ_MORE = ("...", "…", "全文", "详情", "详细", "更多", "المزيد", "تفاصيل", "もっと", "詳細", "もっと読む")
_SENTENCE = re.compile(r"\b[^.!?。！？؟]++[.!?。！？؟]*+")
_LINK_OR_TAG = re.compile(r"\(https?://[^()\s]*+\)|<[^<>\n]++>")
_SENTENCE_ENDERS = ".?!\n"
_FULL_BRACKETS = "【】"
_CODE_RELATED = ("readme", "notes", "todo", "description", "cmakelists")

# Bullets, small dots, squares, circles, diamonds, triangles, ballot boxes: the 54 code points that the reference lists.
_BULLET_RANGES = (
    (0x2022, 0x2023), (0x2043, 0x2043), (0x204C, 0x204D), (0x2219, 0x2219), (0x25A0, 0x25AF), (0x25C6, 0x25CB),
    (0x25CF, 0x25D6), (0x25D8, 0x25D9), (0x25E2, 0x25E6), (0x25EF, 0x25EF), (0x2611, 0x2612), (0x29BE, 0x29BE),
    (0x2B1B, 0x2B1C), (0x2B1E, 0x2B1F), (0x2B24, 0x2B24),
)  # fmt: skip
BULLETS = tuple(chr(code) for first, last in _BULLET_RANGES for code in range(first, last + 1))

# Common English function words: a list of ours, as no rule reads the signal.
_STOP_WORDS = """
a about after all also an and any are as at be been but by can could did do does each for from had has have he her his
how i if in into is it its may more most much must my no not of on one only or other our out over shall she so some such
than that the their them then there these they this those to under up was we were what when where which who will with
would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def num_sentences(view: View) -> float:
    """Runs of text between sentence enders, Latin, Chinese and Arabic."""
    return float(len(_SENTENCE.findall(view.text)))


def num_chars_sentence_length_mean(view: View) -> float:
    """Characters a piece of text between full stops, question and exclamation marks and line breaks."""
    ends = sum(map(view.text.count, _SENTENCE_ENDERS))
    return (len(view.text) - ends) / (ends + 1)


def entropy_unigram(view: View) -> float | None:
    """Entropy of the words in nats."""
    if not view.words.number:
        return None
    shares = view.words.counts / view.words.number
    return float(-(shares * np.log(shares)).sum())


def frac_words_all_caps(view: View) -> float | None:
    """Words as written that are upper case, by words as written: see `View.raw_words`."""
    return ratio(sum(map(str.isupper, view.raw_words)), len(view.raw_words))


def frac_words_redpajama_stop(view: View) -> float | None:
    """English function words by words as written; None for Chinese. No rule reads it."""
    if view.natural_language != "en" or not view.raw_words:
        return None
    return sum(map(STOP_WORDS.__contains__, view.raw_words)) / len(view.raw_words)


def frac_words_full_bracket(view: View) -> float | None:
    """Full-width square brackets, by words and these brackets."""
    brackets = sum(map(view.text.count, _FULL_BRACKETS))
    return ratio(brackets, view.words.number + brackets)


def frac_chars_alphabet(view: View) -> float | None:
    """Letters of any script by visible characters; None for Chinese, 0 without visible characters."""
    if not view.visible:
        return 0.0
    if view.natural_language != "en":
        return None
    return view.count(str.isalpha) / view.visible


def frac_chars_hex_words(view: View) -> float | None:
    """Characters of words such as 0x1F by characters."""
    return ratio(hex_word_chars(view.text), len(view.text))


def frac_chars_curly_bracket(view: View) -> float | None:
    """Curly brackets by characters. No rule reads it."""
    return ratio(view.count_of("{") + view.count_of("}"), len(view.text))


def frac_chars_hyperlink_html_tag(view: View) -> float | None:
    """Characters of Markdown link targets and HTML tags by characters."""
    return ratio(sum(len(match) for match in _LINK_OR_TAG.findall(view.text)), len(view.text))


def frac_chars_dupe_lines(view: View) -> float | None:
    """Characters of stripped lines that occur twice or more (all copies), by all stripped lines'."""
    counts = Counter(line.strip() for line in view.lines)
    total = sum(len(line) * count for line, count in counts.items())
    return ratio(sum(len(line) * count for line, count in counts.items() if count > 1), total)


def frac_lines_dupe_lines(view: View) -> float | None:
    """Stripped lines that occur twice or more (all copies), by lines that aren't blank."""
    counts = Counter(stripped for line in view.lines if (stripped := line.strip()))
    return ratio(sum(count for count in counts.values() if count > 1), counts.total())


def frac_lines_end_with_readmore(view: View) -> float | None:
    """Lines that end with an ellipsis or "more" in Chinese, Japanese or Arabic, by lines."""
    some = view.lines if any(ending in view.text for ending in _READ_MORE) else ()
    return ratio(sum(line.rstrip().rstrip("]】)>》").endswith(_READ_MORE) for line in some), len(view.lines))


def frac_lines_start_with_bullet(view: View) -> float | None:
    """Lines that begin with a typographic bullet (not "-" or "*"), by lines."""
    some = () if view.text.isascii() else view.lines
    return ratio(sum(line.lstrip().startswith(BULLETS) for line in some), len(view.lines))


def cate_code_related_file_name(view: View) -> float:
    """1 where the file's name says that it's about code: requirements, readme, notes, todo and the like."""
    stem = PurePosixPath(view.path).name.split(".")[0].lower()
    return float("requirement" in stem or stem in _CODE_RELATED)


TEXT: dict[str, Signal] = SHARED | named(
    *(num_sentences, num_chars_sentence_length_mean, entropy_unigram, frac_words_all_caps, frac_words_redpajama_stop),
    *(frac_words_full_bracket, frac_chars_alphabet, frac_chars_hex_words, frac_chars_curly_bracket),
    *(frac_chars_hyperlink_html_tag, frac_chars_dupe_lines, frac_lines_dupe_lines, frac_lines_end_with_readmore),
    *(frac_lines_start_with_bullet, cate_code_related_file_name),
)
