"""The definitions of OpenCoder's released filter for C, C++, C#, Go, Java, JavaScript and HTML.

C, C++, C#, Go and Java are read there by regular expressions over the code without comments. The expressions here are
our own and find the same: a function of C is any two words before a parenthesis, so that `return f(x)` is one; a
function of Java must begin a line; in C# and Go no file is ever without variables, because a list is compared with 0.
They take time linear in the text, where the release's can take minutes: what stands between brackets is skipped by a
search for the closing one, not matched.

JavaScript is parsed there by esprima 4.0.1, which knows ECMAScript 2017; here by tree-sitter, and a file with later
syntax counts as unparsable. HTML is read by Python's html.parser, as BeautifulSoup does.
"""

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser

from tree_sitter import Node

from opencoder_jax.beam_pipelines.signals.fixed.programs import HEADERS, by_code_lines, cate_testfile, share_of
from opencoder_jax.beam_pipelines.signals.views.signal import Signal, lines_with, named, ratio
from opencoder_jax.beam_pipelines.signals.views.view import View

_BEGIN = r"^[^\S\n]*+"  # a line, as far as its first word

# What stands before the parenthesis of a function.
_C_FUNCTION = re.compile(r"\b[a-zA-Z_]\w*+(?:\s*+\*++\s++|\s++)\*?\s*+[a-zA-Z_]\w*+\(", re.ASCII)
_JAVA_FUNCTION = re.compile(
    _BEGIN + r"(?:(?:public|protected|private|static)\s++)*"
    r"(?!\s*+(?:public|private|protected|else|if))(?:<\w+>)?\s*+\w++\s++\w++\s*+\(",
    re.MULTILINE,
)
_CSHARP_FUNCTION = re.compile(
    _BEGIN + r"(?:(?:public|protected|private|internal)\s++)?(?:(?:static|virtual|override|abstract|async)\s++)?"
    r"(?!\s*+(?:public|private|protected|if|else))(?:<\w+>)?\s*+\w++\s++\w++\s*+\(",
    re.MULTILINE,
)
_GO_FUNCTION = re.compile(r"^func\s++(?:\(\s*+\w++\s++\*?\w++\s*+\))?\s*+\w++\s*+\(", re.MULTILINE)
_GO_RESULT = re.compile(r"\s*+(?:\([^)]++\)|[\w\[\]]++)?")

_C_INCLUDE = re.compile(_BEGIN + r'#\s*+include\s++["<][^">\n]++[">]', re.MULTILINE)
_C_CLASS = re.compile(_BEGIN + r"class\s++\w++\s*+(?::[^{]{0,2000}+)?\{", re.MULTILINE)
_C_PLAIN_VARIABLE = re.compile(
    _BEGIN + r"(?:unsigned\s++)?(?:int|float|double|char|bool|std::string|auto)\s++\w++\s*+;", re.MULTILINE
)
_STRING = r"\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'"
_C_SIMPLE_RETURN = re.compile(_BEGIN + rf"return\s*+(?:(?:\w++|{_STRING})\s*+)?;[^\S\n]*+$", re.MULTILINE)
_C_VARIABLE = re.compile(r"\b\w++\s++\*{0,100}\s*+[\w\[\]]++\s*+(?:,\s*+\**+\s*+[\w\[\]]++\s*+)*+(?:;|(=))")
_MAIN = re.compile(r"\bmain\s*+\(")
_MAIN_BODY = re.compile(r"\s*+\{")
_DIRECTIVE = re.compile(
    r"#\s*+(?:include|define|if|ifdef|ifndef|else|elif|endif|error|pragma|warning|undef|line)|struct|using"
)

_JAVA_IMPORT = re.compile(_BEGIN + r"import\s++[\w.*]++\s*+;[^\S\n]*+$", re.MULTILINE)
_JAVA_VARIABLE_HEAD = (
    r"(?:(?:public|protected|private|final|static)\s++)*+"
    r"(?:(?:int|float|boolean|char|double|String)\s++|[A-Z][\w<>]*+\s++)\w++\s*+"
)
_JAVA_PLAIN_VARIABLE = re.compile(_BEGIN + _JAVA_VARIABLE_HEAD + ";", re.MULTILINE)
_JAVA_VARIABLE = re.compile(_BEGIN + f"({_JAVA_VARIABLE_HEAD})(?:;|(=[^;]))", re.MULTILINE)
_JAVA_SIMPLE_RETURN = re.compile(
    _BEGIN + r"return(?:;|\s++(?:\w*+|\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\")\s*+;[^\S\n]*+)$", re.MULTILINE
)
_JAVA_CLASS = re.compile(
    _BEGIN + r"(?:(?:public|protected|private)\s++)?(?:(?:final|abstract)\s++)?class\s++([\w<>]++)", re.MULTILINE
)

