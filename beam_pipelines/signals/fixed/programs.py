"""Signals of C, C++, C#, Go, Java, JavaScript and HTML, over their syntax trees.

The names are those of OpenCoder's released filter (quality_signals/code_specific), whose regular expressions take calls
and prototypes for functions and know no method of JavaScript. Here a function is a definition with its kind of node,
whatever its return type; a variable any declaration; a line of printing any line where such a call begins.

"No logic" counts, by code lines, what a file of mere declarations is made of: functions, imports, classes, variables
without a computed value, and returns of nothing, a name or a literal.
"""

import re
from collections.abc import Iterable, Mapping

from tree_sitter import Node

from opencoder_jax.beam_pipelines.signals.views.signal import Signal, named, ratio
from opencoder_jax.beam_pipelines.signals.views.view import View

HEADERS = (".h", ".hpp", ".hxx", ".hh", ".h++")

# A file with more than this share of unparsable bytes has no syntax tree to speak of.
_BROKEN = 0.05

_NAMES_AND_LITERALS = frozenset(
    [
        *("identifier", "this", "undefined", "unary_expression", "true", "false", "boolean_literal"),
        *("null", "nullptr", "null_literal", "nil"),
        *("number", "number_literal", "integer_literal", "real_literal", "int_literal", "float_literal"),
        *("decimal_integer_literal", "hex_integer_literal", "decimal_floating_point_literal"),
        *("string", "string_literal", "interpreted_string_literal", "raw_string_literal"),
        *("char_literal", "character_literal", "rune_literal", "regex"),
    ]
)
_DIRECTIVE = re.compile(r"\n[^\S\n]*+(?:#|(?:using|struct)\b)")
_MODIFIER = re.compile(rb"\b(?:public|protected|private)\b")


def frac_lines_func_ratio(view: View) -> float | None:
    """Function definitions by code lines."""
    return by_code_lines(view, view.syntax.count("function"))


def score_lines_no_logic(view: View) -> float | None:
    """Functions, classes, imports, variables without a computed value and simple returns, by code lines."""
    syntax = view.syntax
    plain = sum(map(_is_plain_variable, syntax.nodes("variable"))) + sum(map(_is_simple_return, syntax.nodes("return")))
    return by_code_lines(view, syntax.count("function", "class", "import") + plain)


def frac_lines_print(view: View) -> float | None:
    """Lines that print to the standard output, by code lines."""
    return by_code_lines(view, view.syntax.lines("print"))


def frac_lines_goto(view: View) -> float | None:
    """Lines with a goto, by code lines."""
    return by_code_lines(view, view.syntax.lines("goto"))


def cate_var_zero(view: View) -> float:
    """1 where no variable is declared."""
    return float(view.syntax.count("variable", "loop") == 0)


def nums_lines_main(view: View) -> float:
    """Definitions of a function `main`: more than one is several programs in one file."""
    return float(view.syntax.count("main"))


def cate_bitsstdc(view: View) -> float:
    """1 where the head of the file includes bits/stdc++.h, as solutions of contests do."""
    return float("bits/stdc++.h" in view.text.strip()[:200].lower())


def frac_lines_preprocessor_directives(view: View) -> float | None:
    """Lines that begin with a directive, `using` or `struct`, by code lines; null for headers, which are made so."""
    if view.path.lower().endswith(HEADERS):
        return None
    return ratio(len(_DIRECTIVE.findall("\n" + view.code)), view.num_code_lines)


def cate_testfile(view: View) -> float:
    """1 for Go's test files, by their names."""
    return float(view.path.lower().endswith("_test.go"))


def frac_words_no_modifier(view: View) -> float | None:
    """Functions and classes of Java without public, protected or private, by all of them."""
    nodes = view.syntax.nodes("function") + view.syntax.nodes("class")
    return ratio(sum(not _has_access(view, node) for node in nodes), len(nodes))


def legal_names(capture: str, pattern: str) -> Signal:
    """A signal: the share of captured names that follow a convention."""
    convention = re.compile(pattern)

    def share(view: View) -> float | None:
        return share_of(view.syntax.texts(capture), convention)

    return share


