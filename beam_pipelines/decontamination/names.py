"""What a program calls its own, so that a name of the language's that it takes for itself (`int max = 0`) is one, too.

Python is read by Python, C++, Go, Java and JavaScript by tree-sitter, whichever makes most of a program; Rust, of which
there is no grammar here, by the words behind which it introduces names.
"""

import re
import symtable
import warnings
from functools import cache
from importlib import import_module

from tree_sitter import Language, Node, Parser, Query, QueryCursor

_MAX_BYTES = 4_000  # of what may be no program at all, on which tree-sitter takes quadratic time

# Where names are introduced.
_GRAMMARS = {
    "tree_sitter_cpp": """
        (_ declarator: (identifier) @own)
        (reference_declarator (identifier) @own)
        (structured_binding_declarator (identifier) @own)
    """,
    "tree_sitter_go": """
        (short_var_declaration left: (expression_list (identifier) @own))
        (range_clause left: (expression_list (identifier) @own))
        (parameter_declaration name: (identifier) @own)
        (function_declaration name: (identifier) @own)
        (var_spec name: (identifier) @own)
        (const_spec name: (identifier) @own)
    """,
    "tree_sitter_java": """
        (variable_declarator name: (identifier) @own)
        (formal_parameter name: (identifier) @own)
        (catch_formal_parameter name: (identifier) @own)
        (enhanced_for_statement name: (identifier) @own)
        (method_declaration name: (identifier) @own)
        (inferred_parameters (identifier) @own)
        (lambda_expression parameters: (identifier) @own)
    """,
    "tree_sitter_javascript": """
        (variable_declarator name: (identifier) @own)
        (function_declaration name: (identifier) @own)
        (function_expression name: (identifier) @own)
        (formal_parameters (identifier) @own)
        (arrow_function parameter: (identifier) @own)
        (assignment_pattern left: (identifier) @own)
        (array_pattern (identifier) @own)
        (rest_pattern (identifier) @own)
        (for_in_statement left: (identifier) @own)
        (catch_clause parameter: (identifier) @own)
        (assignment_expression left: (identifier) @own)
    """,
}
_RUST = re.compile(r"\bfn\s+\w+|\blet\s+mut\s")
# A function, its parameters; what `let`, `for` and closures bind.
_RUST_NAMES = (
    re.compile(r"\bfn\s+(\w+)"),
    re.compile(r"[(,]\s*(?:mut\s+)?(\w+)\s*:(?!:)"),
    re.compile(r"\blet\s+([^=:;]+)"),
    re.compile(r"\bfor\s+(.+?)\s+in\b"),
    re.compile(r"[(=,]\s*(?:move\s*)?\|([^|\n]*)\|"),
)


def bound_names(program: str) -> frozenset[str]:
    """What a program, or a body alone, calls its own variables, arguments and functions; of no program anything."""
    names = python_names(program)
    if names is None:
        names = python_names(f"def f():\n{program}")
    return other_names(program) if names is None else names


def python_names(program: str) -> frozenset[str] | None:
    """The names that a Python program binds; None where it's none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence"
            waiting = [symtable.symtable(program, "program", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = set()
    while waiting:
        scope = waiting.pop()
        waiting += scope.get_children()
        for symbol in scope.get_symbols():
            if (symbol.is_assigned() or symbol.is_parameter()) and not symbol.is_imported():
                names.add(symbol.get_name())
    return frozenset(filter(str.isidentifier, names))  # a comprehension has a parameter `.0`


def other_names(program: str) -> frozenset[str]:
    """The names that a program of another language binds."""
    source = program.encode(errors="replace")[:_MAX_BYTES]
    trees: list[tuple[int, int, str, Node]] = []
    for number, grammar in enumerate(_GRAMMARS):
        root = _parser(grammar).parse(source).root_node
        trees.append((_errors(root), number, grammar, root))
        if not root.has_error:
            break
    errors, _, best, root = min(trees)
    if errors and _RUST.search(program):
        found = [name for pattern in _RUST_NAMES for place in pattern.findall(program) for name in place.split(",")]
        return frozenset(word for name in found for word in re.findall(r"\w+", name.split(":")[0]))
    nodes = QueryCursor(_query(best)).captures(root).get("own", [])
    return frozenset(source[node.start_byte : node.end_byte].decode(errors="replace") for node in nodes)


@cache
def _parser(grammar: str) -> Parser:
    return Parser(Language(import_module(grammar).language()))


@cache
def _query(grammar: str) -> Query:
    return Query(Language(import_module(grammar).language()), _GRAMMARS[grammar])


def _errors(root: Node) -> int:
    """How many bytes a grammar could make nothing of."""
    waiting, errors = [root] if root.has_error else [], 0
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            errors += 1 + node.end_byte - node.start_byte
        else:
            waiting += [child for child in node.children if child.has_error or child.is_missing]
    return errors