_CSHARP_TYPES = "int|float|double|char|string|bool|byte|sbyte|short|ushort|uint|long|ulong|decimal"
_CSHARP_USING = re.compile(_BEGIN + r"using\s++[a-zA-Z0-9_.]++\s*+;", re.MULTILINE)
_CSHARP_CLASS = re.compile(r"\bclass\s++\w++")
_CSHARP_PLAIN_VARIABLE = re.compile(rf"\b(?:{_CSHARP_TYPES})\s++\w++\s*+;")
_CSHARP_RETURN = re.compile(_BEGIN + r"return\b(?:\s++[^;\n]++)?\s*+;", re.MULTILINE)

_GO_CLASS = re.compile(_BEGIN + r"type\s++\w++\s++(?:struct|interface)\s*+\{", re.MULTILINE)
_GO_PLAIN_VARIABLE = re.compile(_BEGIN + r"var\s++\w++\s++\w++[^\S\n]*+;?[^\S\n]*+$", re.MULTILINE)
_GO_RETURN = re.compile(_BEGIN + r"return(?:\s++[^;\n]++)?\s*;?[^\S\n]*$", re.MULTILINE)
_GO_IMPORT = re.compile(r'import\s++"[^"]++"')


def _until(pattern: re.Pattern[str], text: str, closing: str) -> Iterator[tuple[re.Match[str], int]]:
    """Matches of what stands before a bracket, and where its closing sign ends; the search goes on there."""
    position = 0
    while (match := pattern.search(text, position)) and (end := text.find(closing, match.end())) >= 0:
        position = end + len(closing)
        yield match, position


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))


def _functions(view: View) -> int:
    code, language = view.code, view.language
    if language == "Go":
        found, position = 0, 0
        while (match := _GO_FUNCTION.search(code, position)) and (end := code.find(")", match.end())) >= 0:
            result = _GO_RESULT.match(code, end + 1)
            position = result.end() if result else end + 1  # one without a body takes the next `func` for its result
            found += 1
        return found
    pattern = {"Java": _JAVA_FUNCTION, "C#": _CSHARP_FUNCTION}.get(language, _C_FUNCTION)
    return sum(1 for _ in _until(pattern, code, ")"))


def frac_lines_func_ratio(view: View) -> float | None:
    """What looks like a function, by code lines."""
    return ratio(_functions(view), view.num_code_lines)


def _plain(view: View) -> int:
    """Imports, plain variables, simple returns and classes."""
    code = view.code
    if view.language == "Go":
        stripped = [line.strip() for line in code.split("\n")]
        imports = sum(line == "import (" or _GO_IMPORT.fullmatch(line) is not None for line in stripped)
        classes = sum(1 for _ in _until(_GO_CLASS, code, "}"))
        return imports + classes + _count(_GO_PLAIN_VARIABLE, code) + _count(_GO_RETURN, code)
    patterns = {
        "C#": (_CSHARP_USING, _CSHARP_CLASS, _CSHARP_PLAIN_VARIABLE, _CSHARP_RETURN),
        "Java": (_JAVA_IMPORT, _JAVA_CLASS, _JAVA_PLAIN_VARIABLE, _JAVA_SIMPLE_RETURN),
    }.get(view.language, (_C_INCLUDE, _C_CLASS, _C_PLAIN_VARIABLE, _C_SIMPLE_RETURN))
    return sum(_count(pattern, code) for pattern in patterns)


def score_lines_no_logic(view: View) -> float | None:
    """Functions, imports, plain variables, simple returns and classes by code lines."""
    return ratio(_functions(view) + _plain(view), view.num_code_lines)


def nums_lines_main(view: View) -> float:
    """`main(…) {` in the code."""
    return float(sum(_MAIN_BODY.match(view.code, end) is not None for _, end in _until(_MAIN, view.code, ")")))


def cate_bitsstdc(view: View) -> float:
    """1 where the head of the code names bits/stdc++.h."""
    return float("bits/stdc++.h" in view.code.strip().lower()[:200])


def frac_lines_preprocessor_directives(view: View) -> float | None:
    """Code lines that hold a directive, "struct" or "using" anywhere; none for headers."""
    if view.path.endswith(HEADERS):
        return None
    return ratio(sum(_DIRECTIVE.search(line) is not None for line in view.code_lines), view.num_code_lines)


def cate_c_var_zero(view: View) -> float:
    """1 where no two words stand before `;` or `=` … `;`."""
    last = view.code.rfind(";")
    return float(not any(match[1] is None or match.end() <= last for match in _C_VARIABLE.finditer(view.code)))


def cate_never(view: View) -> float:
    """0: the release compares a list with 0, so that no file is without variables."""
    return 0.0


