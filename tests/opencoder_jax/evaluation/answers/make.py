"""Makes answers.jsonl: answers as chat models lay them out, each with the program that a person would take from it.

    python -m tests.opencoder_jax.evaluation.answers.make

No answer is a model's and no program is of a benchmark: seven programs (PROGRAMS) stand in hand-written layouts
(LAYOUTS), two of them in each. What a person takes was judged layout by layout, with one question: which program would
you paste into your editor to have what was asked for? Rules that follow from it:

- prints, asserts, calls and the `__main__` block at the end are no part of it; a comment or a blank line never counts;
- of several versions the last complete one is taken, with the imports and helpers that it needs from elsewhere;
- a thought is never an answer; an answer that ends within its function has none that is complete.

Answers that fit no layout are in odd.jsonl, in the same form, written by hand.

In a layout CODE is the whole program, IMPORTS, HELPER and FUNCTION its three parts, BODY the function's body, PROMPT
the question. A layout is (text, what is taken), the second "CODE" where it isn't given, and "" where
nothing is to be taken.
"""

import json
import textwrap
from pathlib import Path

FILE = Path(__file__).with_name("answers.jsonl")

# name: (imports, helper, signature, docstring, body)
PROGRAMS = {
    "near": (
        "",
        "",
        "def near(numbers, gap):",
        "Say whether two of the numbers are nearer than gap.",
        "for i, a in enumerate(numbers):\n    for b in numbers[i + 1:]:\n        if abs(a - b) < gap:\n"
        "            return True\nreturn False",
    ),
    "words": (
        "import re\nfrom collections import Counter",
        'def split(text):\n    return re.findall(r"[a-z\']+", text.lower())',
        "def words(text: str) -> dict:",
        "Count the words of a text.",
        "counts = Counter(split(text))\nreturn dict(counts)",
    ),
    "strike": (
        "import html",
        "def mark(text):\n    seen.append(text)\n\nseen = []",
        "def strike(text):",
        "Return the text struck out, in HTML.",
        'mark(text)\nreturn "<s>" + html.escape(seen[-1]) + "</s>"',
    ),
    "thoughtless": (
        "import re",
        'END = "</think>"',
        "def thoughtless(text):",
        "Remove what a model thought.",
        'head, end, tail = text.partition("</think>")\nreturn re.sub(r"\\s+", " ", tail if end == END else head)',
    ),
    "ways": (
        "from functools import lru_cache",
        "@lru_cache(maxsize=None)\ndef count(n):\n    return 1 if n < 2 else count(n - 1) + count(n - 2)",
        "def ways(steps):",
        "In how many ways can a stair be climbed?",
        "if steps < 0:\n    return 0\nreturn count(steps)",
    ),
    "area": (
        "import math",
        "class Circle:\n    def __init__(self, r):\n        self.r = r\n\n    def area(self):\n"
        "        return math.pi * self.r ** 2",
        "def area(radius):",
        "The area of a circle.",
        "circle = Circle(radius)\nreturn round(circle.area(), 2)",
    ),
    "flat": (
        "from typing import Any, Iterator",
        "def walk(items) -> Iterator[Any]:\n    for item in items:\n        if isinstance(item, list):\n"
        "            yield from walk(item)\n        else:\n            yield item",
        "def flat(items):",
        "Flatten nested lists.",
        'result = list(walk(items))\n\nassert isinstance(result, list), "no list"\nreturn result',
    ),
}

EXPLAINED = "\n\nThis runs in linear time. Let me know if you'd like tests!\n"
WRONG = "```python\ndef NAME(*args):\n    return None\n```\n"

