"""python -m opencoder_jax generate: prompts in, completions out, one line for a mistake."""

from pathlib import Path

import pytest
from flax import nnx

from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.generate import main
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.parallel.checkpoints import Checkpoints
from opencoder_jax.parallel.model_directory import LoadedModel, write_config
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.tokenizer import Tokenizer

SHORT = "--gin.SamplingConfig.max_tokens=8"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model: LoadedModel, tokenizer: Tokenizer) -> str:
    """The directory of a run, as training leaves it."""
    run = tmp_path_factory.mktemp("run")
    write_config(run, model.config)
    (run / "tokenizer.model").write_bytes(tokenizer.model)
    parameters = nnx.to_pure_dict(model.parameters)
    with Checkpoints(run / "checkpoints", keep=None) as checkpoints:
        checkpoints.save(3, {"parameters": parameters})
    return str(run)


def test_prompts_are_completed(run: str, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = ["def add(a, b):", "for i in"]
    main([f"--checkpoint={run}", *(f"--prompt={prompt}" for prompt in prompts), SHORT])
    said = engine.generate([engine.tokenizer.encode(prompt) for prompt in prompts], SamplingConfig(max_tokens=8))
    assert [completion.finish_reason for completion in said] == ["length", "length"]
    shown = capsys.readouterr().out
    for prompt, completion in zip(prompts, said, strict=True):
        assert prompt + completion.text + "\n[cut off after 8 tokens" in shown


def test_a_message_is_answered(run: str, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    main([f"--checkpoint={run}", "--prompt=hello", "--chat", SHORT])
    prompt = chat.encode_prompt(engine.tokenizer, [{"role": "user", "content": "hello"}])
    (answer,) = engine.generate([prompt], SamplingConfig(max_tokens=8))
    assert capsys.readouterr().out.startswith(answer.text + "\n")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prompt="], "prompt 0 is empty"),
        (["--prompt=a", "--step=4"], "no checkpoint of step 4"),
        (["--prompt=a", "--gin.SamplingConfig.max_tokens=900"], "context of 256"),
        (["--prompt=a", "--gin.SamplingConfig.top_p=2"], "top_p=2"),
        (["--prompt=a", "--prmpt=b"], "--prompt"),
    ],
)
def test_mistakes_are_one_line(run: str, flags: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        main([f"--checkpoint={run}", *flags])
    assert "\n" not in str(error.value)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.json"):
        main([f"--checkpoint={tmp_path}", "--prompt=a"])
