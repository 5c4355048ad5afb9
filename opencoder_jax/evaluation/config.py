"""How a model is asked and its answers are judged. The defaults are OpenCoder's: zero-shot, one sample, its stops."""

from dataclasses import dataclass
from datetime import date

from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import configurable

_PROFILES = ("strict", "opencoder")


@configurable
@dataclass(frozen=True)
class EvaluateConfig:
    """The settings of an evaluation. Temperature, top-p and the length of answers are SamplingConfig's.

    The stop strings are those of OpenCodeEval, the evaluator that OpenCoder was released with; so are 3 seconds, which
    we count on the processor, because a limit by the clock makes the score depend on what else the machine does.
    """

    chat: bool = False  # asks in a conversation, instead of letting the model go on with the prompt
    samples_per_problem: int = 1  # answers that a model gives to each problem
    ks: tuple[int, ...] = (1,)  # of pass@k
    # How programs are found in answers, a score each: "strict" changes as little as possible, "opencoder" has the
    # quirks of OpenCoder's evaluator (evaluation/answers/opencodeeval.py names them).
    profiles: tuple[str, ...] = ("strict",)
    prompts: str = (
        "published"  # as each benchmark's authors or EvalPlus ask; "opencoder": as OpenCoder's evaluator does
    )
    # Each ends an answer that goes on with the prompt. One in a conversation ends where the model ends it: a program in
    # it may hold any string.
    stop: tuple[str, ...] = (
        "<|endoftext|>",
        "<|endofmask|>",
        "</s>",
        "\nif __name__",
        "\ndef main(",
        "\nprint(",
        "\n```\n",
        "\ndef ",
        "\nclass ",
        "\nimport ",
        "\nfrom ",
        "\nassert ",
    )
    fim: tuple[str, ...] = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")  # around what stands beside a gap
    published_from: str = ""  # first day of the window of LiveCodeBench, such as 2023-05-01; "" for no such end
    published_before: str = ""  # the day behind its last
    # Of a program, on the processor; waiting for something else, twice that and a second. A benchmark whose own limits
    # (evaluation/tasks.py) are wider has those; so for memory_bytes.
    cpu_seconds: int = 3
    memory_bytes: int = 1 << 30  # address space of a program
    workers: int = 4  # programs run at once
    # Walls of the sandbox that this machine may lack, though nothing else stands where they should.
    without_walls: tuple[str, ...] = ()
    prompts_at_once: int = 256  # answers are written to the disk after so many

    def __post_init__(self) -> None:
        counts = ("samples_per_problem", "cpu_seconds", "memory_bytes", "workers", "prompts_at_once")
        check(self, **dict.fromkeys(counts, at_least(1)))
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"ks={self.ks}: each k of pass@k must be 1 or more")
        if max(self.ks) > self.samples_per_problem:
            raise ValueError(
                f"ks={self.ks}: pass@{max(self.ks)} needs samples_per_problem={max(self.ks)} or more,"
                f" it is {self.samples_per_problem}"
            )
        if any(not stop for stop in self.stop):
            raise ValueError("stop: an empty string would stop every answer at once")
        if "strict" not in self.profiles or set(self.profiles) - set(_PROFILES):
            raise ValueError(f"profiles={self.profiles}: 'strict', and beside it there is 'opencoder'")
        if self.prompts not in ("published", "opencoder"):
            raise ValueError(f"prompts={self.prompts!r}: 'published' or 'opencoder'")
        if len(self.fim) != 3:
            raise ValueError(f"fim={self.fim}: three strings, before the beginning, the end and the middle")
        for name in ("published_from", "published_before"):
            try:
                date.fromisoformat(getattr(self, name) or "2024-01-01")
            except ValueError:
                raise ValueError(f"{name}={getattr(self, name)!r}: a day such as 2024-01-31, or ''") from None

    def stops(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return () if self.chat else self.stop
