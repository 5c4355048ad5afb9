"""Ways in which sites lay out a block of code: each a function from lines of HTML-escaped source to markup."""

from collections.abc import Callable, Sequence
from html import escape

Layout = Callable[[Sequence[str]], str]


def _spaces(line: str) -> str:
    return line.replace(" ", "&nbsp;")


def _numbers(lines: Sequence[str]) -> str:
    return "\n".join(str(number) for number in range(1, len(lines) + 1))


def _each(markup: Callable[[int, str], str], lines: Sequence[str]) -> str:
    return "".join(markup(number, line) for number, line in enumerate(lines, 1))


LAYOUTS: dict[str, Layout] = {
    "pre": lambda lines: f"<pre>{chr(10).join(lines)}</pre>",
    "pre and code": lambda lines: f'<pre><code class="language-python">{chr(10).join(lines)}\n</code></pre>',
    "spans of Pygments": lambda lines: (
        '<div class="highlight-python"><div class="highlight"><pre><span></span>'
        + "\n".join(f'<span class="k">{line}</span>' for line in lines)
        + "\n</pre></div></div>"
    ),
    "table of Pygments": lambda lines: (
        '<table class="highlighttable"><tr><td class="linenos"><div class="linenodiv">'
        f"<pre>{_numbers(lines)}</pre></div></td>"
        f'<td class="code"><div class="highlight"><pre>{chr(10).join(lines)}\n</pre></div></td></tr></table>'
    ),
    "a row a line": lambda lines: (
        '<table class="highlight">'
        + _each(lambda n, x: f'<tr><td class="blob-num">{n}</td><td class="blob-code"><pre>{x}</pre></td></tr>', lines)
        + "</table>"
    ),
    "highlight.js with line numbers": lambda lines: (
        '<pre><code class="hljs"><table class="hljs-ln"><tbody>'
        + _each(
            lambda n, x: (
                f'<tr><td class="hljs-ln-numbers" data-line-number="{n}"></td><td class="hljs-ln-code">{x}</td></tr>'
            ),
            lines,
        )
        + "</tbody></table></code></pre>"
    ),
    "br and nbsp": lambda lines: f"<code>{'<br>'.join(map(_spaces, lines))}</code>",
    "div a line": lambda lines: (
        '<div class="codeblock">'
        + _each(lambda _, x: "<div class=line>" + (_spaces(x) or "<br>") + "</div>", lines)
        + "</div>"
    ),
    "textarea": lambda lines: f"<textarea>{chr(10).join(lines)}</textarea>",
    "numbers in the line": lambda lines: (
        "<pre>" + "\n".join(f'<span class="lineno">{n:3} </span>{x}' for n, x in enumerate(lines, 1)) + "</pre>"
    ),
    "list of prettify": lambda lines: (
        f'<pre class="prettyprint"><ol class="linenums">{_each(lambda _, x: f"<li>{x}</li>", lines)}</ol></pre>'
    ),
    "copy button": lambda lines: (
        f'<div class="code-wrap"><button class="copy-btn">Copy</button><pre><code class="lang-python">'
        f"{chr(10).join(lines)}</code></pre></div>"
    ),
    "lines of Chroma": lambda lines: (
        '<pre class="chroma"><code class="language-python" data-lang="python">'
        + _each(lambda _, x: f'<span class="line"><span class="cl">{x}\n</span></span>', lines)
        + "</code></pre>"
    ),
    "gutter of Rouge": lambda lines: (
        '<div class="language-python highlighter-rouge"><div class="highlight"><pre class="highlight"><code>'
        '<table class="rouge-table"><tbody><tr><td class="rouge-gutter gl">'
        f'<pre class="lineno">{_numbers(lines)}\n</pre></td><td class="rouge-code"><pre>{chr(10).join(lines)}\n</pre>'
        "</td></tr></tbody></table></code></pre></div></div>"
    ),
    "SyntaxHighlighter": lambda lines: (
        '<div class="syntaxhighlighter python"><table><tr><td class="gutter">'
        + _each(lambda n, _: f'<div class="line number{n}">{n}</div>', lines)
        + '</td><td class="code"><div class="container">'
        + _each(lambda _, x: f'<div class="line"><code class="plain">{_spaces(x) or "&nbsp;"}</code></div>', lines)
        + "</div></td></tr></table></div>"
    ),
}


def page(block: str) -> bytes:
    """A page with a heading, a block between two paragraphs, and a menu."""
    words = "Some words about the function that follow here and there, so that there is a main content to be found."
    return (
        f"<!doctype html><html><head><title>A page</title></head><body><nav><a href=/>Home</a></nav><main><h1>Head</h1>"
        f"<p>{words}</p>{block}<p>{words}</p></main></body></html>"
    ).encode()


def laid_out(layout: str, source: str) -> bytes:
    """A page with this source in this layout."""
    return page(LAYOUTS[layout]([escape(line, quote=False) for line in source.split("\n")]))
