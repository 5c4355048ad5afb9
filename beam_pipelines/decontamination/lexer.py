"""What a program says, token by token, whatever its layout: a scanner that numba compiles.

A program is its tokens without comments, docstrings, line breaks, parentheses, commas and quotes, so that no formatter
and no indentation matters, and neither does it whether a plain text (plain.py) holds the program itself or the string
that holds it. No language is known: `#`, `//` and `/*` begin comments where they're likely to, and a string in three
quotes that begins a line is a docstring. The scanner's test says the same in a regular expression.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit

from opencoder_jax.beam_pipelines.decontamination.words import COMMON
from opencoder_jax.beam_pipelines.deduplication.texts import Texts

BORDER = 2  # the value behind each text's last token

# Functions that Python has built in are names elsewhere: only what is called is one. These aren't anywhere.
_KEYWORDS = COMMON - frozenset(
    b"abs all any bytes chr dict enumerate filter format input isinstance iter len list map max min next object open "
    b"ord pow print range repr reversed round set sorted str sum tuple type zip".split()
)
_CONSTANTS = (b"True", b"False", b"None")
_OPERATORS = (b"if", b"for", b"and", b"or", b"else", b"in", b"is", b"not")  # behind a division by a name


def _table(*members: int) -> np.ndarray:
    table = np.zeros(256, np.bool_)
    table[list(members)] = True
    return table


_ASCII_LETTER = _table(*b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_DIGIT = _table(*b"0123456789")
_LETTER = _ASCII_LETTER | _table(*b"_", *range(128, 256))
_WORD = _LETTER | _DIGIT
_IN_NUMBER = _ASCII_LETTER | _DIGIT | _table(*b"_.")
_BLANK = _table(*b" \t")
_DOT = _table(*b".")
_CLOSING = _table(*b",;)}]\"'")
_QUOTE = _table(*b"\"'")
_SYMBOL = ~(_WORD | _QUOTE | _table(*b" \t\n\r\f\v(),;`\\/#"))
_PREFIX = _table(*b"bfruBFRU")  # of a string
_GOES_ON = _table(*b"+-*/%&|^<>=!.?")  # an expression, when a token begins with it

_NAME = np.int64(-(1 << 63))
_U = np.uint64
_START, _FACTOR, _MIX = _U(0xCBF29CE484222325), _U(0x100000001B3), _U(0x9E3779B97F4A7C15)


class Tokens(NamedTuple):
    """The tokens of some texts, one text after the other.

    Attributes:
        values: int64. Negative for a name that may be the program's own; of others, odd for what goes on with an
            expression. BORDER behind the last of each text.
        starts, stops: int64, where they lie in their text, in bytes.
        offsets: int64 [texts + 1], where each text's begin.
    """

    values: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    offsets: np.ndarray


def lex(texts: Sequence[bytes], bound: Iterable[bytes] = (), own_calls: bool = True) -> Tokens:
    """The tokens of UTF-8 texts. `bound` are names although they are keywords or built-in functions.

    `own_calls`: also where they're called; without it `max` is the program's own in `max = std::max(max, x)`, and
    `std::max` isn't.
    """
    joined = Texts.join(texts)
    return Tokens(*_lex(joined.data, joined.offsets, np.sort(_hashes(bound)), own_calls, *_known()))


@njit
def _hash(data, start, stop, value):  # type: ignore[no-untyped-def]
    """Of some bytes behind those that `value` stands for; positive, even and above BORDER."""
    for place in range(start, stop):
        value = (value ^ _U(data[place])) * _FACTOR
    value = (value ^ value >> _U(32)) * _MIX
    return np.int64((value >> _U(2) | _U(2)) << _U(1))


@njit
def _among(sorted_values, value):  # type: ignore[no-untyped-def]
    place = np.searchsorted(sorted_values, value)
    return place < len(sorted_values) and sorted_values[place] == value


@njit
def _past(data, at, stop, table):  # type: ignore[no-untyped-def]
    while at < stop and table[data[at]]:
        at += 1
    return at


@njit
def _line_end(data, at, stop):  # type: ignore[no-untyped-def]
    while at < stop and data[at] != 10:
        at += 1
    return at


@njit
def _line_closes(data, at, stop):  # type: ignore[no-untyped-def]
    """Whether only brackets, commas and quotes follow on a line: a quote before them ends a string, it begins none."""
    at = _past(data, at, stop, _CLOSING)
    return at == stop or data[at] == 10 or data[at] == 13


@njit
def _begins(data, at, stop, first, second):  # type: ignore[no-untyped-def]
    return at + 1 < stop and data[at] == first and data[at + 1] == second


@njit
def _empty_string(data, at, start, stop):  # type: ignore[no-untyped-def]
    """Whether two quotes hold nothing; beside a word or a third quote they may be one that is written twice."""
    if not _begins(data, at, stop, data[at], data[at]):
        return False
    before = at > start and (_WORD[data[at - 1]] or _QUOTE[data[at - 1]])
    return not before and not (at + 2 < stop and (_WORD[data[at + 2]] or _QUOTE[data[at + 2]]))


@njit
def _past_docstring(data, at, stop):  # type: ignore[no-untyped-def]
    """Where a string in three quotes ends, 0 if none begins here."""
    at += at < stop and _PREFIX[data[at]]
    at += at < stop and _PREFIX[data[at]]
    if at + 2 >= stop or not _QUOTE[data[at]]:
        return 0
    quote = data[at]
    if data[at + 1] != quote or data[at + 2] != quote:
        return 0
    at += 3
    while at + 2 < stop:
        if data[at] == quote and data[at + 1] == quote and data[at + 2] == quote:
            return at + 3
        at += 1 + (data[at] == ord("\\"))
    return 0


@njit
def _past_comment(data, at, stop, operators):  # type: ignore[no-untyped-def]
    """Where a comment that begins with a slash ends, `at` if it's a division: words behind // aren't one, nor code."""
    if _begins(data, at, stop, ord("/"), ord("*")):
        place, parts = at + 2, 0
        while place < stop and parts < 500 and not _begins(data, place, stop, ord("*"), ord("/")):
            parts += 1
            place += 1
            if data[place - 1] != ord("*"):
                while place < stop and data[place] != ord("*"):
                    place += 1
        return place + 2 if _begins(data, place, stop, ord("*"), ord("/")) else at
    if _begins(data, at, stop, ord("/"), ord("/")):
        first = _past(data, at + 2, stop, _BLANK)
        place = _past(data, first, stop, _ASCII_LETTER)
        if place > first:
            place += place < stop and data[place] == ord(",")
            second = _past(data, place, stop, _BLANK)
            if place < second < stop and _ASCII_LETTER[data[second]]:
                end = second
                while end < stop and _WORD[data[end]] and data[end] < 128:
                    end += 1
                if not _among(operators, _hash(data, second, end, _START)):
                    return _line_end(data, end, stop)
    return at


@njit(cache=True, nogil=True)
def _lex(data, offsets, bound, own_calls, keywords, called, operators, elif_parts):  # type: ignore[no-untyped-def]
    most = len(data) + len(offsets)  # of tokens: the three of `elif` are its four bytes
    values, starts, stops = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    ends = np.zeros(len(offsets), np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        at, stop = offsets[text], offsets[text + 1]
        while at < stop:
            byte, begin, value = data[at], at, 0
            if _LETTER[byte]:
                at = _past(data, at, stop, _WORD)
                quoted = at < stop and _QUOTE[data[at]]
                prefix = quoted and at - begin <= 2 and _PREFIX[byte] and _PREFIX[data[at - 1]]
                if prefix and not _line_closes(data, at + 1, stop):
                    at += 1  # what a string begins with
                else:
                    value = _hash(data, begin, at, _START)
                    after = _past(data, at, stop, _BLANK)
                    calls = after < stop and data[after] == ord("(")
                    own = (own_calls or not calls) and _among(bound, value)
                    if own or not _among(called if calls else keywords, value):
                        value |= _NAME
                    if calls:
                        at = after + 1
                    if value == elif_parts[0]:  # the same as `else: if`
                        for part in elif_parts[1:3]:
                            values[count], starts[count], stops[count] = part, begin - offsets[text], at - offsets[text]
                            count += 1
                        value = elif_parts[3]
            elif _DIGIT[byte]:
                while at < stop and _IN_NUMBER[data[at]] and not _begins(data, at, stop, ord("."), ord(".")):
                    at += 1
                last, point = at, False
                for place in range(begin, at):
                    point |= data[place] == ord(".")
                while point and data[last - 1] == ord("0"):  # 1. and 1.0, 2.50 and 2.5
                    last -= 1
                value = _hash(data, begin, last - (data[last - 1] == ord(".")), _START)
            elif _begins(data, at, stop, ord("."), ord(".")):  # 0..n, ...xs: no member's dot
                at = _past(data, at, stop, _DOT)
                value = _hash(data, begin, at, _START)
            elif byte == ord(".") and at + 1 < stop and _LETTER[data[at + 1]]:
                at = _past(data, at + 1, stop, _WORD)
                value = _hash(data, begin, at, _START)
                at += at < stop and data[at] == ord("(")
            elif byte == ord("\\") and at + 1 < stop and _ASCII_LETTER[data[at + 1]]:  # \w is no name
                at = _past(data, at + 2, stop, _WORD)
                value = _hash(data, begin, at, _START)
            elif _QUOTE[byte] and _empty_string(data, at, offsets[text], stop):
                at += 2
                value = _hash(data, begin, begin, (_START ^ _U(34)) * _FACTOR)
            elif _QUOTE[byte]:
                at = _past(data, at + 1, stop, _WORD)
                if at > begin + 1 and at < stop and _QUOTE[data[at]]:
                    value = _hash(data, begin + 1, at, (_START ^ _U(34)) * _FACTOR)
                    at += 1
                else:
                    at = begin + 1
            elif byte == ord("#"):
                at = _line_end(data, at, stop)
            elif byte == 10:
                first = _past(data, at + 1, stop, _BLANK)
                at = _past_docstring(data, first, stop)
                if not at:
                    comment = _begins(data, first, stop, ord("/"), ord("/"))
                    at = _line_end(data, first, stop) if comment else begin + 1
            elif byte == ord("/"):
                at = _past_comment(data, at, stop, operators)
                if at == begin:
                    at += 1
                    value = _hash(data, begin, at, _START)
            else:
                at += 1
                if byte == ord("{") or byte == ord("}") or byte == ord(";") or byte == ord(","):
                    comment = _past(data, at, stop, _BLANK)  # no division begins so
                    if _begins(data, comment, stop, ord("/"), ord("/")):
                        at = _line_end(data, comment, stop)
                if _SYMBOL[byte]:
                    value = _hash(data, begin, begin + 1, _START)
            if value:
                values[count] = value | _GOES_ON[byte]
                starts[count], stops[count] = begin - offsets[text], at - offsets[text]
                count += 1
        values[count] = BORDER
        starts[count] = stops[count] = stop - offsets[text]
        count += 1
        ends[text + 1] = count
    return values[:count].copy(), starts[:count].copy(), stops[:count].copy(), ends


def _hashes(words: Iterable[bytes]) -> np.ndarray:
    return np.array([_hash_of(np.frombuffer(word, np.uint8)) for word in words], np.int64)


@njit(cache=True)
def _hash_of(word):  # type: ignore[no-untyped-def]
    return _hash(word, 0, len(word), _START)


@cache
def _known() -> tuple[np.ndarray, ...]:
    """What the scanner knows: as arguments, for what is compiled stays while this file does, whatever words.py says."""
    words = (_KEYWORDS.union(_CONSTANTS), COMMON.union(_CONSTANTS), _OPERATORS)
    return *(np.sort(_hashes(each)) for each in words), _hashes((b"elif", b"else", b":", b"if"))