def _java_variables(view: View) -> Iterator[str]:
    """The declarations of variables in Java."""
    position, code = 0, view.code
    while match := _JAVA_VARIABLE.search(code, position):
        position = match.end() if match[2] is None else code.find(";", match.end())
        if position < 0:
            return
        yield match[1]


def cate_java_var_zero(view: View) -> float:
    """1 where no line begins with a variable of a built-in type or of one in capitals."""
    return float(next(_java_variables(view), None) is None)


def frac_words_legal_var_name(view: View) -> float | None:
    """Declarations whose second character is a small letter: the release takes characters of a match for names."""
    return share_of([declaration[1:2] for declaration in _java_variables(view)], re.compile("[a-z]"))


def frac_words_legal_func_name(view: View) -> float | None:
    """Functions whose second character, of the whole declaration, is a letter, for the same reason."""
    matches = [match for match, _ in _until(_JAVA_FUNCTION, view.code, ")")]
    return share_of([match[0].lstrip()[1:2] for match in matches], re.compile("[a-zA-Z]"))


def frac_words_legal_class_name(view: View) -> float | None:
    """Classes with a capital first and nothing but letters and digits."""
    return share_of(_JAVA_CLASS.findall(view.code), re.compile("[A-Z][a-zA-Z0-9]*"))


def frac_words_no_modifier(view: View) -> float | None:
    """Functions that do have a modifier, by functions and classes."""
    functions = [view.code[match.start() : end] for match, end in _until(_JAVA_FUNCTION, view.code, ")")]
    total = len(functions) + _count(_JAVA_CLASS, view.code)
    modified = sum(any(word in text for word in ("public", "protected", "private")) for text in functions)
    return ratio(modified, total)


# ---- JavaScript

_LITERALS = frozenset(("string", "number", "regex", "true", "false", "null"))
_SIMPLE = _LITERALS | {"identifier", "undefined", "unary_expression"}
_FUNCTIONS = ("function_expression", "generator_function")


def _parsed(view: View) -> bool:
    syntax = view.syntax
    return not (syntax.root.has_error or syntax.nodes("modern"))


def cate_javascript_ast(view: View) -> float:
    """1 where the document is ECMAScript 2017."""
    return float(_parsed(view))


def _value(node: Node) -> str:
    """The kind of a declarator's value; "" without one."""
    value = node.child_by_field_name("value")
    return value.type if value else ""


def _exports(view: View) -> Iterator[str]:
    """The kinds of what is assigned to `module.exports.…`."""
    for node in view.syntax.nodes("export"):
        right = node.child_by_field_name("right")
        yield right.type if right else ""


def _named(node: Node) -> bool:
    name = node.child_by_field_name("name")
    return name is not None and name.type == "identifier"


def _javascript_functions(view: View) -> int:
    declared = sum(
        node.type in ("function_declaration", "generator_function_declaration")
        or (node.type == "variable_declarator" and _value(node) in _FUNCTIONS)
        for node in view.syntax.nodes("function")
    )
    return declared + sum(kind in (*_FUNCTIONS, "arrow_function") for kind in _exports(view))


def _javascript_variables(view: View) -> int:
    declared = sum(_named(node) and _value(node) not in _FUNCTIONS for node in view.syntax.nodes("variable"))
    exported = sum(kind not in (*_FUNCTIONS, "arrow_function") for kind in _exports(view))
    return declared + view.syntax.count("loop") + exported


def cate_javascript_var_zero(view: View) -> float | None:
    """1 where no variable is declared but for functions."""
    return float(_javascript_variables(view) == 0) if _parsed(view) else None


def frac_javascript_func_ratio(view: View) -> float | None:
    """Declared functions, and those given to a variable or to module.exports, by code lines."""
    return by_code_lines(view, _javascript_functions(view)) if _parsed(view) else None


def javascript_no_logic(view: View) -> float | None:
    """Functions, imports, plain variables, simple returns and classes by code lines."""
    if not view.code_lines or not _parsed(view):
        return None
    syntax = view.syntax
    variables = sum(_value(node) in ("", *_SIMPLE) for node in syntax.nodes("variable")) + syntax.count("loop")
    variables += sum(kind in _SIMPLE for kind in _exports(view))
    returned = (
        [child.type for child in node.named_children if child.type != "comment"] for node in syntax.nodes("return")
    )
    returns = sum(not kinds or kinds[0] in _SIMPLE for kinds in returned)
    count = _javascript_functions(view) + syntax.count("import", "class") + variables + returns
    return by_code_lines(view, count)


def num_statement_line(view: View) -> float | None:
    """Statements of the outermost level by code lines."""
    if not view.code_lines or not _parsed(view):
        return None
    statements = sum(1 for node in view.syntax.root.named_children if node.type not in ("comment", "hash_bang_line"))
    return by_code_lines(view, statements)