def share_of(names: Iterable[str], convention: re.Pattern[str]) -> float | None:
    """The share of names that follow a convention."""
    follow = [convention.fullmatch(name) is not None for name in names]
    return ratio(sum(follow), len(follow))


def cate_ast(view: View) -> float:
    """1 where the document parses, but for a twentieth of it."""
    return float(view.syntax.broken <= _BROKEN)


def num_statement_line(view: View) -> float | None:
    """Statements of the outermost level by code lines."""
    return by_code_lines(view, sum(1 for node in view.syntax.root.named_children if node.type != "comment"))


def cate_html_ast(view: View) -> float:
    """1 where the document has an element."""
    return float(view.syntax.count("element") > 0)


def frac_words_text(view: View) -> float | None:
    """Characters of visible text by characters of the page."""
    return _visible(view) / view.syntax.share / len(view.text) if view.text else None


def num_chars_text(view: View) -> float:
    """Characters of visible text: neither tags and comments nor scripts and style sheets."""
    return float(_visible(view))


def _visible(view: View) -> int:
    return sum(len(" ".join(text.split())) for text in view.syntax.texts("text"))


def by_code_lines(view: View, count: int) -> float | None:
    """What was counted in the part that was parsed, by that part's code lines."""
    return count / view.syntax.share / view.num_code_lines if view.num_code_lines else None


def _is_plain_variable(node: Node) -> bool:
    """Whether a declaration gives its variable no value, or that of a name or a literal."""
    if node.type in ("init_declarator", "short_var_declaration", "range_clause", "property_declaration"):
        return False
    if node.type == "variable_declarator" and node.child_by_field_name("value") is None:
        return node.named_child_count == 1  # C# gives the value no name
    value = node.child_by_field_name("value")
    return value is None or value.type in _NAMES_AND_LITERALS


def _is_simple_return(node: Node) -> bool:
    values = [child for child in node.named_children if child.type != "comment"]
    if len(values) == 1 and values[0].type == "expression_list":
        values = values[0].named_children
    return len(values) < 2 and all(value.type in _NAMES_AND_LITERALS for value in values)


def _has_access(view: View, node: Node) -> bool:
    source = view.syntax.source
    modifiers = [child for child in node.named_children[:1] if child.type == "modifiers"]
    return any(_MODIFIER.search(source, child.start_byte, child.end_byte) for child in modifiers)


_EACH = (frac_lines_func_ratio, cate_var_zero, score_lines_no_logic, frac_lines_print)
_C = named(*_EACH, cate_bitsstdc, nums_lines_main, frac_lines_goto, frac_lines_preprocessor_directives)

LANGUAGES: Mapping[str, Mapping[str, Signal]] = {
    "C": _C,
    "C++": _C,
    "C#": named(*_EACH),
    "Go": named(*_EACH, cate_testfile),
    "Java": named(
        *_EACH,
        frac_words_no_modifier,
        frac_words_legal_var_name=legal_names("variable.name", "[a-z][a-zA-Z0-9]*|[A-Z][A-Z0-9_]*"),
        frac_words_legal_func_name=legal_names("function.name", "[a-zA-Z][a-zA-Z0-9]*"),
        frac_words_legal_class_name=legal_names("class.name", "[A-Z][a-zA-Z0-9]*"),
    ),
    "JavaScript": named(
        *_EACH,
        cate_ast,
        num_statement_line,
        frac_words_legal_var_name=legal_names("variable.name", r"[a-z$][a-zA-Z0-9]*|[A-Z][A-Z0-9_]*"),
        frac_words_legal_func_name=legal_names("function.name", r"[a-zA-Z$][a-zA-Z0-9]*"),
        frac_words_legal_class_name=legal_names("class.name", "[A-Z][a-zA-Z0-9]*"),
    ),
    "HTML": named(frac_words_text, num_chars_text, cate_ast=cate_html_ast),
}
