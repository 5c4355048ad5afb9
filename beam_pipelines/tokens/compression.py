"""Reports how many bytes a token holds, for each language, beside tokenizers that people use.

    python -m beam_pipelines compression --documents=runs/refinecode/sample --tokenizer=runs/tokenizer \\
        --output=runs/compression --gin.CompressionConfig.against="{'qwen': 'qwen/tokenizer.json'}"

More bytes a token is less to compute for the same text. Texts are taken as they are: no token is put around them, and
the names of control tokens are text. Of each language about `CompressionConfig.megabytes` are read, the documents with
the smallest ids, which are random. For a fair comparison give documents that the tokenizer wasn't trained on.

Writes: `index.html`, and `compression.json`.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from matplotlib.figure import Figure

from opencoder_jax.beam_pipelines.core.documents import read_shard
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest, merge_tallies, read_finished
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, input_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.tokens.texts import need_tokenizer, texts_of
from opencoder_jax.checks import above, at_least, check
from opencoder_jax.recipe import UserError, configurable
from opencoder_jax.reports.page import Content, figure, note, page, section, table
from opencoder_jax.reports.svg import RED, SERIES, WIDTH, drawing
from opencoder_jax.tokenization.tokenizer import Tokenizer
from opencoder_jax.tokenization.tokenizer_files import TOKENIZER

OURS = "ours"
JSON, PAGE = "compression.json", "index.html"


@configurable
@dataclass(frozen=True)
class CompressionConfig:
    """What is measured.

    Attributes:
        megabytes: of each language, at most; languages with less than a tenth of it are left out.
        languages: how many, those with the most bytes.
        against: other tokenizers by names of your choice: files `tokenizer.json` of Hugging Face's, or SentencePiece
            models `tokenizer.model`.
    """

    megabytes: float = 4.0
    languages: int = 16
    against: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self, megabytes=above(0), languages=at_least(1))
        if not all(self.against) or OURS in self.against:
            raise ValueError(f"against={self.against!r}: each tokenizer must have a name, other than {OURS!r}")


@dataclass(frozen=True)
class Peer:
    """A tokenizer: how many ids it has, and how many tokens it makes of texts."""

    vocab_size: int
    count: Callable[[Sequence[str]], int]


def run(
    documents: Sequence[str], tokenizer: str, output: str, config: CompressionConfig, options: BeamOptions
) -> Manifest:
    """Measures documents with a tokenizer of ours and with others, writes the report, and prints its table.

    Args:
        documents: what is tokenised.
        tokenizer: the directory of the tokenizer.

    Raises:
        UserError: an input or a file is missing, or isn't what it should be.
    """
    need_tokenizer(tokenizer)
    ours = Tokenizer(read_finished(Directory(tokenizer), TOKENIZER), f"{tokenizer}/{TOKENIZER}")
    peers = {OURS: Peer(ours.vocab_size, lambda texts: sum(map(len, ours.encode_batch(texts))))}
    peers |= {name: load_peer(file) for name, file in config.against.items()}
    digests = {name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for name, file in config.against.items()}

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        measured = measure(documents, peers, config)
        directory.write_json(JSON, measured)
        directory.write_bytes(PAGE, report(measured, peers).encode())
        counts = {language: row["bytes"] for language, row in measured.items()}
        return {"in": {"bytes": counts}}, {name: digest(directory, name) for name in (JSON, PAGE)}

    # The manifest knows the others' files by what they hold, not by where they lie.
    identity = replace(config, against=digests)
    manifest = Stage("compression", __name__, identity, (*documents, tokenizer), output).run(work, options)
    print(f"{'bytes a token':<18}{'MB':>7}" + "".join(f"{name:>12}" for name in peers))
    for language, size, values in lines(Directory(output).read_json(JSON), peers):
        print(f"{language:<18}{size:7.2f}" + "".join(f"{value:12.3f}" for value in values.values()))
    print(f"{output}/{PAGE}")
    return manifest


def load_peer(file: str) -> Peer:
    """A tokenizer from a `tokenizer.json` or a SentencePiece model. Raises UserError."""
    if not Path(file).is_file():
        raise UserError(f"{file}: no such file; give a tokenizer.json or a tokenizer.model")
    if file.endswith(".json"):
        try:
            theirs = tokenizers.Tokenizer.from_file(file)
        except Exception as error:  # the library raises nothing more specific
            version = tokenizers.__version__
            raise UserError(f"{file}: not a tokenizer.json that tokenizers {version} reads ({error})") from None
        theirs.encode_special_tokens = True
        theirs.no_truncation()
        theirs.no_padding()

        def count(texts: Sequence[str]) -> int:
            return sum(len(one.ids) for one in theirs.encode_batch_fast(list(texts), add_special_tokens=False))

        return Peer(theirs.get_vocab_size(), count)
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(Path(file).read_bytes())
    except RuntimeError:
        raise UserError(f"{file}: not a SentencePiece model") from None
    return Peer(int(model.vocab_size()), lambda texts: sum(map(len, model.encode(list(texts)))))


def measure(sources: Sequence[str], peers: dict[str, Peer], config: CompressionConfig) -> dict[str, Any]:
    """By language: documents and bytes read, and the tokens that each tokenizer makes of them.

    Raises:
        UserError: there's too little of every language.
    """
    sizes = merge_tallies(Manifest.read(source).table("out", "bytes") for source in sources)
    wanted = config.megabytes * 1e6
    largest = sorted((language for language in sizes if sizes[language] >= wanted / 10), key=lambda name: -sizes[name])
    share = {language: wanted / sizes[language] for language in largest[: config.languages]}
    if not share:
        raise UserError(f"{', '.join(sources)}: no language has {wanted / 1e7:g} MB; lower CompressionConfig.megabytes")
    rows: dict[str, Any] = {
        language: {"documents": 0, "bytes": 0, "tokens": dict.fromkeys(peers, 0)} for language in share
    }
    for language, texts in _sample(sources, share):
        row = rows[language]
        row["documents"] += len(texts)
        row["bytes"] += sum(len(text.encode()) for text in texts)
        for name, peer in peers.items():
            row["tokens"][name] += peer.count(texts)
    return {language: row for language, row in rows.items() if row["bytes"]}


def _sample(sources: Sequence[str], share: dict[str, float]) -> Iterator[tuple[str, list[str]]]:
    """The texts of each language whose ids, as numbers in 0 .. 1, are below the language's share."""
    for source in sources:
        for name in input_shards(source):
            for batch in read_shard(Directory(source), name):
                found: dict[str, list[str]] = {}
                columns = [batch.column(column).to_pylist() for column in ("id", "language")]
                for identifier, language, text in zip(*columns, texts_of(batch), strict=True):
                    if int(identifier[-16:], 16) / 2**64 < share.get(language, 0):
                        found.setdefault(language, []).append(text)
                yield from found.items()


