"""Recalls pages about code, or whatever the seeds are about, from a crawl in three rounds: one resumable command.

    python -m beam_pipelines web --crawl=data/crawl --urls=data/seeds.parquet --output=runs/web
    python -m beam_pipelines web --documents=runs/text_files --output=runs/github_text \\
        --gin_file=gin_configs/data/web_github_text.gin

The order is OpenCoder's (paper section 2.1.2): pages; exact and near duplicates; a tokenizer that cuts texts for the
classifier; seeds; then rounds, each of which trains a classifier on seeds against random pages, scores all pages, finds
the sites that hold what is looked for, and makes pages under their accepted patterns the next round's seeds. In the end
the recalled pages are documents like all others. Beside each round stands what a person may review
(`round_1/discovered/patterns.toml`); give the file back by `--gin.DiscoverConfig.reviewed=FILE`, and what depends on it
is made again.

`--documents` begins with documents of another stage, as text files of GitHub or any table (`tables`). In the end
`web.json` says in one place what every stage did, and `report.html` shows each round: its precision and recall, sites,
and pages from both sides of the threshold.
"""

from collections.abc import Sequence

from opencoder_jax.beam_pipelines.chains import SUMMARIES, chain_parser, parse_chain, run_stages
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.web.report import REPORT, write_page
from opencoder_jax.chain import Step, stage
from opencoder_jax.recipe import UserError

SUMMARY = SUMMARIES["web"]
DEFAULT_RECIPE = "gin_configs/data/web_code.gin"


def steps(
    output: str, flags: Sequence[str], rounds: int, crawl: Sequence[str], documents: Sequence[str], urls: Sequence[str]
) -> list[Step]:
    """The stages in order.

    Args:
        output: the directory of the chain.
        flags: that every stage gets.
        crawl: files of a crawl; or
        documents: a stage of documents, one.
        urls: tables of the seeds' addresses.
    """
    chain: list[Step] = []
    if not documents:
        chain.append(stage("read pages", "pages", f"{output}/pages", flags, crawl=crawl))
    source = documents[0] if documents else f"{output}/pages"
    exact, near = f"{output}/exact_duplicates", f"{output}/near_duplicates"
    chain += [
        stage("drop exact duplicates", "exact_duplicates", exact, flags, documents=source),
        stage("drop near duplicates", "near_duplicates", near, flags, documents=exact),
        stage("train the classifier's tokenizer", "train_tokenizer", f"{output}/tokenizer", flags, documents=near),
        stage("mark seeds", "seeds", f"{output}/seeds", flags, documents=near, urls=urls),
    ]
    labels, scores = f"{output}/seeds", ""
    for number in range(1, rounds + 1):
        here = f"{output}/round_{number}"
        classifier, scores, tokenizer = f"{here}/classifier", f"{here}/scores", f"{output}/tokenizer"
        chain += [
            stage(
                f"round {number}: train the classifier",
                "train_classifier",
                classifier,
                flags,
                documents=near,
                labels=labels,
                tokenizer=tokenizer,
            ),
            stage(f"round {number}: score pages", "score", scores, flags, documents=near, classifier=classifier),
            stage(
                f"round {number}: find sites",
                "discover",
                f"{here}/discovered",
                flags,
                documents=near,
                scores=scores,
                labels=labels,
                classifier=classifier,
            ),
        ]
        labels = f"{here}/discovered"
    recalled = f"{output}/recalled"
    chain.append(stage("keep recalled pages", "recall", recalled, flags, documents=near, scores=scores, labels=labels))
    return chain


def main(argv: list[str]) -> None:
    """Runs the stages that aren't up to date, writes the summary and prints a line a stage and a round.

    Raises:
        UserError: an input, a recipe or a flag is wrong; stages that were finished stay.
    """
    parser = chain_parser("web", __doc__, "--crawl=data/crawl --urls=data/seeds.parquet --output=runs/web")
    for name, meaning in (
        ("crawl", "a WARC, WET, Parquet or JSON file, or a folder of them"),
        ("documents", "in place of a crawl: a stage's documents"),
        ("urls", "a table of the seeds' addresses, or a folder of them"),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="DIR", help=f"{meaning}; repeatable")
    parser.add_argument("--rounds", type=int, default=3, help="how many; OpenCoder's 3 by default")
    flags, shared = parse_chain(parser, argv, DEFAULT_RECIPE)
    if bool(flags.crawl) == bool(flags.documents) or len(flags.documents) > 1:
        raise UserError("give --crawl=DIR, as often as need be, or one --documents=DIR")
    if flags.rounds < 1:
        raise UserError(f"--rounds={flags.rounds}: there must be one at least")
    output = flags.output
    chain = steps(output, shared, flags.rounds, flags.crawl, flags.documents, flags.urls)
    table = run_stages(chain, flags.accept, output, SUMMARY)
    places = [f"{output}/round_{number}" for number in range(1, flags.rounds + 1)]
    write_page(output, flags.rounds)
    print(table)
    print(told(places))
    print(f"report: {output}/{REPORT}")


def told(places: Sequence[str]) -> str:
    """A table of what each round recalled."""
    names = ("recalled", "gained", "lost again", "sites", "patterns accepted", "new seeds")
    lines = [f"{'round':8}" + "".join(f"{name:>18}" for name in names)]
    for number, place in enumerate(places, 1):
        counts = Manifest.read(f"{place}/discovered").table("count")
        lines.append(f"{number:<8}" + "".join(f"{counts.get(name, 0):18,}" for name in names))
    return "\n".join(lines)
