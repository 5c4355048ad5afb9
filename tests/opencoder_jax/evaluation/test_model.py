"""A trained run is asked, as text and in conversations, and the same run gives the same samples again."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from flax import nnx

from opencoder_jax import benchmarks
from opencoder_jax.evaluation.evaluate import main
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import Decoder
from opencoder_jax.parallel.checkpoints import Checkpoints
from opencoder_jax.parallel.model_directory import write_config
from opencoder_jax.recipe import UserError

VOCABULARY = 400
LINES = Path(benchmarks.__path__[0], "problems.jsonl").read_text().splitlines(keepends=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a model that has learnt nothing yet."""
    run = tmp_path_factory.mktemp("run")
    config = ModelConfig(
        vocab_size=VOCABULARY,
        layers=1,
        width=16,
        heads=2,
        kv_heads=1,
        head_size=8,
        ffn_width=32,
        context=1024,
        dtype="float32",
    )
    write_config(run, config)
    tokenizer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=tokenizer,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        pad_id=3,
        control_symbols=["<|im_end|>", "<|im_start|>"],
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (run / "tokenizer.model").write_bytes(tokenizer.getvalue())
    parameters = nnx.to_pure_dict(nnx.state(Decoder(config, nnx.Rngs(0))))
    with Checkpoints(run / "checkpoints", keep=None) as checkpoints:
        checkpoints.save(5, {"parameters": parameters})
    return run


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmark") / "two.jsonl"
    path.write_text("".join(LINES[:2]))
    return path


def flags(run: Path, benchmark: Path, output: Path, *others: str) -> list[str]:
    return [
        f"--benchmark_file={benchmark}",
        f"--checkpoint={run}",
        f"--output={output}",
        "--gin.EvaluateConfig.samples_per_problem=2",
        "--gin.SamplingConfig.temperature=1.0",
        "--gin.SamplingConfig.max_tokens=8",
        *others,
    ]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_is_asked_and_gives_the_same_again(run: Path, benchmark: Path, tmp_path: Path) -> None:
    command = flags(run, benchmark, tmp_path / "scores")
    file = tmp_path / "scores" / "samples.jsonl"
    main(command)
    answers = read(file)
    order = [(answer["task_id"], answer["sample"]) for answer in answers]
    assert order == [("cookbook/0", 0), ("cookbook/0", 1), ("cookbook/1", 0), ("cookbook/1", 1)]
    assert all("completion" in answer and answer["tokens"] <= 8 for answer in answers)
    assert len({answer["completion"] for answer in answers}) > 1
    assert json.loads((tmp_path / "scores" / "run.json").read_text())["model"]["step"] == 5
    assert json.loads((tmp_path / "scores" / "score.json").read_text())["samples"] == 4
    file.write_text(json.dumps(answers[1]) + "\n")  # the others are asked for again, in another batch
    (tmp_path / "scores" / "rows.jsonl").unlink()
    main(command)
    assert sorted(map(str, read(file))) == sorted(map(str, answers))
    with pytest.raises(UserError, match="holds another evaluation: its model differ"):
        main([*command, "--gin.SamplingConfig.seed=1"])


@pytest.mark.slow
def test_a_tuned_run_is_asked_in_conversations(run: Path, benchmark: Path, tmp_path: Path) -> None:
    main(flags(run, benchmark, tmp_path, "--gin.EvaluateConfig.chat=True"))
    assert all("solution" in answer for answer in read(tmp_path / "samples.jsonl"))
    assert len(read(tmp_path / "rows.jsonl")) == 4


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="so no model; give the --output directory of a training run"):
        main([f"--checkpoint={tmp_path}", f"--output={tmp_path / 'scores'}"])
