"""What the model is asked.

A base model goes on with the problem's prompt: stripped, and one newline behind it, as EvalPlus and OpenCodeEval do.
(The newline matters by points, so every run stores its prompts' form with its settings.) A chat model is asked for a
self-contained script in a fenced block, with the prompt in a block of its own.
"""

from opencoder_jax.benchmarks.problems import FunctionProblem

Messages = list[dict[str, str]]  # role and content, as opencoder_jax.data.chat takes them
Prompt = str | Messages

INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)


def completion_prompt(problem: FunctionProblem) -> str:
    """The text that a base model continues."""
    return problem.prompt.strip() + "\n"


def chat_prompt(problem: FunctionProblem) -> Messages:
    """The conversation that a chat model answers."""
    return [{"role": "user", "content": f"{INSTRUCTION}\n```python\n{problem.prompt.strip()}\n```\n"}]


def prompt(problem: FunctionProblem, chat: bool) -> Prompt:
    """One or the other."""
    return chat_prompt(problem) if chat else completion_prompt(problem)
