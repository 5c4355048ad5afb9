"""What Prometheus reads at /metrics: how much is asked, answered, waiting, and how fast."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """`running` and `waiting` tell how many answers are being made, and how many are going to be."""
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "opencoder_requests", "HTTP requests by route and status.", ["route", "status"], registry=registry
        )
        self.answers = Counter(
            "opencoder_answers", "Answers by their end: stop, length, cancelled.", ["finish_reason"], registry=registry
        )
        self.prompt_tokens = Counter("opencoder_prompt_tokens", "Tokens of prompts submitted.", registry=registry)
        self.tokens = Counter("opencoder_generated_tokens", "Tokens made.", registry=registry)
        self.first_token = Histogram(
            "opencoder_time_to_first_token_seconds",
            "From submission to an answer's first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.answer = Histogram(
            "opencoder_answer_seconds", "From submission to an answer's end.", buckets=_SECONDS, registry=registry
        )
        Gauge("opencoder_running", "Answers being made.", registry=registry).set_function(running)
        Gauge("opencoder_waiting", "Answers that wait for a slot.", registry=registry).set_function(waiting)

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self._registry)
