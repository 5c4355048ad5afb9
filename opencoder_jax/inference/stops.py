"""An answer's text as it grows: bytes of tokens in, text out that no later token can take back.

An answer ends with the first character at which its text holds a stop string, and what is kept ends where the longest
stop string that ends there begins. So it doesn't matter how the text is divided into tokens.

Stop strings are looked for all at once (Aho and Corasick 1975): a state stands for the longest end of the text that
begins a stop string, which is just what has to be held back.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class _State:
    """What the end of a text can still become."""

    length: int  # of the text's end that begins a stop string
    ends: int  # length of the longest stop string that ends here, 0 if none does
    shorter: "_State | None"  # of the next shorter end that begins one
    next: "dict[str, _State]" = field(default_factory=dict)


class StopStrings:
    """Some stop strings, none of them empty."""

    def __init__(self, stops: Sequence[str]) -> None:
        beginnings = sorted({stop[:length] for stop in stops for length in range(len(stop) + 1)} | {""}, key=len)
        states: dict[str, _State] = {}
        for text in beginnings:
            # What the text ends with and begins a stop string, too: what leads on from there leads on from here.
            shorter = next((states[text[start:]] for start in range(1, len(text) + 1) if text[start:] in states), None)
            ends = len(text) if text in stops else shorter.ends if shorter else 0
            states[text] = _State(len(text), ends, shorter)
        for text in beginnings[1:]:
            states[text[:-1]].next[text[-1]] = states[text]
        for state in states.values():
            for character, after in (state.shorter.next if state.shorter else {}).items():
                state.next.setdefault(character, after)
        self.start = states[""]


class AnswerText:
    """The text of one answer."""

    def __init__(self, stops: StopStrings) -> None:
        self._stops = stops
        self._state = stops.start
        self._held = ""  # text that may begin a stop string
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.stopped = False  # a stop string was found: the text is whole

    def add(self, more: bytes, last: bool = False) -> str:
        """What these bytes make certain of the text, beyond what earlier calls gave; `last`: no more will come."""
        new = self._decoder.decode(more, last)
        start, state = self._stops.start, self._state
        if not start.next:
            return new
        for index, character in enumerate(new):
            state = state.next.get(character, start)
            if state.ends:
                self.stopped = True
                text = self._held + new[: index + 1]
                return text[: len(text) - state.ends]
        self._state = state
        text = self._held + new
        kept = len(text) if last else len(text) - state.length
        self._held = text[kept:]
        return text[:kept]