def lines(measured: dict[str, Any], names: Collection[str]) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Rows of the table: a language, its megabytes, bytes a token by tokenizer; last the mean, each language alike."""
    rows = {
        language: {name: row["bytes"] / row["tokens"][name] for name in names} for language, row in measured.items()
    }
    for language, values in rows.items():
        yield language, measured[language]["bytes"] / 1e6, values
    total = sum(row["bytes"] for row in measured.values()) / 1e6
    yield "mean", total, {name: sum(values[name] for values in rows.values()) / len(rows) for name in names}


def report(measured: dict[str, Any], peers: dict[str, Peer]) -> str:
    """The page."""
    rows = [
        [language, f"{size:.2f}", *(f"{values[name]:.3f}" for name in peers)]
        for language, size, values in lines(measured, peers)
    ]
    sizes: list[Content] = ["ids", "", *(peer.vocab_size for peer in peers.values())]
    numbers = table("lr" + "r" * len(peers), ["language", "MB", *peers], [*rows, sizes])
    caption = "Bytes of UTF-8 text in a token; more is better. The mean counts every language alike."
    return page(
        "Bytes a token",
        note("What each tokenizer makes of the same documents, without any token around them."),
        [section("compression", "By language", figure(_picture(measured, peers), caption), numbers)],
    )


@drawing("Bytes a token, by language and tokenizer")
def _picture(measured: dict[str, Any], peers: dict[str, Peer]) -> Figure:
    rows = list(lines(measured, peers))[::-1]
    chart = Figure(figsize=(WIDTH, 1.2 + 0.3 * len(rows)))
    axes = chart.subplots()
    looks = cycle((colour, marker) for marker in "os^v" for colour in SERIES)
    for name in peers:
        values = [row[2][name] for row in rows]
        colour, marker = (RED, "D") if name == OURS else next(looks)
        axes.scatter(values, range(len(rows)), s=32, marker=marker, color=colour, label=name, zorder=3)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.grid(axis="both")
    axes.set_xlabel("bytes a token")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=len(peers))
    return chart
