"""The answers that a benchmark's authors give, as rows to measure a loss on while a model trains.

A problem is a row: its prompt, then its answer, whose tokens alone are targets. What a model has never seen and yet
finds likely is a score that moves long before the first problem is solved, and it costs a forward pass.
"""

from pathlib import Path

import numpy as np

from opencoder_jax.benchmarks.problems import Benchmark, Problem
from opencoder_jax.data.batches import Batch
from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.tokenizer import TextTokenizer


class ReferenceRows:
    """Batches of a benchmark's problems; the last is filled up with rows without targets.

    Attributes:
        name: in the metrics.
        steps: how many batches there are.
        pad: the token that fills rows.
        sources: none: what Batches calls so are token records.
        left_out: problems without an answer, or longer than a row.
    """

    def __init__(self, benchmark: str, tokenizer: TextTokenizer, rows: int, length: int):
        """Raises UserError where no problem of the file can be measured."""
        self.name = f"references_{Path(benchmark).name.split('.')[0]}"
        self.pad, self.sources = tokenizer.pad, dict[str, TokenRecords]()
        found = Benchmark.read(benchmark)
        problems = [each for each in found.problems if each.texts and each.solutions]
        written = [each for each in (_ids(one, tokenizer) for one in problems) if len(each[0]) <= length + 1]
        self.left_out = len(found.problems) - len(written)
        if not written:
            raise UserError(
                f"{benchmark}: no problem has a prompt and an answer that fit a row of {length} tokens; take it out of "
                "TrainConfig.references"
            )
        self.steps, self._rows = -(-len(written) // rows), rows
        shape = (self.steps * rows, length)
        tokens, mask = np.full(shape, self.pad, np.int32), np.zeros(shape, np.float32)
        targets = tokens.copy()
        for row, (ids, prompt) in enumerate(written):
            tokens[row, : len(ids) - 1] = ids[:-1]
            targets[row, : len(ids) - 1] = ids[1:]
            mask[row, prompt - 1 : len(ids) - 1] = 1
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
        self._all = Batch(tokens, targets, positions, mask)

    def shape(self, step: int) -> tuple[int, int]:
        """(rows, length)."""
        return self._rows, self._all.tokens.shape[1]

    def __call__(self, step: int, first: int = 0, stop: int | None = None) -> Batch:
        """The rows from `first` to before `stop` of a batch."""
        begin = step * self._rows
        end = begin + (self._rows if stop is None else stop)
        return Batch(*(array[begin + first : end] for array in self._all))


def _ids(problem: Problem, tokenizer: TextTokenizer) -> tuple[list[int], int]:
    """The tokens of a problem, and how many of them are its prompt's."""
    prompt = tokenizer.encode_prompt(f"{problem.texts[0].rstrip()}\n") or [tokenizer.end_of_document]
    return [*prompt, *tokenizer.encode(problem.solutions[0].lstrip("\n")), tokenizer.end_of_document], len(prompt)
