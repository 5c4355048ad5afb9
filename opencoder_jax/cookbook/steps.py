"""The recipe as a list: every step of the cookbook is a command that anyone can run alone.

Read from the top, it's OpenCoder's order (sections 2 to 4 of the paper): raw code is cleaned, tokenised and trained on;
beside it, pages about code are recalled from a crawl, which here is Python's library laid out as pages;
the model is annealed on better data and tuned in two stages on verified instructions; after each stage it's scored, on
the project's own problems and on compositions of the task grammar that no training data holds. Each step reads
directories that earlier steps wrote, and writes one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opencoder_jax.beam_pipelines import refinecode, web_recall
from opencoder_jax.beam_pipelines.experiments.library_crawl import CRAWL, SEEDS
from opencoder_jax.beam_pipelines.synthesis.grammar.grammar import PROBLEMS
from opencoder_jax.chain import Step, read_by, stage
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import configurable

# What is made of the clean documents, in this order.
DERIVED = ("algorithmic", "snippets", "instructions")

# What the task grammar writes, by its forms.
GRAMMAR = ("programs", "questions", "tasks")

# Token records, by the names that the mixtures of the training recipes use.
RECORDS = ("refinecode", "refinecode_heldout", *DERIVED, *GRAMMAR)

# Rounds of web recall; the paper's are three, of a crawl that isn't that small.
ROUNDS = 2

# The models that are scored, by the runs that train them; the first two go on with a prompt, the others are asked.
MODELS = {"pretrained": "pretrain", "base": "anneal", "stage1": "sft_stage1", "tuned": "sft"}


@configurable
@dataclass(frozen=True)
class CookbookConfig:
    """Which recipes the steps use.

    Attributes:
        pipelines, pretrain, anneal, tune_stage1, tune, evaluate_base, evaluate_tuned: gin files.
        items: how many of the grammar's are drawn in each form; they stand in for GrammarConfig.items of `pipelines`.
        functions: what the model is asked to write, before and after tuning: (signature, what it does).
        processes: how many steps may run side by side; most keep about one core busy.
    """

    pipelines: str = "gin_configs/cookbook.gin"
    pretrain: str = "gin_configs/pretrain/cookbook.gin"
    anneal: str = "gin_configs/anneal/cookbook.gin"
    tune_stage1: str = "gin_configs/sft/cookbook_stage1.gin"
    tune: str = "gin_configs/sft/cookbook_stage2.gin"
    evaluate_base: str = "gin_configs/evaluate/cookbook_base.gin"
    evaluate_tuned: str = "gin_configs/evaluate/cookbook_tuned.gin"

    # The miniature reads those of programs and tasks about twice, and fewer questions than there are.
    items: Mapping[str, int] = field(default_factory=lambda: {"programs": 4000, "questions": 1000, "tasks": 4000})

    functions: tuple[tuple[str, str], ...] = (
        ("is_even(number)", "Return whether a number is even."),
        ("first_word(text)", "Return the first word of a text."),
        ("read_lines(path)", "Return the lines of a file as a list."),
        ("mean(numbers)", "Return the arithmetic mean of some numbers."),
    )
    processes: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, str) and not value.endswith(".gin"):
                raise ValueError(f"{name} must name a gin file: got {value!r}")
        check(self, processes=at_least(1))
        if self.items.keys() != set(GRAMMAR):
            raise ValueError(f"items must have the forms {', '.join(GRAMMAR)}: got {self.items!r}")


def steps(config: CookbookConfig, run: str, sources: Sequence[str], overrides: Sequence[str]) -> list[Step]:
    """All steps of a run, in order.

    Args:
        config: which recipes.
        run: the directory of the run.
        sources: folders of source code; none for the running Python's own. With sources, Python's own serve beside
            them for exercises and doctests.
        overrides: `--gin.Name.field=value` flags, which go to every step that reads them.
    """
    data, tokens, train = f"{run}/data", f"{run}/tokens", f"{run}/train"
    flags = [f"--gin_file={config.pipelines}", *overrides]

    def derived(prefix: str, place: str) -> list[Step]:
        """The algorithmic corpus, the snippets and the instructions out of the clean documents of a place."""
        algorithmic, snippets, instructions = (f"{data}/{prefix}{kind}" for kind in DERIVED)
        clean = f"{data}/{prefix}decontaminate"
        return [
            stage(f"select the algorithmic corpus{place}", "select", algorithmic, flags, documents=clean),
            stage(f"run the doctests{place}, keep what passes", "doctests", snippets, flags, documents=clean),
            stage(f"write instructions{place}", "instructions", instructions, flags, snippets=snippets),
        ]

    def tokenised(name: str, documents: Sequence[str], *more: str) -> Step:
        inputs = {"documents": documents, "tokenizer": f"{data}/tokenizer"}
        return stage(f"tokenise: {name}", "records", f"{tokens}/{name}", [*flags, *more], **inputs)

    def other(
        title: str, verb: str, recipe: str, output: str, inputs: Sequence[str], *more: str, **places: str
    ) -> Step:
        settings = (f"--gin_file={recipe}", *read_by("opencoder_jax", verb, overrides), *more)
        return Step(title, "opencoder_jax", verb, settings, output, tuple(places.items()), tuple(inputs))

    def trained(title: str, recipe: str, name: str, start: str = "") -> Step:
        inputs = [f"{tokens}/{kind}" for kind in RECORDS]
        origin = {"init_from": f"{train}/{start}"} if start else {}
        return other(title, "train", recipe, f"{train}/{name}", [*inputs, *origin.values()], data=tokens, **origin)

    def sampled(title: str, recipe: str, model: str, name: str, prompts: Sequence[str], *more: str) -> Step:
        asked = (*more, *(f"--prompt={prompt}" for prompt in prompts))
        return other(title, "generate", recipe, f"{run}/samples/{name}", [model], *asked, checkpoint=model)

    def scored(name: str, trained: str) -> list[Step]:
        """On the project's own problems, and on the held-out compositions."""
        model, held_out = f"{train}/{trained}", f"{data}/held_out"
        recipe = config.evaluate_base if trained in ("pretrain", "anneal") else config.evaluate_tuned
        title, output = f"score the model of {trained}", f"{run}/evaluation"
        file = f"{held_out}/{PROBLEMS}"
        return [
            other(title, "eval", recipe, f"{output}/{name}", [model], checkpoint=model),
            other(
                f"{title} on held-out compositions",
                "eval",
                recipe,
                f"{output}/held_out_{name}",
                [model, held_out],
                checkpoint=model,
                benchmark_file=file,
            ),
        ]

    made = {form: f"{data}/grammar_{form}" for form in GRAMMAR}
    crawl = f"{data}/library_crawl"
    pages, seeds = [f"{crawl}/{CRAWL}"], [f"{crawl}/{SEEDS}"]
    code = [f'def {signature}:\n    """{purpose}"""\n' for signature, purpose in config.functions]
    tasks = [f"Write a Python function `{signature}`.\n\n{purpose}" for signature, purpose in config.functions]
    base, tuned, clean = f"{train}/anneal", f"{train}/sft", f"{data}/decontaminate"
    # A folder of one's own may hold no exercise and no doctest: the running Python lends its.
    prefixes = ("", "library_") if sources else ("",)
    library = [
        stage("collect Python's library", "collect", f"{data}/library_collect", flags),
        stage(
            "decontaminate it",
            "decontaminate",
            f"{data}/library_decontaminate",
            flags,
            documents=f"{data}/library_collect",
        ),
        *derived("library_", " of Python's library"),
    ]
    return [
        *refinecode.steps(data, flags, inputs={"folders": sources}),
        stage("decontaminate", "decontaminate", clean, flags, documents=f"{data}/sample"),
        *derived("", ""),
        *(library if sources else []),
        stage("lay out Python's library as a crawl", "library_crawl", crawl, flags),
        *web_recall.steps(f"{run}/web", flags, ROUNDS, crawl=pages, documents=[], urls=seeds),
        *(
            stage(
                f"draw {form} from the grammar",
                "grammar",
                made[form],
                [
                    f"--gin_file={config.pipelines}",
                    f"--gin.GrammarConfig.items={config.items[form]}",
                    *overrides,
                    f'--gin.GrammarConfig.form="{form}"',
                ],
            )
            for form in GRAMMAR
        ),
        stage("draw held-out compositions", "held_out", f"{data}/held_out", flags),
        stage("train the tokenizer", "train_tokenizer", f"{data}/tokenizer", flags, documents=[clean, made["tasks"]]),
        tokenised("refinecode", [clean]),
        tokenised("refinecode_heldout", [clean], "--gin.TokenRecordsConfig.part=heldout"),
        *(tokenised(kind, [f"{data}/{prefix}{kind}" for prefix in prefixes]) for kind in DERIVED),
        *(tokenised(form, [made[form]]) for form in GRAMMAR),
        trained("pretrain", config.pretrain, "pretrain"),
        trained("anneal", config.anneal, "anneal", "pretrain"),
        trained("tune, stage 1", config.tune_stage1, "sft_stage1", "anneal"),
        trained("tune, stage 2", config.tune, "sft", "sft_stage1"),
        sampled("sample the annealed model", config.evaluate_base, base, "base", code),
        sampled("sample the tuned model", config.evaluate_tuned, tuned, "tuned", tasks, "--chat"),
        *(step for name, trained_in in MODELS.items() for step in scored(name, trained_in)),
    ]