LAYOUTS: dict[str, tuple[str, ...]] = {
    # One block
    "bare": ("CODE\n",),
    "fence": ("```python\nCODE\n```",),
    "fence between prose": ("Sure! Here's one way:\n\n```python\nCODE\n```" + EXPLAINED,),
    "fence without a language": ("Here:\n\n```\nCODE\n```\n",),
    "fence py": ("```py\nCODE\n```\n",),
    "fence Python3 with attributes": ('```Python3 title="answer.py" linenums="1"\nCODE\n```\n',),
    "fence in braces": ("```{python}\nCODE\n```\n",),
    "wrong language": ("```java\nCODE\n```\n",),
    "space before the language": ("``` python\nCODE\n```\n",),
    "spaces behind fences": ("```python  \nCODE\n```   \n",),
    "tildes": ("~~~\nCODE\n~~~\n",),
    "tildes with a language": ("The code:\n\n~~~python\nCODE\n~~~\n\nDone.",),
    "five tildes": ("~~~~~python\nCODE\n~~~~~\n",),
    "four backticks": ("````python\nCODE\n````\n",),
    "five backticks around three": ("`````markdown\n```python\nCODE\n```\n`````\n",),
    "four around three and prose": ("````\nHere it is:\n\n```python\nCODE\n```\n````\n",),
    "closed by more": ("```python\nCODE\n````\n\nDone.",),
    "indented fence": ("1. Write it:\n\n   ```python\nINDENT3\n   ```\n\n2. Run it.\n",),
    "indented by eight": ("- First\n    - Then\n        ```python\nINDENT8\n        ```\n",),
    "fence indented, code not": ("  ```python\nCODE\n  ```\n",),
    "code indented, fence not": ("```python\nINDENT4\n```\n",),
    "fence behind a bullet": ("- ```python\nINDENT2\n  ```\n",),
    "quoted": ("> Here it is:\n>\n> ```python\nQUOTED\n> ```\n",),
    "fence behind prose on its line": ("Here is the code: ```python\nCODE\n```\n",),
    "closing fence behind code": ("```python\nCODE```\n",),
    "closing fence behind code and prose after": ("```python\nCODE```\nI hope that this helps.\n",),
    "no closing fence": ("Here you are:\n```python\nCODE\n",),
    "closing fence alone": ("CODE\n```\n",),
    "closing fence alone, then prose": ("CODE\n```\n\nThe function walks over its argument.",),
    "no closing fence, prose after": ("```python\nCODE\n\nThis function walks over its argument.\n",),
    "prose in the fence before code": ("```\nSolution:\n\nCODE\n```\n",),
    "prose on both sides in the fence": ("```\nHere is the answer\n\nCODE\n\nIt is linear.\n```\n",),
    "file name in the fence": ("```python\nanswer.py\n\nCODE\n```\n",),
    "shebang": ("```python\n#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\nCODE\n```\n",),
    "blank lines": ("\n\n\n```python\n\n\nCODE\n\n\n```\n\n\n",),
    "BOM": ("\ufeffCODE\n",),
    "BOM and fence": ("\ufeff```python\nCODE\n```\n",),
    "BOM in the fence": ("```python\n\ufeffCODE\n```\n",),
    "CRLF": ("CRLF:Here:\n\n```python\nCODE\n```\n\nDone.\n",),
    "CRLF bare": ("CRLF:CODE\n",),
    "CRLF prose": ("CRLF:Here it is:\n\nCODE\n\nThat is all there is.\n",),
    "CR alone": ("CR:```python\nCODE\n```\n",),
    "non-breaking spaces": ("NBSP:```python\nCODE\n```\n",),
    "end mark of a message": ("```python\nCODE\n```<|im_end|>\n",),
    "end mark behind bare code": ("CODE\n<|endoftext|>",),
    "bold around": ("**Answer**\n\n```python\nCODE\n```\n\n**Complexity:** *O(n)*\n",),
    "HTML around": ("<details><summary>Code</summary>\n\n```python\nCODE\n```\n\n</details>\n",),
    "answer tags": ("<answer>\n```python\nCODE\n```\n</answer>",),
    "answer tags without a fence": ("<answer>\nCODE\n</answer>",),
    "inline code in prose": ("Use `NAME(…)` as in `x = NAME(y)`:\n\n```python\nCODE\n```\nNot `None`.\n",),
    "headings": ("# Solution\n\n## Code\n\n```python\nCODE\n```\n\n## Why\n\nBecause.\n",),
    # Scripts
    "print at column 0": ("```python\nCODE\n\nprint(NAME)\nprint(\n    'done')\n```\n",),
    "print first": ("```python\nprint('start')\n\nCODE\n```\n", "print('start')\n\nCODE"),
    "main block": ("```python\nCODE\n\nif __name__ == '__main__':\n    print(NAME)\n```\n",),
    "main function": (
        "```python\nCODE\n\ndef main():\n    print(NAME)\n\nmain()\n```\n",
        "CODE\n\ndef main():\n    print(NAME)",
    ),
    "main first": (
        "```python\ndef main():\n    print(NAME)\n\nCODE\n\nif __name__ == '__main__':\n    main()\n```\n",
        "def main():\n    print(NAME)\n\nCODE",
    ),
    "main first, bare": ("\ndef main():\n    print(NAME)\n\nCODE\n\nmain()\n", "def main():\n    print(NAME)\n\nCODE"),
    "asserts": ("```python\nCODE\n\n# Tests\nassert callable(NAME)\nassert NAME is not None, 'gone'\n```\n",),
    "print between": (
        "```python\nIMPORTS\nHELPER\nprint('here')\nFUNCTION\n```\n",
        "IMPORTS\nHELPER\nprint('here')\nFUNCTION",
    ),
    # Prose and code without fences
    "prose before": ("Here is a solution:\n\nCODE\n",),
    "much prose before": ("I'd do it so. First the input is read; if it's empty we stop.\n\nThen:\n\nCODE\n",),
    "prose after": ("CODE\n\nThis function walks over its argument once.\n",),
    "prose on both sides": ("Sure, that's easy.\n\nCODE\n\nIt's linear; don't worry.\n",),
    "list after": ("CODE\n\nHow it works:\n1. It reads.\n2. It counts.\n- It's done.\n",),
    "prose that begins like code": ("from the start we know: import what is needed.\nif so, good\n\nCODE\n",),
    "prose, indented code": ("This should work:\n\nINDENT4\n\nHope that it helps.\n",),
    "language alone on a line": ("python\nCODE\n",),
    "other languages around": ("这是解答:\n\nCODE\n\n这个函数是线性的。\n",),
    "other languages and a fence": ("Вот решение:\n\n```python\nCODE\n```\n\nОно работает за O(n) — «быстро».\n",),
    "Japanese in the fence": ("```python\n# 答えは次の通り\nCODE\n```\n以上です。\n",),
    # Several blocks
    "bash first": ("Install it:\n\n```bash\npip install numpy\n```\n\nThen:\n\n```python\nCODE\n```\n",),
    "bash last": ("```python\nCODE\n```\n\nRun it:\n\n```bash\npython answer.py\n```\n",),
    "output last": ("```python\nCODE\n```\n\nOutput:\n\n```\nTrue\n3\n```\n",),
    "example last": ("```python\nCODE\n```\n\nExample:\n\n```python\nprint(NAME)\nx = NAME\n```\n",),
    "test that imports it last": (
        "```python\nCODE\n```\n\nA test:\n\n```python\nfrom answer import NAME\n\ndef test():\n    assert NAME\n```\n",
    ),
    "question restated": ("The question:\n```python\nPROMPT\n```\nAnswer:\n```python\nCODE\n```\n",),
    "stub last": ("```python\nCODE\n```\nIts interface:\n```python\nSIGNATURE\n    ...\n```\n",),
    "better version last": (WRONG + "That is wrong. Better:\n```python\nCODE\n```\n",),
    "tildes then backticks": ("~~~sh\nls\n~~~\n\n```python\nCODE\n```\n",),
    "JavaScript too": ("```python\nCODE\n```\nIn JavaScript:\n```js\nconst f = (x) => { return x; };\n```\n",),
    "imports apart": ("```python\nIMPORTS\n```\nThen:\n```python\nHELPER\n\nFUNCTION\n```\n",),
    "helper apart": ("First a helper:\n```python\nIMPORTS\n\nHELPER\n```\nNow:\n```python\nFUNCTION\n```\n",),
    "three parts": ("```python\nIMPORTS\n```\n```python\nHELPER\n```\nAnd:\n```python\nFUNCTION\n```\nDone.",),
    "parts with shell between": ("```python\nIMPORTS\n\nHELPER\n```\n```bash\nls -l\n```\n```python\nFUNCTION\n```\n",),
    "helper behind": (
        "```python\nFUNCTION\n```\nIt uses:\n```python\nIMPORTS\n\nHELPER\n```\n",
        "IMPORTS\nHELPER\nFUNCTION",
    ),
    "helper shown at work": ("```python\nIMPORTS\nHELPER\n\nprint('ok')\n```\n```python\nFUNCTION\n```\n",),
    "function mended": (
        "```python\nIMPORTS\n\nHELPER\n\ndef NAME(*args):\n    return None\n```\nThe last was wrong:\n"
        "```python\nFUNCTION\n```\n",
    ),
    "parts in tildes": ("~~~python\nIMPORTS\n\nHELPER\n~~~\n\n~~~python\nFUNCTION\n~~~\n",),
    "indented parts": ("1. ```python\nINDENT_PARTS\n   ```\n2. ```python\nINDENT_FUNCTION\n   ```\n",),
    "explained line by line after": ("```python\nCODE\n```\nIn it\n```python\nfor x in y:\n```\nis the loop.\n",),
    # Thoughts
    "thought": ("<think>\nHm, a loop?\n</think>\n\n```python\nCODE\n```\n",),
    "block in the thought": ("<think>\nMaybe\n" + WRONG + "no.\n</think>\nHere:\n```python\nCODE\n```\n",),
    "bare code behind a thought": ("<think>Easy.</think>\nCODE\n",),
    "thought opened by the template": ("Let me see, a loop.\n" + WRONG + "</think>\n\n```python\nCODE\n```\n",),
    "open fence in the thought": ("<think>\n```python\ndef NAME(*args):\n</think>\n```python\nCODE\n```\n",),
    "thinking": ("<thinking>\nA loop.\n</thinking>\n```python\nCODE\n```\n",),
    "thought cut off": ("<think>\nMaybe\n" + WRONG + "But what of", ""),
    "empty thought": ("<think>\n\n</think>\n\nHere is it:\n\nCODE\n",),
    # The body alone
    "body in a fence": ("```python\nINDENT_BODY\n```\n", "PROMPT\nINDENT_BODY"),
    "body in a fence, not indented": ("The body is:\n```python\nBODY\n```\n", "PROMPT\nINDENT_BODY"),
    "body in tildes": ("~~~\nINDENT_BODY\n~~~\n", "PROMPT\nINDENT_BODY"),
    "body alone": ("INDENT_BODY\n", "PROMPT\nINDENT_BODY"),
    "body whose first line was stripped": ("```python\nSTRIPPED_BODY\n```\n", "PROMPT\nINDENT_BODY"),
    # Sessions, differences, numbers
    "doctest session": ("```python\nSESSION\n>>> NAME\n<function NAME at 0x7f>\n```\n",),
    "pycon": ("In the shell:\n```pycon\nSESSION\n```\n",),
    "session without a fence": ("You can type\n\nSESSION\n\nand see.\n",),
    "diff": ("```diff\n--- a/x.py\n+++ b/x.py\n@@ -1 +1,9 @@\n-def NAME(*args): pass\nADDED\n```\n",),
    "line numbers": ("```python\nNUMBERED\n```\n",),
    # Cut off
    "cut behind the function": ("```python\nCODE\n\ndef test():\n    assert NAME(",),
    "cut in a string behind": ('```python\nCODE\n\nprint("the result is',),
    "cut, bare": ("CODE\n\ndef other(x):\n    return [",),
    "second version cut": ("```python\nCODE\n```\nFaster:\n```python\ndef NAME(*args):\n    return [x for",),
    "cut in prose": ("```python\nCODE\n```\nThis uses a lo",),
    # Nothing to take
    "refusal": ("I'm sorry, I can't help with that.\n", ""),
    "empty": ("", ""),
    "another function": ("```python\ndef quite_another(x):\n    return x\n```\n", ""),
    "another language": ("```js\nfunction NAME(x) { return x; }\n```\n", ""),
    "prose alone": ("One would sort the list first, and then compare each with the next.\n", ""),
}


