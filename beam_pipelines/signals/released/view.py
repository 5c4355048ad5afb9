"""A document as OpenCoder's released filter sees it: what its signals mean where they differ from ours.

What the release does by pygments is done by `comments.scan`, with the release's habits: a comment in C takes its line
break along, the comments of a file stand side by side, and a bare `return` swallows the next line.

What still differs: a string of a shell that runs over lines is no string here. Chinese is cut in pairs of characters,
not by jieba, and isn't simplified first. A language that pygments doesn't know is split by our table of comments, not
by a scanner that takes the rest of a file for a comment. Nothing times out, values aren't rounded to 8 decimals, and
the stop words are a list of ours.
"""

import bisect
import re
import string
import unicodedata
from collections.abc import Iterator
from functools import cached_property

from opencoder_jax.beam_pipelines.languages.comments import Lexeme, line_markers, scan
from opencoder_jax.beam_pipelines.signals.views.ngrams import BLANKS, Words, measure_words
from opencoder_jax.beam_pipelines.signals.views.view import View

_CONTROLS = dict.fromkeys((*range(8), *range(14, 27), *range(28, 32), 0x202C), "") | {0x2009: " ", 0x200B: " "}
_HALF_WIDTH = dict(zip("。、《》【】「」“”￥‘’", ".,\"\"[]''\"\"¥''", strict=True))
_HALF_WIDTH |= {chr(ord(sign) + 0xFEE0): sign for sign in string.punctuation}
_SPACED = {ord(sign): " " for sign in string.punctuation}
# Control characters go, punctuation in both widths becomes a blank.
_NORMALISED = _CONTROLS | {ord(wide): _SPACED.get(ord(half), half) for wide, half in _HALF_WIDTH.items()} | _SPACED
TOKEN = re.compile(r"\w++|[^\w\s]++")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_HAN_TOKEN = re.compile(rf"[{_HAN}]{{1,2}}|[^\W{_HAN}]++|[^\w\s]")
# Three single quotes, three double, single, double; unclosed ones match nothing. Single ones may cross lines, or not.
STRINGS = re.compile(r"'''(.*?)'''|\"\"\"(.*?)\"\"\"|'([^']*+)'|\"([^\"]*+)\"", re.DOTALL)
_LINE_STRINGS = re.compile(r"'''(.*?)'''|\"\"\"(.*?)\"\"\"|'([^'\n]*+)'|\"([^\"\n]*+)\"", re.DOTALL)
_EMBEDDED = re.compile(r"<(/?)(script|style)\b[^<>]*+>", re.IGNORECASE)

# Whose lexers in pygments take the line break into a comment that ends with its line; and whose give such a comment
# another kind than those that count (tried on one comment of each language).
_WITH_LINE_BREAK = {
    *("C", "C++", "C#", "Objective-C", "Objective-C++", "Cuda", "Verilog", "SystemVerilog", "Solidity", "Less", "Vala"),
    *("Zig", "ActionScript", "Pawn", "JSON5", "QML", "SWIG", "V", "Jsonnet", "X10", "Chapel", "Rust", "Scala", "HCL"),
    *("Shell", "Nginx", "SQL", "PLpgSQL", "TSQL", "Ada"),
}
_LINES_STAY_CODE = {
    *(
        "Thrift",
        "SCSS",
        "Odin",
        "PHP",
        "Cython",
        "Nim",
        "Julia",
        "Tcl",
        "GraphQL",
        "Puppet",
        "Meson",
        "Sass",
        "Gherkin",
    ),
    *("Makefile", "CMake", "Dockerfile", "YAML", "Tcsh", "ApacheConf", "PowerShell", "AppleScript", "Teal", "Janet"),
    *("Rebol", "LLVM", "Erlang", "Logtalk", "TeX", "BibTeX", "MATLAB", "Fortran"),
}


class ReferenceView(View):
    """A document as the release sees it."""

    @cached_property
    def words(self) -> Words:
        """Runs of letters and digits and runs of other signs that aren't ASCII, lower-cased and NFKC-normalised."""
        normalised = unicodedata.normalize("NFKC", self.text.translate(_NORMALISED).lower())
        words = (_HAN_TOKEN if self.natural_language == "zh" else TOKEN).findall(normalised)
        return measure_words(" ".join(words).encode("utf-8", "replace"), BLANKS)

    @cached_property
    def raw_words(self) -> list[str]:
        """Runs of letters, digits and underscores, and runs of other signs, as written."""
        return (_HAN_TOKEN if self.natural_language == "zh" else TOKEN).findall(self.text)

    @cached_property
    def lexed(self) -> str:
        """What pygments lexes: line breaks made one kind, those at the ends taken away, one put at the end."""
        return self.text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip("\n") + "\n"

    @cached_property
    def spans(self) -> list[Lexeme]:
        spans = super().spans
        if self.language in _WITH_LINE_BREAK:
            return [self._with_line_break(span) for span in spans if not self._of_directive(span)]
        if self.language in _LINES_STAY_CODE:
            return [span for span in spans if not self._is_line(span)]
        if self.language == "HTML":
            return sorted([*spans, *self._embedded(spans)])
        return spans

    def _of_directive(self, span: Lexeme) -> bool:
        """Whether a comment ends a line such as `#if X  // for Y` of C#, all of which is code there."""
        if self.language != "C#" or not self._is_line(span):
            return False
        return self.lexed[self.lexed.rfind("\n", 0, span.start) + 1 : span.start].lstrip().startswith("#")

    def _with_line_break(self, span: Lexeme) -> Lexeme:
        ends_line = self._is_line(span) and span.stop < len(self.lexed)
        return Lexeme(span.start, span.stop + 1, span.kind) if ends_line else span

    def _is_line(self, span: Lexeme) -> bool:
        return span.kind == "comment" and self.lexed.startswith(line_markers(self.language), span.start)

    def _embedded(self, comments: list[Lexeme]) -> Iterator[Lexeme]:
        """The comments of scripts that don't lie in comments of the page; those of style sheets stay code, as there."""
        starts = [comment.start for comment in comments]
        opening: re.Match[str] | None = None
        for tag in _EMBEDDED.finditer(self.lexed):
            before = bisect.bisect(starts, tag.start()) - 1
            if before >= 0 and comments[before].stop > tag.start():
                continue
            if opening is None:
                opening = None if tag[1] else tag
            elif tag[1] and tag[2].lower() == opening[2].lower():
                start = opening.end()
                scripts = scan(self.lexed[start : tag.start()], "JavaScript") if tag[2].lower() == "script" else ()
                for span in scripts:
                    if span.kind == "comment":
                        yield Lexeme(start + span.start, start + span.stop, "comment")
                opening = None

    @cached_property
    def comments(self) -> str:
        """Comments and docstrings without anything between them, so that those of a file may be one line."""
        return "".join(self.lexed[span.start : span.stop] for span in self.spans if span.kind != "string")

    @cached_property
    def strings(self) -> list[str]:
        """What stands between quotes in the code, in one line but for triple ones."""
        return list(quoted(_LINE_STRINGS, self.code))


def quoted(pattern: re.Pattern[str], code: str) -> Iterator[str]:
    """What stands between the quotes that a pattern finds."""
    return (match[match.lastindex or 0] for match in pattern.finditer(code))
