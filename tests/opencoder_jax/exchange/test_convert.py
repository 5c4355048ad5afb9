"""Models come in and go out with every bit: through our checkpoints, in each dtype, whoever wrote the files."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from foreign import random_weights, read_folder, write_folder
from huggingface_hub import ModelCard

from opencoder_jax.exchange.convert import main
from opencoder_jax.exchange.export_model import export_model
from opencoder_jax.exchange.import_model import import_model
from opencoder_jax.exchange.model_card import Story
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel.checkpoints import Checkpoints, verify
from opencoder_jax.parallel.model_directory import CHECKPOINTS, load, read_config, write_config
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.tokenizer import Tokenizer

SMALL = ModelConfig(400, 2, 24, 6, 2, 8, 40, context=64, dtype="float32")
MODELS = {
    "one to one, head size 160": ModelConfig(400, 1, 24, 2, 2, 160, 40, context=64, dtype="float32"),
    "grouped, wider heads than width": SMALL,
    "one key head, tied": ModelConfig(401, 2, 16, 4, 1, 4, 24, context=64, dtype="float32", tied_head=True),
    "llama 3": dataclasses.replace(SMALL, rope_theta=500_000.0, rope_scaling=(8.0, 1.0, 4.0, 32)),
}
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def cast(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    return {name: tensor.astype(DTYPES[dtype]) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_in_and_out_again_no_bit_differs(tmp_path: Path, model: str, dtype: str) -> None:
    config = MODELS[model]
    tensors = cast(random_weights(config), dtype)
    write_folder(tmp_path / "theirs", config, tensors, shards=1 if dtype == "float32" else 3)
    import_model(tmp_path / "theirs", tmp_path / "ours", "float32")
    assert dataclasses.replace(read_config(tmp_path / "ours"), norm_eps=config.norm_eps) == config
    verify(tmp_path / "ours" / CHECKPOINTS, 0)
    export_model(tmp_path / "ours", tmp_path / "again", shard_bytes=4000 if dtype == "float16" else 10**9)
    again = read_folder(tmp_path / "again")
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert again[name].tobytes() == tensor.tobytes(), name
    # What comes out is what came in, to the last file: once more in and out gives the same bytes.
    import_model(tmp_path / "again", tmp_path / "ours2", "float32")
    export_model(tmp_path / "ours2", tmp_path / "other" / "again", shard_bytes=4000 if dtype == "float16" else 10**9)
    for file in (tmp_path / "again").iterdir():
        if file.name != "README.md":
            assert file.read_bytes() == (tmp_path / "other" / "again" / file.name).read_bytes(), file.name


def test_each_tensor_keeps_its_own_dtype(tmp_path: Path) -> None:
    tensors = random_weights(SMALL)
    tensors |= cast({name: tensor for name, tensor in tensors.items() if "norm" not in name}, "bfloat16")
    write_folder(tmp_path / "theirs", SMALL, tensors)
    import_model(tmp_path / "theirs", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "again")
    assert {name: tensor.dtype for name, tensor in read_folder(tmp_path / "again").items()} == {
        name: tensor.dtype for name, tensor in tensors.items()
    }


def test_weights_without_a_tokenizer_go_through(tmp_path: Path) -> None:
    tensors = random_weights(SMALL)
    write_folder(tmp_path / "theirs", SMALL, tensors)
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / "theirs" / file).unlink()
    assert "without a tokenizer" in import_model(tmp_path / "theirs", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "again")
    assert read_folder(tmp_path / "again").keys() == tensors.keys()


@pytest.fixture(scope="module")
def trained(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training leaves: Orbax's own chunks, and moments beside the parameters; our tokenizer."""
    run = tmp_path_factory.mktemp("run") / "sft"
    config = dataclasses.replace(SMALL, vocab_size=tokenizer.vocab_size)
    run.mkdir()
    write_config(run, config)
    (run / "tokenizer.model").write_bytes(tokenizer.model)
    state = nnx.to_pure_dict(abstract(config)[1])
    random = np.random.default_rng(0)
    parameters = jax.tree.map(lambda leaf: jnp.asarray(random.normal(0, 0.3, leaf.shape), jnp.float32), state)
    with Checkpoints(run / CHECKPOINTS, keep=None) as checkpoints:
        checkpoints.save(7, {"parameters": parameters, "optimizer": {"mu": jnp.zeros(3)}})
    return run


def test_a_run_goes_out_and_comes_back_the_same(trained: Path, tmp_path: Path) -> None:
    before = load(trained)
    export_model(trained, tmp_path / "out")
    import_model(tmp_path / "out", tmp_path / "back")
    after = load(tmp_path / "back")
    assert after.config == before.config
    assert after.fingerprint == before.fingerprint  # of the configuration and all weights
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == (trained / "tokenizer.model").read_bytes()
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert generation["eos_token_id"] == config["eos_token_id"] == sorted({2, generation["bos_token_id"] - 1})


