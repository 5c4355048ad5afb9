"""How a program is asked for in a conversation: by evaluation, and by the chats that teach it."""

# OpenCodeEval's for HumanEval: the problem follows in a fenced block.
INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)


def asked(problem: str) -> str:
    """A message that asks for a program that completes this one."""
    return f"{INSTRUCTION}\n```python\n{problem.strip()}\n```\n"
