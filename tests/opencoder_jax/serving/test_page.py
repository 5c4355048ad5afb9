"""The page in a browser: what it shows, what it asks for, and that nothing a model says does anything.

The browser is the machine's own chromium, driven by playwright; without it these tests are skipped.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from test_openai_client import listening, wait_until

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"the page's tests want a browser: {CHROMIUM} isn't there"
)

SAID = """# A function

It adds **two** numbers; `snake_case_names` stay *as they are*.

```python
def add(a, b):  # a comment
    return a + b + 1.5 + len("text")
```

1. one
2. two
   - inner

| a | b |
|---|---|
| 1 | `x` |

> quoted [link](https://example.com/a_b_c)
"""
HOSTILE = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>

[a](javascript:document.title='owned') [b](data:text/html,x) ![c](https://example.com/pixel.png) <svg onload=alert(1)>

```"><script>document.title='owned'</script>
</code></pre><script>document.title='owned'</script>
```

[x](https://example.com/"onmouseover="document.title='owned') **unclosed `and this
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page of a scripted server, with all that it asked for and complained of."""

    def __init__(self, browser: Browser, it: Any, address: str, **settings: Any) -> None:
        self.it = it
        self.address = address
        self.requested: list[str] = []
        self.complaints: list[str] = []
        context = browser.new_context(**settings)
        context.set_default_timeout(20_000)
        self.page: Page = context.new_page()
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{address}/")
        expect(self.page.locator("#model")).to_have_text("small")

    def ask(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.get_by_label("Message", exact=True).press("Enter")

    def finished(self) -> None:
        expect(self.page.locator("#messages .note").last).to_contain_text("tokens")


@pytest.fixture
def visit(browser: Browser, scripted: Callable[..., Any]) -> Iterator[Callable[..., Visit]]:
    """Opens the page; at the end it has asked nobody else for anything, and nothing went wrong in it."""
    visits: list[Visit] = []
    it = scripted(hosts=("127.0.0.1",), context=4096)
    with listening(it) as address:

        def begin(says: str, **settings: Any) -> Visit:
            it.engine.says = says
            visits.append(Visit(browser, it, address, **settings))
            return visits[-1]

        yield begin
        for each in visits:
            each.page.context.close()
            assert [url for url in each.requested if not url.startswith(f"{address}/")] == []
            assert each.complaints == []


def test_a_conversation(visit: Callable[..., Visit]) -> None:
    page = (it := visit(SAID)).page
    it.ask("Write a function.")
    it.finished()
    said = page.locator(".assistant .said")
    expect(said.locator("h3")).to_have_text("A function")
    expect(said.locator("strong")).to_have_text("two")
    expect(said.locator("em")).to_have_text("as they are")
    expect(said.locator("p code").first).to_have_text("snake_case_names")
    assert said.locator("pre").inner_text() == SAID.split("```python\n")[1].split("\n```")[0]
    for kind, text in (("k", "def"), ("f", "add"), ("c", "# a comment"), ("n", "1.5"), ("s", '"text"')):
        expect(said.locator(f"pre .{kind}").filter(has_text=re.compile(f"^{re.escape(text)}$")).first).to_be_visible()
    it.ask("And another.")
    expect(page.locator(".assistant .note")).to_have_count(2)
    it.finished()
    body = page.evaluate("document.querySelectorAll('.message').length")
    assert body == 4
    asked = it.it.tokenizer.decode(it.it.engine.asked[-1].prompt)
    assert "Write a function." in asked
    assert "# A function" in asked  # the answer is part of what comes after it
    page.get_by_role("button", name="New").click()
    expect(page.locator(".message")).to_have_count(0)


def test_tokens_show_what_else_they_could_have_been(visit: Callable[..., Visit]) -> None:
    page = (it := visit("añ = 1\n")).page
    page.get_by_role("button", name="Complete").click()
    expect(page.locator("#speed")).to_contain_text("a second")
    tokens = page.locator("#continuation .token")
    assert "".join(tokens.all_inner_texts()).rstrip() == "añ = 1"
    spans = tokens.filter(has_text="ñ")  # its two bytes are one span
    assert spans.count() == 1
    tokens.first.hover()
    box = page.get_by_role("tooltip")
    expect(box.locator("div")).to_have_count(4)
    token = it.it.engine.answer(it.it.engine.asked[0])[0]
    wanted = f"{100 * 2.718281828 ** (-token / 100):.1f} %"
    expect(box.locator(".drawn span")).to_have_text(wanted)
    doubts = tokens.evaluate_all("spans => spans.map(span => Number(span.style.getPropertyValue('--doubt')))")
    assert all(0 < doubt < 1 for doubt in doubts)
    page.mouse.move(1, 1)
    expect(box).to_be_hidden()
    it.ask("a")
    it.finished()
    page.get_by_role("button", name="Tokens").click()
    assert "".join(page.locator(".said.tokens .token").all_inner_texts()).rstrip() == "añ = 1"
    page.get_by_role("button", name="Keep").click()
    assert page.get_by_label("Prompt").input_value().endswith("añ = 1\n")


def test_nothing_that_a_model_says_does_anything(visit: Callable[..., Visit]) -> None:
    page = (it := visit(HOSTILE)).page
    it.ask('<b onclick="1">hello</b>')
    it.finished()
    page.get_by_role("button", name="Complete").click()
    expect(page.locator("#speed")).to_contain_text("tokens")
    page.get_by_role("button", name="Tokens").click()
    page.get_by_role("button", name="Tokens").click()
    assert page.title() == "small"
    shown = page.locator(".said, #continuation")
    for name in (
        "img",
        "script",
        "svg",
        "b",
        "iframe",
        "[onerror]",
        "[onload]",
        "[onclick]",
        "[onmouseover]",
        "[style*=url]",
    ):
        assert shown.locator(name).count() == 0, name
    links = shown.locator("a").evaluate_all("links => links.map(link => [link.protocol, link.rel])")
    assert {protocol for protocol, _ in links} == {"https:"}
    assert all("noopener" in rel for _, rel in links)
    assert "<script>" in page.locator(".assistant .said").inner_text()


def test_an_answer_is_stopped(visit: Callable[..., Visit]) -> None:
    page = (it := visit("a long answer " * 15)).page
    it.it.engine.held = True
    it.it.engine.may_step.release(8)
    it.ask("go on")
    expect(page.locator(".assistant .said")).to_contain_text("a")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".assistant .note")).to_have_text("stopped")
    wait_until(lambda: it.it.engine.cancelled == [0])
    it.it.engine.held = False
    it.it.engine.may_step.release()
    page.get_by_role("button", name="Again").click()
    it.finished()
    expect(page.locator(".message")).to_have_count(2)


