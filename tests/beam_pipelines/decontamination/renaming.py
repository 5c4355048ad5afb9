"""Programs of other languages than Python with other names for all that they bind, without their comments.

tree-sitter tells what a program binds, by the places where names are introduced; Rust, for which there is no grammar
here, is read token by token. `planting.py` does the same for Python.
"""

import random
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module

from tree_sitter import Language, Node, Parser

from tests.beam_pipelines.decontamination.planting import NAMES

_GRAMMARS = {
    "C++": "tree_sitter_cpp",
    "Go": "tree_sitter_go",
    "Java": "tree_sitter_java",
    "JavaScript": "tree_sitter_javascript",
}
LANGUAGES = (*_GRAMMARS, "Rust")
# What introduces a name: the kind of a node, and the field of it that the name stands in; "" for its children.
_INTRODUCES = {
    "C++": {
        *(("declaration", "declarator"), ("init_declarator", "declarator"), ("parameter_declaration", "declarator")),
        *(
            ("function_definition", "declarator"),
            ("function_declarator", "declarator"),
            ("for_range_loop", "declarator"),
        ),
        *(("array_declarator", "declarator"), ("pointer_declarator", "declarator"), ("reference_declarator", "")),
        *(("structured_binding_declarator", ""), ("optional_parameter_declaration", "declarator")),
    },
    "Go": {
        *(("short_var_declaration", "left"), ("range_clause", "left"), ("var_spec", "name"), ("const_spec", "name")),
        *(("parameter_declaration", "name"), ("function_declaration", "name"), ("expression_list", "")),
    },
    "Java": {
        *(("variable_declarator", "name"), ("formal_parameter", "name"), ("enhanced_for_statement", "name")),
        *(("method_declaration", "name"), ("inferred_parameters", ""), ("lambda_expression", "parameters")),
        *(("catch_formal_parameter", "name"),),
    },
    "JavaScript": {
        *(("variable_declarator", "name"), ("function_declaration", "name"), ("function_expression", "name")),
        *(("formal_parameters", ""), ("arrow_function", "parameter"), ("assignment_pattern", "left")),
        *(("array_pattern", ""), ("rest_pattern", ""), ("for_in_statement", "left"), ("assignment_expression", "left")),
        *(("catch_clause", "parameter"),),
    },
}
_RUST = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<string>\"(?:\\.|[^\"\\])*\"|'(?:\\.[^']*|[^'\\])')|(?P<life>'\w+)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<other>::|=>|->|\.\.=?|\d[\w.]*|\s+|.)",
    re.DOTALL,
)
_RUST_KEYWORDS = frozenset(("self", "true", "false", "mut", "ref", "move", "in", "as"))


def renamed_in(language: str, code: str, seed: int) -> str:
    """The program with other names. What is found by its name from outside (members, functions of libraries) stays."""
    spans, bound = _rust(code) if language == "Rust" else _parsed(language, code)
    used = {code[start:stop] for start, stop, kind in spans if kind == "name"}
    names = [name for name in NAMES if name not in used]
    random.Random(seed).shuffle(names)
    names += [f"name{number}" for number in range(len(bound))]
    new = dict(zip(sorted(bound), names, strict=False))
    parts: list[str] = []
    done = 0
    for start, stop, kind in spans:
        said = code[start:stop]
        parts += (code[done:start], "" if kind == "comment" else new.get(said, said))
        done = stop
    return "".join((*parts, code[done:]))


@cache
def _parser(language: str) -> Parser:
    return Parser(Language(import_module(_GRAMMARS[language]).language()))


def _parsed(language: str, code: str) -> tuple[list[tuple[int, int, str]], set[str]]:
    """Where names and comments stand, and the names that are the program's own."""
    assert code.isascii()  # so that bytes are characters
    spans, bound = [], set()
    for node in _nodes(_parser(language).parse(code.encode()).root_node):
        if node.type == "identifier" and not re.search(r"(?:(?<!\.)\.|->|::)\s*\Z", code[: node.start_byte][-9:]):
            spans.append((node.start_byte, node.end_byte, "name"))
            if _introduced(language, node):
                bound.add(code[node.start_byte : node.end_byte])
        elif node.type.endswith("comment"):
            spans.append((node.start_byte, node.end_byte, "comment"))
        elif node.type.startswith("shorthand_property"):  # {a} gives a member its name
            bound.discard(code[node.start_byte : node.end_byte])
    return sorted(spans), bound - {"main", "_"}


def _nodes(root: Node) -> Iterator[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def _introduced(language: str, node: Node) -> bool:
    parent = node.parent
    assert parent
    places = _INTRODUCES[language]
    if parent.type == "expression_list":  # of Go, on the left of a definition
        holder = parent.parent
        left = holder and holder.child_by_field_name("left")
        return bool(holder and left and left == parent and (holder.type, "left") in places)
    fields = {field for kind, field in places if kind == parent.type}
    return "" in fields or any(node in parent.children_by_field_name(field) for field in fields if field)


def _rust(code: str) -> tuple[list[tuple[int, int, str]], set[str]]:
    tokens = [match for match in _RUST.finditer(code) if match.lastgroup != "other" or not match.group().isspace()]
    words = [match.group() for match in tokens]
    bound = set()
    for place, word in enumerate(words):
        if word == "fn":
            bound.add(words[place + 1])
            end = next(i for i in range(place, len(words)) if words[i] == "{")
            bound |= {words[i] for i in range(place, end) if words[i + 1] == ":"}
        elif word in ("let", "for"):
            stop = next((i for i in range(place, len(words)) if words[i] in ("=", ":", ";", "in")), place)
            bound |= set(words[place + 1 : stop])
        elif word == "|" and (words[place - 1] in ("(", ",", "=", "move", "{", "return")):
            stop = next((i for i in range(place + 1, len(words)) if words[i] == "|"), place)
            bound |= {words[i] for i in range(place + 1, stop) if words[i - 1] != ":"}
        elif word == "=>" and words[place - 1] == ")" and words[place - 3] == "(":
            bound.add(words[place - 2])
    bound = {name for name in bound if re.fullmatch(r"[a-z_]\w*", name)} - _RUST_KEYWORDS - {"main", "_"}
    spans = []
    for place, token in enumerate(tokens):
        kind = str(token.lastgroup)
        before, after = words[place - 1] if place else "", words[place + 1] if place + 1 < len(words) else ""
        typed = before in (":", "->") or (before in ("&", "<") and words[place - 2] in (":", "->", "Vec"))  # str: &str
        named = kind == "name" and before not in (".", "::") and after not in ("::", "!") and not typed
        if kind == "comment" or named:
            spans.append((*token.span(), kind))
    return spans, bound
