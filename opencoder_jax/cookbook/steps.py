"""The recipe as a list: every step of the cookbook is a command that anyone can run alone.

Read from the top, it's OpenCoder's order (sections 2 to 4 of the paper): raw code is cleaned, tokenised and trained on;
the model is annealed on better data and tuned on verified instructions; before and after tuning it's scored. Each step
reads directories that earlier steps wrote, and writes one.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opencoder_jax.beam_pipelines.refinecode import STEPS as RAW_CODE
from opencoder_jax.recipe import configurable

# Token records, by the names that the mixtures of the training recipes use.
RECORDS = ("refinecode", "refinecode_heldout", "algorithmic", "snippets", "instructions")


# Those that are made of the clean documents, in this order.
DERIVED = ("algorithmic", "snippets", "instructions")


@configurable
@dataclass(frozen=True)
class CookbookConfig:
    """Which recipes the steps use.

    Attributes:
        pipelines, pretrain, anneal, tune, evaluate_base, evaluate_tuned: gin files.
        functions: what the model is asked to write, before and after tuning: (signature, what it does).
    """

    pipelines: str = "gin_configs/cookbook.gin"
    pretrain: str = "gin_configs/pretrain/cookbook.gin"
    anneal: str = "gin_configs/anneal/cookbook.gin"
    tune: str = "gin_configs/sft/cookbook.gin"
    evaluate_base: str = "gin_configs/evaluate/cookbook_base.gin"
    evaluate_tuned: str = "gin_configs/evaluate/cookbook_tuned.gin"

    functions: tuple[tuple[str, str], ...] = (
        ("is_even(number)", "Return whether a number is even."),
        ("first_word(text)", "Return the first word of a text."),
        ("read_lines(path)", "Return the lines of a file as a list."),
        ("mean(numbers)", "Return the arithmetic mean of some numbers."),
    )

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "functions" and not value.endswith(".gin"):
                raise ValueError(f"{name} must name a gin file: got {value!r}")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        title: for people.
        module: what `python -m` runs, with its verb if it has one.
        arguments: its flags.
        output: the directory that it writes.
        inputs: the directories that it reads, all written by earlier steps.
    """

    title: str
    module: str
    arguments: tuple[str, ...]
    output: Path
    inputs: tuple[Path, ...] = ()

    def command(self) -> str:
        """What a user types."""
        return f"python -m {self.module} {shlex.join(self.arguments)}"


def steps(config: CookbookConfig, run: Path, sources: Sequence[str], overrides: Sequence[str]) -> list[Step]:
    """All steps of a run, in order.

    Args:
        run: the directory of the run.
        sources: folders of source code; none for the running Python's own. With sources, Python's own serve beside
            them for exercises and doctests.
        overrides: `--gin.Name.field=value` flags, which go to every step.
    """
    data, tokens, train, scores = run / "data", run / "tokens", run / "train", run / "evaluation"

    def pipeline(title: str, module: str, output: Path, *inputs: Path) -> Step:
        flags = [f"--gin_file={config.pipelines}", *overrides, *(f"--input={path}" for path in inputs)]
        return Step(title, f"opencoder_jax.beam_pipelines.{module}", (*flags, f"--output={output}"), output, inputs)

    def tokenised(name: str, *documents: Path, flags: Sequence[str] = ()) -> Step:
        step = pipeline(f"tokenise: {name}", "tokens.records", tokens / name, *documents, tokenizer)
        return replace(step, arguments=(*step.arguments, *flags))

    def derived(name: str, place: str) -> list[Step]:
        """The algorithmic corpus, the snippets and the instructions out of the clean documents of a place."""
        algorithmic, snippets, instructions = (data / f"{name}{kind}" for kind in DERIVED)
        documents = data / f"{name}decontaminate"
        return [
            pipeline(f"select the algorithmic corpus{place}", "synthesis.select", algorithmic, documents),
            pipeline(f"run the doctests{place}, keep what passes", "synthesis.doctests", snippets, documents),
            pipeline(f"write instructions{place}", "synthesis.instructions", instructions, snippets),
        ]

    def trained(title: str, recipe: str, output: Path, start: Path | None = None) -> Step:
        flags = [f"--gin_file={recipe}", *overrides, f"--data={tokens}", f"--output={output}"]
        inputs = [tokens / name for name in RECORDS]
        if start:
            flags.append(f"--init_from={start}")
            inputs.append(start)
        return Step(title, "opencoder_jax train", tuple(flags), output, tuple(inputs))

    def scored(title: str, recipe: str, model: Path, output: Path) -> Step:
        flags = (f"--gin_file={recipe}", *overrides, f"--checkpoint={model}", f"--output={output}")
        return Step(title, "opencoder_jax eval", flags, output, (model,))

    def sampled(title: str, recipe: str, model: Path, name: str, prompts: Sequence[str], *flags: str) -> Step:
        said = run / "samples" / name
        asked = (*flags, *(f"--prompt={prompt}" for prompt in prompts))
        flags = (f"--gin_file={recipe}", *overrides, f"--checkpoint={model}", *asked, f"--output={said}")
        return Step(title, "opencoder_jax generate", flags, said, (model,))

    code = [f'def {signature}:\n    """{purpose}"""\n' for signature, purpose in config.functions]
    tasks = [f"Write a Python function `{signature}`.\n\n{purpose}" for signature, purpose in config.functions]
    base, tuned = train / "anneal", train / "sft"
    raw_code = [
        pipeline(step.title, step.module, data / step.name, *(data / name for name in step.inputs)) for step in RAW_CODE
    ]
    collect = raw_code[0]
    clean, tokenizer = data / "decontaminate", data / "tokenizer"
    # A folder of one's own may hold no exercise and no doctest: the running Python lends its.
    names = ("", "library_") if sources else ("",)
    library = [
        pipeline("collect Python's library", "sources.collect", data / "library_collect"),
        pipeline("decontaminate it", "decontaminate", data / "library_decontaminate", data / "library_collect"),
        *derived("library_", " of Python's library"),
    ]
    return [
        replace(collect, arguments=(*collect.arguments, *(f"--input={source}" for source in sources))),
        *raw_code[1:],
        pipeline("decontaminate", "decontaminate", clean, data / "sample"),
        *derived("", ""),
        *(library if sources else []),
        pipeline("train the tokenizer", "tokens.train_tokenizer", tokenizer, clean),
        tokenised("refinecode", clean),
        tokenised("refinecode_heldout", clean, flags=["--gin.TokenRecordsConfig.part=heldout"]),
        *(tokenised(kind, *(data / f"{name}{kind}" for name in names)) for kind in DERIVED),
        trained("pretrain", config.pretrain, train / "pretrain"),
        trained("anneal", config.anneal, base, train / "pretrain"),
        trained("tune on instructions", config.tune, tuned, base),
        sampled("sample the annealed model", config.evaluate_base, base, "base", code),
        sampled("sample the tuned model", config.evaluate_tuned, tuned, "tuned", tasks, "--chat"),
        scored("score the annealed model", config.evaluate_base, base, scores / "base"),
        scored("score the tuned model", config.evaluate_tuned, tuned, scores / "tuned"),
    ]