def test_settings_are_sent_and_kept(visit: Callable[..., Visit]) -> None:
    page = (it := visit("yes")).page
    page.get_by_role("slider", name="Temperature").fill("1.5")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Most tokens").fill("9")
    page.get_by_label("Stop at").fill("\\n\\n\n###")
    page.get_by_role("button", name="Dark").click()
    page.reload()
    expect(page.locator("#model")).to_have_text("small")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    it.ask("a")
    it.finished()
    request = it.it.engine.asked[0]
    assert (request.sampling.temperature, request.sampling.seed, request.sampling.max_tokens) == (1.5, 7, 9)
    assert request.stop == ("\n\n", "###")


def test_what_is_refused_is_said(visit: Callable[..., Visit]) -> None:
    page = (it := visit("yes")).page
    page.get_by_label("Most tokens").fill("9999")
    it.ask("a")
    expect(page.locator(".assistant .note.wrong")).to_contain_text("max_tokens")
    it.complaints.clear()  # the browser's own word of the status


def test_a_key(browser: Browser, scripted: Callable[..., Any]) -> None:
    it = scripted(keys=("secret",))
    with listening(it) as address:
        page = browser.new_page()
        page.goto(f"{address}/")
        expect(page.locator("#model")).to_contain_text("API key")
        page.get_by_label("API key").fill("secret")
        page.get_by_label("API key").blur()
        expect(page.locator("#model")).to_have_text("small")
        page.close()


def test_a_phone(visit: Callable[..., Visit]) -> None:
    """Nothing is wider than the screen, one pane is there at a time, and a finger reaches the alternatives."""
    it = visit(SAID, viewport={"width": 375, "height": 700}, has_touch=True, is_mobile=True)
    page = it.page
    it.ask("Write a function.")
    it.finished()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    expect(page.locator("#completion")).to_be_hidden()
    page.get_by_role("button", name="Completion").tap()
    expect(page.locator("#chat")).to_be_hidden()
    page.get_by_role("button", name="Complete", exact=True).tap()
    expect(page.locator("#speed")).to_contain_text("a second")
    page.locator("#continuation .token").nth(3).tap()
    box = page.get_by_role("tooltip")
    expect(box).to_be_visible()
    place = box.bounding_box()
    assert place is not None
    assert 0 <= place["x"] <= 375 - place["width"]
    page.get_by_role("button", name="Settings").tap()
    expect(page.get_by_role("slider", name="Temperature")).to_be_in_viewport()
    page.get_by_role("button", name="Close").tap()
    expect(page.get_by_role("slider", name="Temperature")).not_to_be_in_viewport()


def test_a_broken_connection_is_said(visit: Callable[..., Visit]) -> None:
    page = (it := visit("yes")).page

    def cut(route: Route) -> None:
        route.abort("connectionreset")

    page.route("**/v1/chat/completions", cut)
    it.ask("a")
    expect(page.locator(".assistant .note.wrong")).to_be_visible()
    it.complaints.clear()
