"""Which answer has which row of the cache, and what each row has read: on the host, in plain Python.

A row keeps what it has read after its answer has ended. So a prompt that begins as another did, before or at the same
time, has that beginning copied instead of read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from opencoder_jax.inference.requests import Request, TokenLogprob
from opencoder_jax.inference.stops import AnswerText

WORTH_SHARING = 64  # tokens that rows have in common, for the keys of the one to be read for the other
MOST_LEADERS = 4  # rows that begin alike, among which the one that has most in common is looked for


@dataclass
class OpenAnswer:
    """An answer in the making.

    Attributes:
        tokens: of the prompt and of the answer so far, int32, with room for all of the answer.
        random: the random numbers of its tokens.
        known: how many of them there are.
        read: how many of them the cache has read; the last known one is read when the next is drawn.
        rated: log-probabilities of the prompt, if they are asked for.
    """

    number: int
    request: Request
    text: AnswerText
    tokens: np.ndarray
    random: np.ndarray
    known: int
    read: int = 0
    rated: list[TokenLogprob] = field(default_factory=list)
    told_prompt: bool = False

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt)

    @property
    def drawn(self) -> int:
        return self.known - self.length

    @property
    def left(self) -> int:
        return self.request.sampling.max_tokens - self.drawn

    @property
    def has_read_its_prompt(self) -> bool:
        return self.read >= self.length - 1


class Slots:
    """The rows of a cache.

    Attributes:
        answers: of each row the answer that has it, or None.
        held: of each row the tokens that it has read.
    """

    def __init__(self, rows: int) -> None:
        self.answers: list[OpenAnswer | None] = [None] * rows
        self.held: list[np.ndarray] = [np.zeros(0, np.int32)] * rows
        self._used = list(range(rows))  # rows, those that were used the longest ago first

    @property
    def taken(self) -> list[tuple[int, OpenAnswer]]:
        """The rows with answers, those that began first, first."""
        found = [(row, answer) for row, answer in enumerate(self.answers) if answer is not None]
        return sorted(found, key=lambda each: each[1].number)

    @property
    def free(self) -> int:
        return self.answers.count(None)

    def use(self, row: int) -> None:
        """Says that what a row holds is of use."""
        self._used.remove(row)
        self._used.append(row)

    def place(self, answer: OpenAnswer) -> int:
        """Gives an answer a free row: the one that has read most of its prompt, or else the longest unused one."""
        free = [row for row in self._used if self.answers[row] is None]
        common = {row: self.common(row, answer) for row in free}
        row = max(free, key=common.__getitem__)
        self.answers[row] = answer
        answer.read = common[row]
        self.held[row] = self.held[row][: common[row]]
        self.use(row)
        return row

    def common(self, row: int, answer: OpenAnswer) -> int:
        """How many tokens of an answer's prompt a row has read, from the first on; the last isn't asked for."""
        return 0 if answer.request.prompt_logprobs else common(self.held[row], answer.tokens[: answer.length - 1])

    def most_like(self, answer: OpenAnswer) -> tuple[int, int]:
        """The row that has read most of an answer's prompt, and how much of it."""
        best = (0, 0)
        for row in reversed(self._used):
            if (same := self.common(row, answer)) > best[1]:
                best = row, same
            if best[1] >= answer.length - 1:
                break
        return best

    def alike(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each row an earlier one that has read the same first tokens, or itself, and how many."""
        source, count = np.arange(len(self.held), dtype=np.int32), np.zeros(len(self.held), np.int32)
        leaders: dict[bytes, list[int]] = {}  # by what they begin with, those that share nothing longer
        for row, held in enumerate(self.held):
            if len(held) < WORTH_SHARING:
                continue
            earlier = leaders.setdefault(held[:WORTH_SHARING].tobytes(), [])
            if earlier:
                count[row], source[row] = max((common(self.held[other], held), other) for other in earlier)
            if count[row] < len(held) // 2 and len(earlier) < MOST_LEADERS:
                earlier.append(row)
        return source, count

    def has_read(self, row: int, count: int) -> None:
        """Says that the cache has read so many tokens of a row's answer."""
        answer = self.answers[row]
        assert answer is not None
        answer.read = count
        self.held[row] = answer.tokens[:count]

    def leave(self, row: int) -> None:
        """Ends an answer; what the row has read stays."""
        answer = self.answers[row]
        if answer is not None:
            self.held[row] = answer.tokens[: answer.read].copy()
            self.answers[row] = None

    def kept(self, rows: int) -> list[int]:
        """The rows to keep in a smaller cache: those with answers, then those used last; or all, and some twice."""
        order = sorted(self._used, key=lambda row: (self.answers[row] is None, -self._used.index(row)))
        return (order + order[-1:] * max(0, rows - len(order)))[:rows]

    def rearranged(self, kept: Sequence[int], slots: int) -> "Slots":
        """These rows as `kept` orders them, cut to `slots` tokens; of one that is there twice, the second is empty."""
        new = Slots(len(kept))
        for to, row in enumerate(kept):
            if row not in kept[:to]:
                new.answers[to], new.held[to] = self.answers[row], self.held[row][:slots]
        new._used = sorted(new._used, key=lambda row: self._used.index(kept[row]))
        return new


def common(one: np.ndarray, other: np.ndarray) -> int:
    """The length of what two arrays begin with alike."""
    length = min(len(one), len(other))
    if not length or one[0] != other[0]:
        return 0
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length
