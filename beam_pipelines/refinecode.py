"""RefineCode's raw-code pipeline as one command: from source code to the sampled corpus, resumable.

    python -m beam_pipelines refinecode --folders=/path/to/repositories --output=runs/refinecode
    python -m beam_pipelines refinecode --tables=data/stack --output=runs/refinecode \\
        --gin.TablesConfig.preset=the_stack_v1

The order is OpenCoder's (paper section 2.1.3 and its figure of the pipeline): collect, exact duplicates, near
duplicates, redact, signals, filter, sample. Each stage is a command of its own that reads and writes directories below
`--output`; a stage that is up to date isn't run again, and one that was killed goes on where it stopped. Beam's flags
go to every stage, so the same command runs on this machine, Dataflow or Flink.

The inputs say which source it begins with: whatever that is, it writes the directory `collect`. Without one, it's the
folders of the running Python's own library and packages.

In the end `refinecode.json` says in one place what every stage did: its configuration, what it read and wrote, and
where each document went. It depends on the input, the recipe and the code alone.
"""

from collections.abc import Iterable, Mapping, Sequence

from opencoder_jax.beam_pipelines.chains import SUMMARIES, chain_parser, parse_chain, run_stages
from opencoder_jax.chain import PIPELINES, Step, stage, verbs_of
from opencoder_jax.recipe import UserError

SUMMARY = SUMMARIES["refinecode"]
DEFAULT_RECIPE = "gin_configs/data/pipelines.gin"

# What the chain may begin with, by verbs, and what that step is called. The first is the default.
SOURCES = {
    "collect": "collect source files",
    "git_repositories": "collect files of git repositories",
    "archives": "collect files of archives",
    "tables": "collect documents of tables",
    "join_metadata": "join metadata with a corpus",
}


def steps(
    output: str, flags: Sequence[str], source: str = "collect", inputs: Mapping[str, Sequence[str]] | None = None
) -> list[Step]:
    """The stages from a source on, in order.

    Args:
        output: the directory of the chain.
        flags: that every stage gets.
        source: of SOURCES.
        inputs: what the source reads, by the names of its flags.
    """

    def then(title: str, verb: str, *, documents: str, **others: str) -> Step:
        return stage(title, verb, f"{output}/{verb}", flags, documents=documents, **others)

    return [
        stage(SOURCES[source], source, f"{output}/collect", flags, **(inputs or {})),
        then("drop exact duplicates", "exact_duplicates", documents=f"{output}/collect"),
        then("drop near duplicates", "near_duplicates", documents=f"{output}/exact_duplicates"),
        then("redact notices and secrets", "redact", documents=f"{output}/near_duplicates"),
        then("compute signals", "signals", documents=f"{output}/redact"),
        then("filter by rules", "filter", documents=f"{output}/redact", signals=f"{output}/signals"),
        then("sample languages", "sample", documents=f"{output}/filter"),
    ]


def main(argv: list[str]) -> None:
    """Runs the stages that aren't up to date, writes the summary and prints a line a stage.

    Raises:
        UserError: an input, a recipe or a flag is wrong; stages that were finished stay.
    """
    parser = chain_parser("refinecode", __doc__, "--folders=/path/to/repositories --output=runs/refinecode")
    verbs = verbs_of(PIPELINES)
    for source in SOURCES:
        for name, meaning in verbs[source].inputs.items():
            told = f"{meaning}; repeatable" if name != "corpus" else f"with --metadata: {meaning}; repeatable"
            parser.add_argument(f"--{name}", action="append", default=[], metavar="DIR", help=told)
    flags, shared = parse_chain(parser, argv, DEFAULT_RECIPE)
    source, inputs = chosen_source(vars(flags))
    print(run_stages(steps(flags.output, shared, source, inputs), flags.accept, flags.output, SUMMARY))


def chosen_source(
    flags: Mapping[str, Sequence[str]], sources: Iterable[str] = SOURCES
) -> tuple[str, dict[str, Sequence[str]]]:
    """The source whose inputs were given, the first one where none were, and these.

    Raises:
        UserError: inputs of two sources were given.
    """
    verbs = verbs_of(PIPELINES)
    given = {source: {name: flags[name] for name in verbs[source].inputs if flags[name]} for source in sources}
    found = [source for source, inputs in given.items() if inputs]
    if len(found) > 1:
        names = " and ".join(f"--{name}" for source in found for name in given[source])
        raise UserError(f"{names}: a chain begins with one source; run the others alone, or give one of them")
    source = found[0] if found else next(iter(given))
    return source, given[source]
