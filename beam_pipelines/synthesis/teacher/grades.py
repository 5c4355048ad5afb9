"""Makes a table of a teacher's grades of pages: which are seeds of a web recall, and which are surely of another kind.

Reads what `ask` wrote with `--gin.AskConfig.pipeline=pages`. Writes grades.jsonl, a line a page: its url, and a score
in 0 .. 1, as `seeds --urls` and `web --urls` read it.
"""

import json
from collections import Counter
from dataclasses import dataclass

from opencoder_jax.beam_pipelines.core.documents import read_shard
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, input_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.synthesis.teacher.conversations import HIGHEST
from opencoder_jax.recipe import UserError

GRADES = "grades.jsonl"


@dataclass(frozen=True)
class Graded:
    """What the table depends on beside the answers.

    Attributes:
        highest: the grade that scores 1.
    """

    highest: int = HIGHEST


def run(asked: str, output: str, options: BeamOptions) -> Manifest:
    """Writes the table.

    Args:
        asked: what the stage `ask` wrote of pages.

    Raises:
        UserError: it was asked about something else.
    """

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        counts: Counter[str] = Counter()
        source = Directory(asked)
        with directory.atomic(GRADES) as stream:
            for name in input_shards(asked):
                for batch in read_shard(source, name, ["url", "text"]):
                    for url, text in zip(*(column.to_pylist() for column in batch), strict=True):
                        record = json.loads(text)
                        if "grade" not in record:
                            raise UserError(f"{asked}: no grades there; ask with --gin.AskConfig.pipeline=pages")
                        counts[f"grade {record['grade']}"] += 1
                        stream.write((json.dumps({"url": url, "score": record["grade"] / HIGHEST}) + "\n").encode())
        return {"count": dict(counts)}, {GRADES: digest(directory, GRADES)}

    return Stage("grades", __name__, Graded(), (asked,), output).run(work, options)
