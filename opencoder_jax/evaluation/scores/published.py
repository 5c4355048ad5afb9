"""What others have published, to stand beside a score: OpenCoder's paper (arXiv 2411.04905v3, its tables of scores).

In per cent, pass@1. "older" is the set that a plus set extends. A figure is of the paper's own prompts and evaluators.
"""

from typing import NamedTuple


class Figure(NamedTuple):
    """A published score: the model, the benchmark as `eval --benchmark` calls it, per cent."""

    model: str
    benchmark: str
    score: float


def _column(benchmark: str, **scores: float) -> tuple[Figure, ...]:
    return tuple(Figure(_MODELS[name], benchmark, score) for name, score in scores.items())


_MODELS = {
    "base_1b": "OpenCoder-1.5B-Base",
    "base_8b": "OpenCoder-8B-Base",
    "qwen_1b": "Qwen2.5-Coder-1.5B",
    "qwen_7b": "Qwen2.5-Coder-7B",
    "tuned_1b": "OpenCoder-1.5B-Instruct",
    "tuned_8b": "OpenCoder-8B-Instruct",
    "qwen_tuned": "Qwen2.5-Coder-7B-Instruct",
}
FIGURES = (
    *_column("humaneval", base_1b=54.3, base_8b=66.5, qwen_1b=43.9, qwen_7b=61.6),
    *_column("humaneval", tuned_1b=72.5, tuned_8b=83.5, qwen_tuned=88.4),
    *_column("humaneval+", base_1b=49.4, base_8b=63.4, qwen_1b=36.6, qwen_7b=53.0),
    *_column("humaneval+", tuned_1b=67.7, tuned_8b=78.7, qwen_tuned=84.1),
    *_column("mbpp", base_1b=51.8, base_8b=60.6, qwen_1b=59.2, qwen_7b=68.8),  # 3-shot
    *_column("mbpp+", base_1b=58.7, base_8b=70.4, qwen_1b=58.6, qwen_7b=62.9),
    *_column("mbpp+", tuned_1b=61.9, tuned_8b=69.0, qwen_tuned=71.7),
    *_column("bigcodebench-complete", base_1b=24.5, base_8b=40.5, qwen_1b=34.6, qwen_7b=45.8),
    *_column("bigcodebench-hard-complete", base_1b=5.4, base_8b=9.5, qwen_1b=9.5, qwen_7b=16.2),
    *_column("bigcodebench-instruct", tuned_1b=33.3, tuned_8b=40.3, qwen_tuned=41.0),
    *_column("bigcodebench-hard-instruct", tuned_1b=11.5, tuned_8b=16.9, qwen_tuned=18.2),
    *_column("livecodebench", tuned_1b=12.8, tuned_8b=23.2, qwen_tuned=37.6),  # 2305 to 2409
    *_column("multipl-e-java", tuned_1b=64.6, tuned_8b=72.2),
    *_column("multipl-e-cpp", tuned_1b=50.9, tuned_8b=61.5),
    *_column("multipl-e-cs", tuned_1b=61.4, tuned_8b=75.9),
    *_column("multipl-e-ts", tuned_1b=63.5, tuned_8b=78.0),
    *_column("multipl-e-js", tuned_1b=62.1, tuned_8b=79.5),
    *_column("multipl-e-php", tuned_1b=55.3, tuned_8b=73.3),
    *_column("multipl-e-sh", tuned_1b=29.7, tuned_8b=44.3),
)


def beside(benchmark: str) -> list[Figure]:
    """What was published of a benchmark."""
    return [figure for figure in FIGURES if figure.benchmark == benchmark]
