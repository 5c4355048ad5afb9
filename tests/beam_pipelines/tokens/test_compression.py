"""The report counts what every tokenizer makes of the same documents, and names a file that is none."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import tokenizers

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.tokens.compression import CompressionConfig, lines, load_peer, measure, run
from opencoder_jax.beam_pipelines.tokens.train_tokenizer import TokenizerConfig, train, word_table
from opencoder_jax.exchange.tokenizer_export import hugging_face_files
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.pre_split import PRE_SPLIT
from opencoder_jax.tokenization.tokenizer import Tokenizer

TEXTS = [file.read_text() for file in sorted(Path(__file__).parent.glob("*.py"))]


@pytest.fixture(scope="module")
def model() -> bytes:
    counts = Counter(word for text in TEXTS for word in PRE_SPLIT.findall(text))
    return train(word_table(counts), TokenizerConfig(vocab_size=500, reserved_ids=2))


@pytest.fixture
def tokenizer(model: bytes, tmp_path: Path) -> str:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/tokenizer.model").write_bytes(model)
    (tmp_path / "tokenizer/stage.json").write_text(
        json.dumps({"stage": "", "config": {}, "code": "", "inputs": [], "tally": {}, "files": {}})
    )
    return str(tmp_path / "tokenizer")


@pytest.fixture
def documents(tmp_path: Path, write_documents: Callable[..., str]) -> str:
    return write_documents(tmp_path / "documents", TEXTS)


def measure_all(documents: str, tokenizer: str, output: Path, config: CompressionConfig) -> None:
    run(documents=[documents], tokenizer=tokenizer, output=str(output), config=config, options=BeamOptions())


def test_tokens_are_counted_for_all_alike(documents: str, tokenizer: str, model: bytes, tmp_path: Path) -> None:
    same = tmp_path / "same.json"
    same.write_text(hugging_face_files(Tokenizer(model))["tokenizer.json"])
    (tmp_path / "whole.model").write_bytes(model)
    against = {"same": str(same), "whole": f"{tmp_path}/whole.model"}
    few = CompressionConfig(megabytes=sum(len(text.encode()) for text in TEXTS) / 1e6, against=against)
    measure_all(documents, tokenizer, tmp_path / "out", few)
    measured = json.loads((tmp_path / "out/compression.json").read_text())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert measured == {
        "Python": {
            "bytes": sum(len(text.encode()) for text in TEXTS),
            "documents": len(TEXTS),
            "tokens": {
                "ours": sum(len(Tokenizer(model).encode(text)) for text in TEXTS),
                "same": sum(len(Tokenizer(model).encode(text)) for text in TEXTS),
                "whole": sum(len(pieces.encode(text)) for text in TEXTS),
            },
        }
    }
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("<svg") == 1
    ratio = measured["Python"]["bytes"] / measured["Python"]["tokens"]["ours"]
    assert page.count(f'<td class="number">{ratio:.3f}</td>') == 4  # ours and same, of Python and in the mean


def test_a_sample_is_a_share_of_the_documents_and_the_mean_is_of_languages(
    tmp_path: Path, write_documents: Callable[..., str]
) -> None:
    documents = write_documents(tmp_path / "documents", ["x = 1\n" * 10] * 1000)
    peers = {"bytes": load_peer(_bytes_only(tmp_path))}
    measured = measure([documents], peers, CompressionConfig(megabytes=0.03))
    assert 400 < measured["Python"]["documents"] < 600
    assert measured["Python"]["tokens"]["bytes"] == measured["Python"]["bytes"]
    rows = {"a": {"bytes": 10, "tokens": {"ours": 5}}, "b": {"bytes": 100, "tokens": {"ours": 25}}}
    found = list(lines(rows, ["ours"]))
    assert [row[2]["ours"] for row in found] == [2.0, 4.0, 3.0]
    with pytest.raises(UserError, match=r"documents: no language has 0\.1 MB"):
        measure([documents], peers, CompressionConfig(megabytes=1.0))


def _bytes_only(place: Path) -> str:
    """A tokenizer.json whose tokens are bytes, and which truncates unless it's told not to."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    model = tokenizers.models.BPE({name: byte for byte, name in enumerate(names)}, [], byte_fallback=True)
    theirs = tokenizers.Tokenizer(model)
    theirs.enable_truncation(5)
    theirs.save(str(place / "bytes.json"))
    return str(place / "bytes.json")


def test_wrong_files_and_names_are_told(documents: str, tokenizer: str, tmp_path: Path) -> None:
    def against(file: str) -> None:
        config = CompressionConfig(against={"x": f"{tmp_path}/{file}"})
        measure_all(documents, tokenizer, tmp_path / "out", config)

    with pytest.raises(UserError, match=r"none\.json: no such file"):
        against("none.json")
    for name, message in (("bad.json", "not a tokenizer.json"), ("bad.model", "not a SentencePiece model")):
        (tmp_path / name).write_text("{}")
        with pytest.raises(UserError, match=f"{name}: {message}"):
            against(name)
    for wrong in ("", "ours"):
        with pytest.raises(ValueError, match=r"against=.*: each tokenizer must have a name, other than 'ours'"):
            CompressionConfig(against={wrong: "x.json"})
    with pytest.raises(UserError, match=r"documents/tokenizer\.model: no such tokenizer model"):
        measure_all(documents, documents, tmp_path / "out", CompressionConfig())


def test_the_command_prints_the_table(documents: str, tokenizer: str, tmp_path: Path) -> None:
    flags = [f"--documents={documents}", f"--tokenizer={tokenizer}", f"--output={tmp_path}/out"]
    flags += ["--gin.CompressionConfig.megabytes=0.01"]
    flags += [f"--gin.CompressionConfig.against={{'bytes': {_bytes_only(tmp_path)!r}}}"]
    command = [sys.executable, "-m", "opencoder_jax.beam_pipelines", "compression", *flags]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed[0].split() == ["bytes", "a", "token", "MB", "ours", "bytes"]
    assert printed[1].split()[0] == "Python"
    assert printed[1].split()[-1] == "1.000"
    read = json.loads((tmp_path / "out/compression.json").read_text())["Python"]["documents"]
    assert 0 < read < len(TEXTS)
    manifest = Manifest.read(str(tmp_path / "out"))
    assert str(tmp_path) not in json.dumps(manifest.config)  # the others by what they hold, wherever they lie


@pytest.mark.parametrize("fields", [{"megabytes": 0.0}, {"languages": 0}])
def test_configuration_says_what_is_wrong(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        CompressionConfig(**fields)
