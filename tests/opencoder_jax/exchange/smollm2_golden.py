"""What transformers makes of the real model of the tests, read from its GGUF by itself: smollm2_golden.npz.

    uv venv /tmp/peer && uv pip install --python /tmp/peer torch transformers gguf
    PYTHONPATH=. /tmp/peer/bin/python tests/opencoder_jax/exchange/smollm2_golden.py FILE.gguf

Made with transformers 5.24 and torch 2.15 on a CPU, in float32, logits in float64. Nothing of ours is in it:
transformers dequantises and turns the rows itself, and makes its own tokenizer.
"""

import copy
import importlib
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).with_name("smollm2_golden.npz")
GREEDY = 256
SHOWN = 64  # logits of a prompt that are stored
CHATS = (
    "Write a Python function that adds two numbers.",
    "Explain recursion in one sentence.",
    "What is the capital of France?",
    "Write a haiku about compilers.",
)
# The first lines of files that every Python has, cut in the middle of things.
FILES = ("json/decoder.py", "bisect.py", "heapq.py", "textwrap.py", "string.py", "shlex.py", "queue.py", "copy.py")
LINES = (12, 40)
TOKENISED = ("json/decoder.py", "re/_parser.py", "test/test_unicode_identifiers.py", "encodings/cp037.py", "this.py")


def library(name: str) -> str:
    """A file of Python's own library."""
    return (Path(sysconfig.get_path("stdlib")) / name).read_text(encoding="utf-8")


def prompts() -> list[str]:
    """What is completed; chats are spelt out, control tokens and all."""
    chats = [
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n"
        for said in CHATS
    ]
    return chats + ["".join(library(name).splitlines(keepends=True)[:lines]) for name in FILES for lines in LINES]


def some(size: int) -> np.ndarray:
    """Which logits are stored."""
    return np.random.default_rng(3).choice(size, SHOWN, replace=False)


def main() -> None:
    """Writes the golden file."""
    torch, transformers = map(importlib.import_module, ("torch", "transformers"))
    file = Path(sys.argv[1])
    load: dict[str, Any] = {"gguf_file": file.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **load)
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, **load, dtype=torch.float32)
    exact = copy.deepcopy(model).double()  # logits without rounding of its own
    golden = {}
    # No end of a message ends these: all have the same length. None here would be taken for the model's own ends.
    model.generation_config.eos_token_id = None
    settings = transformers.GenerationConfig(max_new_tokens=GREEDY, do_sample=False, pad_token_id=2, use_cache=True)
    for number, prompt in enumerate(prompts()):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            logits = exact(ids).logits[0].numpy()
            # Without a mask it would hide the padding's id, which is also the end of a chat's messages.
            every = torch.ones_like(ids)
            said = model.generate(ids, attention_mask=every, generation_config=settings)[0, ids.shape[1] :].numpy()
        golden[f"{number}.prompt"] = ids[0].numpy().astype(np.uint16)
        golden[f"{number}.logits"] = logits[:, some(logits.shape[1])][-SHOWN:].astype(np.float32)
        golden[f"{number}.log_sums"] = np.logaddexp.reduce(logits, axis=-1)[-SHOWN:]
        golden[f"{number}.greedy"] = said.astype(np.uint16)
        print(number, ids.shape, repr(tokenizer.decode(said[:20])), flush=True)
    # From a GGUF, transformers takes GPT-2's cuts. The model's published tokenizer.json cuts single digits off first,
    # which the GGUF says by "smollm", its tokenizer.ggml.pre.
    cuts = importlib.import_module("tokenizers.pre_tokenizers")
    tokenizer.backend_tokenizer.pre_tokenizer = cuts.Sequence(
        [cuts.Digits(individual_digits=True), cuts.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    for name in TOKENISED:
        golden[f"ids.{name}"] = np.array(tokenizer(library(name)).input_ids, np.uint16)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main()