def test_rounding_is_to_the_nearest_and_too_large_is_told(trained: Path, tmp_path: Path) -> None:
    export_model(trained, tmp_path / "out", dtype="bfloat16")
    exact = np.asarray(load(trained).parameters["embedding"][...])
    found = read_folder(tmp_path / "out")["model.embed_tokens.weight"]
    np.testing.assert_array_equal(found, exact.astype(ml_dtypes.bfloat16))
    tensors = random_weights(SMALL)
    tensors["model.norm.weight"][3] = 70_000
    write_folder(tmp_path / "large", SMALL, tensors)
    import_model(tmp_path / "large", tmp_path / "ours")
    with pytest.raises(UserError, match=r"model.norm.weight.*float16"):
        export_model(tmp_path / "ours", tmp_path / "half", dtype="float16")
    assert not list(tmp_path.glob("half*"))


def test_a_damaged_checkpoint_is_not_exported(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    sums = tmp_path / "run" / CHECKPOINTS / "7" / "sums" / "metadata"
    wrong = json.loads(sums.read_text())
    wrong["parameters.layers.gate"] += 1
    sums.write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"checksum of parameters.layers.gate is wrong"):
        export_model(tmp_path / "run", tmp_path / "out")
    for file in (tmp_path / "run" / CHECKPOINTS / "7" / "parameters" / "d").iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match="is damaged"):
        export_model(tmp_path / "run", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_full_disk_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(
        UserError, match=r"out: can't be written: No space left on device; it takes about .* GB are free"
    ):
        export_model(trained, tmp_path / "out")
    monkeypatch.undo()
    write_folder(tmp_path / "theirs", SMALL, random_weights(SMALL))
    monkeypatch.setattr("opencoder_jax.parallel.streamed.seal", full)
    with pytest.raises(UserError, match="ours: can't be written: No space left"):
        import_model(tmp_path / "theirs", tmp_path / "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]


def test_what_is_there_stays(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").write_text("mine")
    with pytest.raises(UserError, match="there is something already"):
        export_model(trained, tmp_path / "out")
    assert (tmp_path / "out" / "notes").read_text() == "mine"


def broken(tmp_path: Path, **changes: object) -> Path:
    """A folder whose config.json has fields changed; None takes one out."""
    folder = tmp_path / "theirs"
    write_folder(folder, SMALL, random_weights(SMALL))
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value != "gone"}))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling is of type 'yarn'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, "rope_parameters is of type 'linear'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor is missing"),
        ({"hidden_size": "gone"}, "hidden_size is missing"),
        ({"hidden_size": "24"}, "not a model that the decoder can be"),
        ({"num_key_value_heads": 4}, "must be a multiple of kv_heads=4"),
        ({"num_hidden_layers": 3}, r"model.layers.2.input_layernorm.weight is missing \(9 in all\)"),
        ({"num_hidden_layers": 1}, r"no place for the tensor model.layers.1.input_layernorm.weight \(9 such"),
        ({"intermediate_size": 48}, r"mlp.down_proj.weight is \[24, 40\], and \[24, 48\] by its configuration"),
        ({"tie_word_embeddings": True}, r"tie_word_embeddings is true, but lm_head.weight isn't model.embed_tokens"),
    ],
)
def test_a_model_that_does_not_fit_is_told_by_its_field(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        import_model(broken(tmp_path, **changes), tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_missing_head_is_a_forgotten_tie(tmp_path: Path) -> None:
    tensors = random_weights(SMALL)
    del tensors["lm_head.weight"]
    write_folder(tmp_path / "theirs", SMALL, tensors)
    with pytest.raises(UserError, match="is tie_word_embeddings missing"):
        import_model(tmp_path / "theirs", tmp_path / "ours")


def test_what_follows_or_is_written_twice_is_no_error(tmp_path: Path) -> None:
    config = MODELS["one key head, tied"]
    tensors = random_weights(config)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    write_folder(tmp_path / "theirs", config, tensors)
    import_model(tmp_path / "theirs", tmp_path / "ours")
    assert "head" not in load(tmp_path / "ours").parameters


def damage(folder: Path, how: str) -> None:
    file, index = folder / "model-00002-of-00003.safetensors", folder / "model.safetensors.index.json"
    content = file.read_bytes()
    header = int.from_bytes(content[:8], "little")
    if how == "truncated":
        file.write_bytes(content[:-5])
    elif how == "truncated header":
        file.write_bytes(content[: header // 2])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "garbage":
        file.write_bytes(b"\xff" * len(content))
    elif how == "dtype":
        file.write_bytes(content.replace(b'"F32"', b'"F64"', 1))
    elif how == "doubled":
        shutil.copyfile(file, folder / "copy.safetensors")
        index.unlink()
    elif how == "missing shard":
        file.unlink()
    elif how == "moved tensor":
        places = json.loads(index.read_text())
        places["weight_map"]["model.norm.bias"] = file.name
        index.write_text(json.dumps(places))
    elif how == "escaping shard":
        index.write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    elif how == "no map":
        index.write_text("{}")
    elif how == "no weights":
        for each in folder.glob("model*"):
            each.unlink()
    elif how == "no config":
        (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", r"00002-of-00003.safetensors: truncated, or damaged: it has [\d,]+ bytes of [\d,]+"),
        ("truncated header", "00002-of-00003.safetensors: not a safetensors file, or a truncated one"),
        ("empty", r"a truncated one \(0 bytes\)"),
        ("garbage", "not a safetensors file"),
        ("dtype", "F64"),
        ("doubled", "is also in copy.safetensors"),
        ("missing shard", "names model-00002-of-00003.safetensors, which isn't there"),
        ("moved tensor", "names the tensor model.norm.bias"),
        ("escaping shard", "isn't a file beside it"),
        ("no map", "no weight_map"),
        ("no weights", "no weights: neither"),
        ("no config", "has no config.json and no GGUF file"),
    ],
)
def test_damaged_files_are_named_and_nothing_is_made(tmp_path: Path, how: str, words: str) -> None:
    write_folder(tmp_path / "theirs", SMALL, random_weights(SMALL), shards=3)
    damage(tmp_path / "theirs", how)
    with pytest.raises(UserError, match=words) as caught:
        import_model(tmp_path / "theirs", tmp_path / "ours")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_the_command_tells_the_two_ways_apart(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([f"--from={trained}", f"--to={tmp_path / 'out'}", "--dtype=float16", "--license=mit"])
    main([f"--from={tmp_path / 'out'}", f"--to={tmp_path / 'in'}"])
    out, back = capsys.readouterr().out.splitlines()
    assert re.search(r"parameters of step 7 as float16; README.md, .*config.json.*tokenizer.model", out)
    assert re.search(r"of 21 tensors in float16, each as the configuration says; a tokenizer of 700 ids", back)
    assert json.loads((tmp_path / "in" / "origin.json").read_text())["license"] == "mit"
    with pytest.raises(UserError, match="neither a folder nor a GGUF file"):
        main([f"--from={tmp_path / 'nothing'}", f"--to={tmp_path / 'x'}"])


def test_the_card_is_valid_and_tells_the_story(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "sft"
    shutil.copytree(trained, run)
    recipe = {"recipe": {"DataConfig": {"mixture": {"code": 3.0, "chats": 1.0}}}}
    first = json.dumps(recipe | {"origin": None})
    (tmp_path / "runs" / "pretrain").mkdir()
    (tmp_path / "runs" / "pretrain" / "run.json").write_text(first)
    (tmp_path / "runs" / "pretrain" / "metrics.jsonl").write_text(
        '{"step": 4, "tokens": 800}\n{"step": 9, "tokens": 1800}\n'
    )
    digest = hashlib.sha256(first.encode()).hexdigest()
    (run / "run.json").write_text(json.dumps(recipe | {"origin": {"run": digest, "step": 5}}))
    (run / "metrics.jsonl").write_text('{"step": 7, "tokens": 200}\n')
    (run / "config.gin").write_text("TrainConfig.steps = 7\n")
    for name, before, after in (("filter", 90, 40), ("collect", 100, 90)):
        (tmp_path / "data" / name).mkdir(parents=True)
        tally = {
            "in": {"documents": {"Python": before}, "bytes": {"Python": before * 1000}},
            "out": {"documents": {"Python": after}, "bytes": {"Python": after * 1000}},
            "drop": {"documents": {"too_large": before - after}},
        }
        (tmp_path / "data" / name / "stage.json").write_text(json.dumps({"stage": name, "tally": tally}))
    (tmp_path / "scores").mkdir()
    share = {"estimate": 0.25, "low": 0.19, "high": 0.32}
    (tmp_path / "scores" / "score.json").write_text(json.dumps({"tasks": 164, "pass_at_k": {"pass@1": share}}))
    (tmp_path / "scores" / "run.json").write_text(
        json.dumps({"benchmark": {"file": "HumanEval.jsonl.gz", "sha256": "ab"}})
    )
    export_model(run, tmp_path / "my-model", story=Story("apache-2.0", tmp_path / "data", (tmp_path / "scores",)))
    card = ModelCard.load(tmp_path / "my-model" / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    assert card.data.pipeline_tag == "text-generation"
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_name, result.metric_value) == ("HumanEval", "pass@1", 0.25)
    text = card.text
    assert "Trained on 1,000 tokens." in text  # 800 to the step that the second run began from, and 200
    assert text.index("| pretrain | 5 | 800 | code 75.0%, chats 25.0% |") < text.index("| sft | 7 | 200 |")
    assert text.index("| collect | 100 | 90 | 0.1 | too_large 10 |") < text.index("| filter | 90 | 40 |")
    assert "| HumanEval | pass@1 25.0% | 19.0% to 32.0% | 164 |" in text
    assert "TrainConfig.steps = 7" in text
    assert "apply_chat_template" in text
    with pytest.raises(UserError, match=r"no stage\.json below it"):
        export_model(run, tmp_path / "other", story=Story(data=tmp_path / "scores"))
    with pytest.raises(UserError, match=r"no score\.json and run\.json"):
        export_model(run, tmp_path / "other", story=Story(scores=(tmp_path / "data",)))
