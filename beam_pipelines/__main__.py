"""`python -m beam_pipelines VERB …`: every stage, every chain of stages and every tool is a verb.

A stage's flags follow from its function `run` (command.py); the module of a chain or a tool defines `main(argv)`.
What a verb does is the first line of its module.
"""

from opencoder_jax.recipe import run_command
from opencoder_jax.verbs import Verb, find, usage

PROGRAM = "python -m beam_pipelines"
PIPELINES = "opencoder_jax.beam_pipelines"
DOCUMENTS = "--documents=runs/refinecode/sample"
STAGES = "runs/refinecode"
WEB = "runs/web"

CHAINS = {
    "refinecode": Verb(f"{PIPELINES}.refinecode", "--folders=/path/to/repositories --output=runs/refinecode"),
    "web": Verb(f"{PIPELINES}.web_recall", "--crawl=/path/to/warc --urls=data/seeds.parquet --output=runs/web"),
}
TOOLS = {
    "verify": Verb(f"{PIPELINES}.verify", "runs/refinecode"),
}
COMMANDS = CHAINS | TOOLS
VERBS = COMMANDS | {
    name: Verb(f"{PIPELINES}.{module}", f"{example} --output={output}")
    for name, module, example, output in (
        ("collect", "sources.collect", "--folders=/path/to/repositories", f"{STAGES}/collect"),
        ("git_repositories", "sources.git_repositories", "--repositories=/path/to/clones", "runs/git"),
        ("archives", "sources.archives", "--archives=/path/to/archives", "runs/archives"),
        ("tables", "sources.tables", "--tables=data/stack --gin.TablesConfig.preset=the_stack_v1", "runs/stack"),
        ("join_metadata", "sources.join_metadata", "--metadata=data/metadata --corpus=runs/stack", "runs/rebuilt"),
        ("conversations", "sources.conversations", "--conversations=data/sft_stage1", "runs/sft/conversations"),
        (
            "exact_duplicates",
            "deduplication.exact_duplicates",
            f"--documents={STAGES}/collect",
            f"{STAGES}/exact_duplicates",
        ),
        (
            "near_duplicates",
            "deduplication.near_duplicates",
            f"--documents={STAGES}/exact_duplicates",
            f"{STAGES}/near_duplicates",
        ),
        ("redact", "redaction.redact", f"--documents={STAGES}/near_duplicates", f"{STAGES}/redact"),
        ("signals", "signals.measure", f"--documents={STAGES}/redact", f"{STAGES}/signals"),
        ("filter", "filtering.filter", f"--documents={STAGES}/redact --signals={STAGES}/signals", f"{STAGES}/filter"),
        ("sample", "filtering.sample", f"--documents={STAGES}/filter", f"{STAGES}/sample"),
        (
            "inspect",
            "inspection.inspect_rules",
            f"--documents={STAGES}/redact --signals={STAGES}/signals",
            "runs/inspect",
        ),
        ("decontaminate", "decontamination.decontaminate", DOCUMENTS, "runs/clean"),
        ("select", "synthesis.select", "--documents=runs/clean", "runs/algorithmic"),
        ("doctests", "synthesis.doctests", "--documents=runs/clean", "runs/snippets"),
        ("calls", "synthesis.execution.calls", "--documents=runs/clean", "runs/calls"),
        ("instructions", "synthesis.instructions", "--snippets=runs/snippets", "runs/instructions"),
        ("seed_functions", "synthesis.execution.seed_functions", "--documents=runs/algorithmic", "runs/seed_functions"),
        ("signatures", "synthesis.execution.signatures", "--gin.SignaturesConfig.most=50", "runs/signatures"),
        (
            "ask",
            "synthesis.teacher.ask",
            "--documents=runs/seed_functions --answers=runs/answers --gin.TeacherConfig.server=http://localhost:8000"
            " --gin.TeacherConfig.model=NAME",
            "runs/asked",
        ),
        ("validate", "synthesis.teacher.validate", "--asked=runs/asked", "runs/validated"),
        ("grades", "synthesis.teacher.grades", "--asked=runs/asked", "runs/grades"),
        ("grammar", "synthesis.grammar.grammar", "--gin.GrammarConfig.items=1000", "runs/grammar"),
        ("held_out", "synthesis.grammar.held_out", "--gin.HeldOutConfig.problems=200", "runs/held_out"),
        ("hold_out", "experiments.hold_out", "--documents=runs/archives", "runs/train"),
        ("popular", "experiments.popular", "--documents=runs/archives", "runs/popular"),
        ("library_crawl", "experiments.library_crawl", "", "runs/library_crawl"),
        ("shuffle_lines", "experiments.shuffle_lines", "--documents=runs/clean", "runs/shuffled"),
        ("train_tokenizer", "tokens.train_tokenizer", "--documents=runs/clean", "runs/tokenizer"),
        ("released_tokenizer", "tokens.released_tokenizer", "--released=OpenCoder-8B-Instruct", "runs/tokenizer"),
        ("records", "tokens.records", "--documents=runs/clean --tokenizer=runs/tokenizer", "runs/tokens/refinecode"),
        ("compression", "tokens.compression", "--documents=runs/clean --tokenizer=runs/tokenizer", "runs/compression"),
        ("pages", "web.pages", "--crawl=/path/to/warc", f"{WEB}/pages"),
        ("seeds", "web.labels", f"--documents={WEB}/pages --urls=data/seeds.parquet", f"{WEB}/seeds"),
        (
            "train_classifier",
            "web.train_classifier",
            f"--documents={WEB}/pages --labels={WEB}/seeds --tokenizer=runs/tokenizer",
            f"{WEB}/round_1/classifier",
        ),
        (
            "score",
            "web.score",
            f"--documents={WEB}/pages --classifier={WEB}/round_1/classifier",
            f"{WEB}/round_1/scores",
        ),
        (
            "discover",
            "web.discover",
            f"--documents={WEB}/pages --scores={WEB}/round_1/scores --labels={WEB}/seeds",
            f"{WEB}/round_1/discovered",
        ),
        (
            "recall",
            "web.recall",
            f"--documents={WEB}/pages --scores={WEB}/round_1/scores --labels={WEB}/round_1/discovered",
            f"{WEB}/recalled",
        ),
        (
            "divide_pages",
            "experiments.divide_pages",
            f"--documents={WEB}/pages --classifier={WEB}/round_1/classifier",
            "runs/recalled_pages",
        ),
    )
}


def main(argv: list[str]) -> None:
    """Hands the flags after the verb to its chain or stage, once the recipe is checked.

    Raises:
        UserError: there is no such verb, or its flags or recipe are wrong.
    """
    if (found := find(PROGRAM, VERBS, argv)) is None:
        print(usage(PROGRAM, VERBS))
        return
    name, rest = found
    if name in COMMANDS:
        VERBS[name].load().main(rest)
    else:
        # Beam is imported here, after the check.
        from opencoder_jax.beam_pipelines.command import command

        command(name, VERBS[name].module, VERBS[name].example, rest)


def console() -> None:
    """The installed command."""
    run_command(main)


if __name__ == "__main__":
    console()
