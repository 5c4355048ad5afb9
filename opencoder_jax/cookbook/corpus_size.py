"""Whether a corpus is large enough for the numbers of a run to mean anything.

A model wants about 20 tokens a parameter (Hoffmann et al., 2022, arXiv 2203.15556), and a token that it reads up to
four times is worth nearly as much as new ones (Muennighoff et al., 2023, arXiv 2305.16264): five different tokens a
parameter. A thousand documents, because fewer show it too few ways of writing, and leave too few to hold out.
"""

from pathlib import Path

from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest
from opencoder_jax.files import read_json
from opencoder_jax.reports.page import compact

TOKENS_A_PARAMETER = 5
DOCUMENTS = 1_000
PARAMETERS = 1_600_000  # of the cookbook's own model, as long as none is trained


def small_corpus_warning(run: Path) -> str | None:
    """What to tell the user of a run whose corpus is too small; None where it isn't, or nothing is tokenised yet."""
    clean, records = run / "data" / "decontaminate", run / "tokens" / "refinecode"
    if not ((clean / MANIFEST).is_file() and (records / MANIFEST).is_file()):
        return None
    parameters = read_json(run / "train" / "pretrain" / "run.json", {}).get("parameters", PARAMETERS)
    documents, tokens = Manifest.read(str(clean)).total("out", "documents"), Manifest.read(str(records)).total("tokens")
    return warning(documents, tokens, parameters)


def warning(documents: int, tokens: int, parameters: int) -> str | None:
    """What to tell of a corpus of so many documents and tokens, from which a model of so many parameters learns."""
    wanted = TOKENS_A_PARAMETER * parameters
    if documents >= DOCUMENTS and tokens >= wanted:
        return None
    return (
        f"This corpus is too small for the numbers to mean anything: {documents:,} documents with {tokens:,} tokens "
        f"are left to train on. A useful size for a model of {compact(parameters)} parameters is {compact(wanted)} "
        f"tokens or more, from at least {DOCUMENTS:,} documents. The run shows that every step works, and no more."
    )
