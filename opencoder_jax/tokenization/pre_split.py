r"""How text is split into words before BPE: cl100k's rule, as in OpenCoder's INF-LLM tokenizer.

    (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+

Two things are done to it. Its classes are those of Unicode 14, so that words don't depend on the version of Python
(3.12 has Unicode 15) or of another library: `hugging_face_rule` spells them out. And ASCII, nearly all of source code,
has alternatives of its own that hardly ever look back: one core splits 33 MB of Python a second; written as above,
with \p{L} as `re` can say it, the rule splits 12.
"""

import re
from functools import cache

_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # White_Space; Python's \s has more

# Numbers that aren't decimal digits (Nl, No), which Python's \w has and its \d has not.
_OTHER_NUMBERS = (
    "\xb2-\xb3\xb9\xbc-\xbe\u09f4-\u09f9\u0b72-\u0b77\u0bf0-\u0bf2\u0c78-\u0c7e\u0d58-\u0d5e\u0d70-\u0d78"
    "\u0f2a-\u0f33\u1369-\u137c\u16ee-\u16f0\u17f0-\u17f9\u19da\u2070\u2074-\u2079\u2080-\u2089\u2150-\u2182"
    "\u2185-\u2189\u2460-\u249b\u24ea-\u24ff\u2776-\u2793\u2cfd\u3007\u3021-\u3029\u3038-\u303a\u3192-\u3195"
    "\u3220-\u3229\u3248-\u324f\u3251-\u325f\u3280-\u3289\u32b1-\u32bf\ua6e6-\ua6ef\ua830-\ua835"
    "\U00010107-\U00010133\U00010140-\U00010178\U0001018a-\U0001018b\U000102e1-\U000102fb"
    "\U00010320-\U00010323\U00010341\U0001034a\U000103d1-\U000103d5\U00010858-\U0001085f\U00010879-\U0001087f"
    "\U000108a7-\U000108af\U000108fb-\U000108ff\U00010916-\U0001091b\U000109bc-\U000109bd"
    "\U000109c0-\U000109cf\U000109d2-\U000109ff\U00010a40-\U00010a48\U00010a7d-\U00010a7e"
    "\U00010a9d-\U00010a9f\U00010aeb-\U00010aef\U00010b58-\U00010b5f\U00010b78-\U00010b7f"
    "\U00010ba9-\U00010baf\U00010cfa-\U00010cff\U00010e60-\U00010e7e\U00010f1d-\U00010f26"
    "\U00010f51-\U00010f54\U00010fc5-\U00010fcb\U00011052-\U00011065\U000111e1-\U000111f4"
    "\U0001173a-\U0001173b\U000118ea-\U000118f2\U00011c5a-\U00011c6c\U00011fc0-\U00011fd4"
    "\U00012400-\U0001246e\U00016b5b-\U00016b61\U00016e80-\U00016e96\U0001d2e0-\U0001d2f3"
    "\U0001d360-\U0001d378\U0001e8c7-\U0001e8cf\U0001ec71-\U0001ecab\U0001ecad-\U0001ecaf"
    "\U0001ecb1-\U0001ecb4\U0001ed01-\U0001ed2d\U0001ed2f-\U0001ed3d\U0001f100-\U0001f10c"
)
# Letters and numbers of Unicode 15 that aren't of 14: still symbols, in all versions.
_SINCE_UNICODE_14 = (
    "\U0001123f-\U00011240\U00011f02\U00011f04-\U00011f10\U00011f12-\U00011f33\U0001342f\U00013441-\U00013446"
    "\U0001b132\U0001b155\U0001df25-\U0001df2a\U0001e030-\U0001e06d\U0001e4d0-\U0001e4eb\U0002b739"
    "\U00031350-\U000323af\U00011f50-\U00011f59\U0001d2c0-\U0001d2d3\U0001e4f0-\U0001e4f9"
)
_LETTER = rf"[^\W\d_{_OTHER_NUMBERS}{_SINCE_UNICODE_14}]"
_NUMBER = rf"(?![{_SINCE_UNICODE_14}])[\d{_OTHER_NUMBERS}]"
_SYMBOL = rf"(?:[_{_SINCE_UNICODE_14}]|[^\w{_SPACE}])"

_ASCII_SYMBOL = r"[!-/:-@\[-`{-\x7f\x00-\x08\x0e-\x1f]"
_NO_MORE = r"(?![^\x00-\x7f])"  # else the word might go on: the general alternatives see to it

PRE_SPLIT = re.compile(
    # English contractions; U+017F is an s to who ignores case.
    r"'(?:[sStTmMdD\u017f]|[rR][eE]|[vV][eE]|[lL][lL])"
    # Letters, with a space or one symbol in front.
    rf"|[^\r\n0-9A-Za-z\x80-\U0010ffff]?+[A-Za-z]++{_NO_MORE}"
    # Symbols, with a space in front and the ends of lines behind. One symbol before letters goes with them.
    rf"|(?: {_ASCII_SYMBOL}|{_ASCII_SYMBOL}(?![A-Za-z])){_ASCII_SYMBOL}*+{_NO_MORE}[\r\n]*+"
    # Numbers in groups of up to three digits.
    rf"|[0-9]{{1,3}}+{_NO_MORE}"
    # Ends of lines, with the white space before them.
    rf"|[{_SPACE}]*[\r\n]+"
    # Indentation, without the space that goes with the next word.
    rf"|[{_SPACE}]+(?![^{_SPACE}])"
    # The same for all of Unicode.
    rf"|(?:[^\w\r\n]|[_{_SINCE_UNICODE_14}])?+{_LETTER}++"
    rf"| ?{_SYMBOL}++[\r\n]*+"
    rf"|(?:{_NUMBER}){{1,3}}+"
    rf"|[{_SPACE}]"
)


@cache
def hugging_face_rule() -> str:
    """The rule in Oniguruma's syntax, as `tokenizers` takes it, with every class spelt out."""
    letters, numbers, spaces = (_ranges(re.compile(one)) for one in (_LETTER, _NUMBER, f"[{_SPACE}]"))
    return (
        r"'(?:[sStTmMdD\x{17f}]|[rR][eE]|[vV][eE]|[lL][lL])"
        rf"|[^\r\n{letters}{numbers}]?[{letters}]+"
        rf"|[{numbers}]{{1,3}}"
        rf"| ?[^{spaces}{letters}{numbers}]+[\r\n]*"
        rf"|[{spaces}]*[\r\n]+"
        rf"|[{spaces}]+(?![^{spaces}])"
        rf"|[{spaces}]+"
    )


def _ranges(one: re.Pattern[str]) -> str:
    """The characters that a pattern matches, as the inside of a class."""
    found = re.finditer("1+", "".join("1" if one.fullmatch(chr(code)) else "0" for code in range(0x110000)))
    return "".join(f"\\x{{{match.start():x}}}-\\x{{{match.end() - 1:x}}}" for match in found)