def legal_names(capture: str, pattern: str) -> Signal:
    """A signal: the share of captured names of a parsed document that follow a convention."""
    convention = re.compile(pattern)

    def share(view: View) -> float | None:
        return share_of(view.syntax.texts(capture), convention) if _parsed(view) else None

    return share


# ---- HTML

_NOT_TEXT = frozenset(("script", "style", "template", "rp", "rt"))
_VERBATIM = frozenset(("pre", "textarea"))


class _Text(HTMLParser):
    """Counts the characters of a page's text as BeautifulSoup's get_text() gives it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.characters = 0
        self._pieces: list[str] = []
        self._open: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._flush()
        if tag in _NOT_TEXT or tag in _VERBATIM:
            self._open[tag] = self._open.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        self._flush()
        if self._open.get(tag):
            self._open[tag] -= 1

    def handle_data(self, data: str) -> None:
        self._pieces.append(data)

    def _end_run(self, *_: object) -> None:
        self._flush()

    handle_startendtag = handle_comment = handle_decl = handle_pi = _end_run  # type: ignore[assignment]

    def close(self) -> None:
        super().close()
        self._flush()

    def _flush(self) -> None:
        """A run of text is over: one of blanks alone counts as one, but where they are kept."""
        text = "".join(self._pieces)
        self._pieces = []
        if any(self._open.get(tag) for tag in _NOT_TEXT):
            return
        blank = bool(text) and not text.strip(" \t\n\f\r")
        self.characters += 1 if blank and not any(self._open.get(tag) for tag in _VERBATIM) else len(text)


def num_chars_text(view: View) -> float | None:
    """Characters of text; none where the page cannot be read."""
    reader = _Text()
    end = view.text.rfind(">") + 1  # what follows is no tag, which the parser finds out anew at each of its "<"
    try:
        reader.feed(view.text[:end])
        reader.handle_data(view.text[end:])
        reader.close()
    except (AssertionError, ValueError):
        return None
    return float(reader.characters)


def cate_html_ast(view: View) -> float:
    """1 where the page can be read."""
    return float(num_chars_text(view) is not None)


def frac_words_text(view: View) -> float | None:
    """Characters of text by characters of the page."""
    characters = num_chars_text(view)
    return None if characters is None else ratio(characters, len(view.text))


def _c(print_word: str, *others: str) -> dict[str, Signal]:
    return named(
        *(frac_lines_func_ratio, score_lines_no_logic),
        cate_var_zero=cate_c_var_zero,
        cate_bitsstdc=cate_bitsstdc,
        nums_lines_main=nums_lines_main,
        frac_lines_goto=lines_with("goto"),
        frac_lines_preprocessor_directives=frac_lines_preprocessor_directives,
        frac_lines_print=lines_with(print_word, *others),
    )


LANGUAGES: Mapping[str, Mapping[str, Signal]] = {
    "C": _c("printf"),
    "C++": _c("cout", "printf"),
    "C#": named(
        *(frac_lines_func_ratio, score_lines_no_logic),
        cate_var_zero=cate_never,
        frac_lines_print=lines_with("Console.WriteLine"),
    ),
    "Go": named(
        *(frac_lines_func_ratio, score_lines_no_logic),
        cate_var_zero=cate_never,
        cate_testfile=cate_testfile,
        frac_lines_print=lines_with("fmt.Print"),
    ),
    "Java": named(
        *(frac_lines_func_ratio, score_lines_no_logic),
        cate_var_zero=cate_java_var_zero,
        frac_words_no_modifier=frac_words_no_modifier,
        frac_words_legal_var_name=frac_words_legal_var_name,
        frac_words_legal_func_name=frac_words_legal_func_name,
        frac_words_legal_class_name=frac_words_legal_class_name,
        frac_lines_print=lines_with("System.out.print"),
    ),
    "JavaScript": named(
        cate_ast=cate_javascript_ast,
        cate_var_zero=cate_javascript_var_zero,
        frac_lines_func_ratio=frac_javascript_func_ratio,
        score_lines_no_logic=javascript_no_logic,
        num_statement_line=num_statement_line,
        frac_words_legal_var_name=legal_names("variable.name", r"[a-z$][a-zA-Z0-9]*"),
        frac_words_legal_func_name=legal_names("function.name", r"[a-zA-Z$][a-zA-Z0-9]*"),
        frac_words_legal_class_name=legal_names("class.name", "[A-Z][a-zA-Z0-9]*"),
        frac_lines_print=lines_with("console.log"),
    ),
    "HTML": named(cate_ast=cate_html_ast, frac_words_text=frac_words_text, num_chars_text=num_chars_text),
}