def main() -> None:
    """Writes the file."""
    names = list(PROGRAMS)
    split = [name for name in names if name != "near"]
    with FILE.open("w", encoding="utf-8") as file:
        for number, (layout, (text, *taken)) in enumerate(LAYOUTS.items()):
            bank = split if "HELPER" in text or "PARTS" in text else names
            for step in (0, 3):
                name = bank[(number + step) % len(bank)]
                case = {
                    "layout": layout,
                    "program": _filled(taken[0] if taken else "CODE", name),
                    "answer": _filled(text, name),
                    "entry_point": name,
                    "prompt": _parts(name)["PROMPT"] + "\n",
                }
                file.write(json.dumps(case, ensure_ascii=False) + "\n")


def _parts(name: str) -> dict[str, str]:
    imports, helper, signature, docstring, body = PROGRAMS[name]
    indented = textwrap.indent(body, "    ")
    function = f"{signature}\n{indented}"
    code = "\n\n".join(part for part in (imports, helper, function) if part)
    lines = code.splitlines()
    begins = (line[:1].strip() and not above.startswith("@") for above, line in zip(["", *lines], lines, strict=False))
    session = "\n".join((">>> " if first else "... ") + line for first, line in zip(begins, lines, strict=True))
    return {
        "INDENT_PARTS": textwrap.indent(f"{imports}\n{helper}", "   "),
        "INDENT_FUNCTION": textwrap.indent(function, "   "),
        "INDENT_BODY": indented,
        "STRIPPED_BODY": indented.strip(),
        **{f"INDENT{width}": textwrap.indent(code, " " * width) for width in (2, 3, 4, 8)},
        "QUOTED": "\n".join(f"> {line}".rstrip() for line in lines),
        "SESSION": session,
        "ADDED": "\n".join(f"+{line}" for line in lines),
        "NUMBERED": "\n".join(f"{number:3} | {line}" for number, line in enumerate(lines, 1)),
        "SIGNATURE": signature,
        "PROMPT": f'{signature}\n    """{docstring}"""',
        "IMPORTS": imports,
        "HELPER": helper,
        "FUNCTION": function,
        "CODE": code,
        "BODY": body,
        "NAME": name,
    }


def _filled(layout: str, name: str) -> str:
    for word, part in _parts(name).items():
        layout = layout.replace(word, part)
    for mark, old, new in (("CRLF:", "\n", "\r\n"), ("CR:", "\n", "\r"), ("NBSP:", "    ", "\u00a0" * 4)):
        if layout.startswith(mark):
            layout = layout.removeprefix(mark).replace(old, new)
    return layout


if __name__ == "__main__":
    main()
