"""The program in an answer in another language than Python, which nothing here can parse.

A completion is taken as it is, up to where it stops. Of a conversation's answer the last block in fences that is tagged
with the language is taken, else the last that defines the function, else the last, else all. What the tests bring
themselves is cut off (a main function; the bracket that closes Java's class), and what the prompt brings and the answer
left out (imports, the class around a method) is put in front.
"""

import re

from opencoder_jax.benchmarks.problems import DEFINED
from opencoder_jax.evaluation.answers.extract import Extracted, answer_of
from opencoder_jax.evaluation.answers.samples import Sample

_BLOCK = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_TAGS = {
    "C++": ("cpp", "c++", "cc", "cxx"),
    "C#": ("csharp", "c#", "cs"),
    "JavaScript": ("javascript", "js", "node"),
    "TypeScript": ("typescript", "ts"),
    "Bash": ("bash", "sh", "shell", "zsh"),
    "Go": ("go", "golang"),
    "Rust": ("rust", "rs"),
    "Ruby": ("ruby", "rb"),
    "Racket": ("racket", "rkt", "scheme"),
    "Haskell": ("haskell", "hs"),
    "Julia": ("julia", "jl"),
    "OCaml": ("ocaml", "ml"),
    "Perl": ("perl", "pl"),
    "Visual Basic": ("vb", "vbnet", "visualbasic", "visual"),
    "F#": ("fsharp", "f#", "fs"),
    "Vim script": ("vim", "vimscript", "viml"),
    "Emacs Lisp": ("elisp", "emacs-lisp", "lisp"),
    "Common Lisp": ("lisp", "commonlisp", "common-lisp"),
    "PowerShell": ("powershell", "ps1", "pwsh"),
}
# A main function that the tests define once more.
_MAIN = {
    "C": r"^\s*int\s+main\s*\(",
    "C++": r"^\s*(?:int|auto|void)\s+main\s*\(",
    "Java": r"^\s*public\s+static\s+void\s+main\s*\(",
    "C#": r"^\s*(?:public\s+)?static\s+void\s+Main\s*\(",
    "Go": r"^func\s+main\s*\(",
    "Rust": r"^\s*(?:pub\s+)?fn\s+main\s*\(",
    "D": r"^\s*(?:void|int)\s+main\s*\(",
    "Swift": r"^@main\b",
}
_IMPORTS = re.compile(
    r"^(?:#include\b.*|import\b.*|using\b[^(]*;|use\b.*;|package\b.*|require\b.*|const\b.*=\s*require\(.*|from\b.*import.*"
    r"|library\(.*|open\b.*|<\?php.*|#lang\b.*|module\b.*)$",
    re.MULTILINE,
)
_CLASS = re.compile(r"^(?:public\s+)?class\s+(\w+)\s*\{", re.MULTILINE)


def extract_program(language: str, begun: str, sample: Sample) -> Extracted:
    """The program.

    Args:
        begun: what a completion goes on with; "" where answers are whole programs.
    """
    if sample.kind == "completion" and begun:
        return Extracted(begun + sample.text, "completion")
    text = answer_of(sample.text.replace("\r\n", "\n"))
    blocks = [(match[2].lower(), match[3]) for match in _BLOCK.finditer(text)]
    tags = _TAGS.get(language, (language.lower(),))
    names = DEFINED.findall(begun)[-1:] or re.findall(r"(\w+)\s*\(", begun)[-1:]
    tagged = [code for tag, code in blocks if tag in tags]
    defining = [code for code in tagged or [code for _, code in blocks] if all(name in code for name in names)]
    chosen = defining or tagged or [code for _, code in blocks]
    code = chosen[-1] if chosen else text
    if not code.strip():
        return Extracted("", "none")
    whole, dropped = _fitted(language, begun, code) if begun else (code, "")
    return Extracted(whole, "fence" if chosen else "text", dropped)


def _fitted(language: str, begun: str, code: str) -> tuple[str, str]:
    """An answer as the tests of the begun program need it, and what was cut off."""
    code, dropped = _without_main(language, code)
    if language in ("Java", "C#") and (begins := _CLASS.search(begun)):
        # The tests close the class that the prompt opened.
        if re.search(rf"\bclass\s+{begins[1]}\b", code):
            code = code[: code.rstrip().rfind("}")]
        else:
            lines = _IMPORTS.findall(code)
            code = "\n".join(lines) + f"\n{begins[0]}\n" + _IMPORTS.sub("", code)
    missing = [line for line in _IMPORTS.findall(begun) if line.strip() not in code]
    return "\n".join([*missing, code]), dropped


def _without_main(language: str, code: str) -> tuple[str, str]:
    """The code without its main function, told by its brackets; strings that hold brackets are rare in one."""
    pattern = _MAIN.get(language)
    if not pattern or not (found := re.search(pattern, code, re.MULTILINE)):
        return code, ""
    opened = code.find("{", found.end())
    depth, end = 0, opened
    while end < len(code) and opened >= 0:
        depth += {"{": 1, "}": -1}.get(code[end], 0)
        end += 1
        if not depth:
            break
    return code[: found.start()] + code[end:], code[found.start() : end]
