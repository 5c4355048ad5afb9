"""A crawl whose every page has a known label: real WARC bytes, several languages and encodings, much that is broken.

Pages about code are made of the running Python's own library (its sources and docstrings) in layouts of documentation,
forums and blogs; some have no line of code. All others are prose of a dozen subjects in the same layouts, and what only
looks like code: tables of numbers, licences, recipes, servers' logs, mathematics, spam. A site's parts differ: a forum
has a board for programmers and others, a blog writes of journeys, too.

Sites are `training` or `unseen`: nothing of the latter is in the files of the former, nor in the seeds. Some unseen
sites are of kinds, and in a language, that training has nowhere (`novel`): nobody may tune on these. Seeds are mostly
pages of documentation, with a few of forums and blogs, and some that are wrong, as a grader's are.
"""

import ast
import gzip
import html
import json
import random
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

PARTS = ("training", "unseen")

# Words of subjects, by language; a sentence is drawn from one of them and words that all share.
_SUBJECTS = {
    "en": {
        "": "the a of and to in is that it was for on with as at by from this which have had not but they we you all "
        "can there when time new one two first last more other after before between while where people year day",
        "garden": "roses soil compost seeds tulip hedge pruning watering greenhouse mulch bulbs shade lawn weeds",
        "kitchen": "flour butter oven simmer onion garlic salt whisk dough bake teaspoon cream pepper stir sugar eggs",
        "football": "goal striker league match coach stadium penalty midfield season defender cup referee fans score",
        "travel": "hotel beach airport island museum train mountain village harbour ticket luggage tour castle coast",
        "health": "patients doctor treatment vaccine symptoms hospital diet sleep blood exercise clinic nurse",
        "money": "shares market investors bank interest loan profit currency budget tax revenue index fund pension",
        "law": "court plaintiff contract liability clause statute appeal judge tenant damages party agreement notice",
        "music": "guitar orchestra album melody singer concert rhythm piano chorus violin opera band record stage",
        "cars": "engine brake gearbox tyre diesel clutch mileage exhaust battery sedan dealer horsepower wheel oil",
        "history": "empire king battle treaty century army castle revolution queen war archive dynasty colony siege",
        "phones": "screen camera battery update app install settings menu device charger button model download version",
        "chess": "rook bishop opening endgame pawn queen check gambit board move castle knight rating player round",
    },
    "de": {
        "": "der die das und in zu den ist nicht von mit sich auf für im dem ein eine als auch nach wird an bei es aus",
        "reise": "Strand Hotel Bahnhof Berg Insel Museum Dorf Flughafen Küste Schloss Fähre Wanderung Ausflug Stadt",
        "küche": "Mehl Butter Ofen Zwiebel Salz Teig backen Löffel Sahne Zucker Eier Pfeffer Kartoffel Suppe Brot",
    },
    "fr": {
        "": "le la de et un une à il être que pour dans ce qui sur avec ne se pas plus par je vous nous mais ou si",
        "jardin": "roses terre graines haie arrosage fleurs pelouse arbre printemps légumes serre tulipes soleil",
        "cuisine": "farine beurre four oignon ail sel pâte sucre œufs poivre crème soupe pain poulet citron",
    },
    "ru": {
        "": "и в не на я быть он с что а по это она этот к но они мы весь который из у то за свой так от же для",
        "сад": "роза земля семена дерево весна трава цветок яблоня вода солнце урожай дача огород лопата куст",
        "спорт": "матч команда тренер гол стадион игрок сезон победа лига судья мяч кубок поле чемпион турнир",
    },
    "zh": {
        "": "的 一 是 在 不 了 有 和 人 这 中 大 为 上 个 国 我 以 要 他 时 来 用 们 生 到 作 地 于 出",
        "菜": "面粉 黄油 烤箱 洋葱 大蒜 盐 糖 鸡蛋 牛奶 胡椒 土豆 汤 面包 米饭 豆腐 酱油",
        "旅行": "酒店 海滩 机场 岛屿 博物馆 火车 山 村庄 港口 门票 行李 城堡 海岸 风景 导游 古镇",
    },
}
# What is written about code in other languages; code itself is the same everywhere.
_ABOUT_CODE = {
    "fr": "fonction classe méthode boucle valeur liste chaîne paramètre erreur exception module variable appeler "
    "programme objet clé fichier lire écrire sortie entrée test",
    "de": "Funktion Klasse Methode Schleife Rückgabewert Liste Zeichenkette Parameter Fehler Ausnahme Modul Variable "
    "aufrufen Programm Objekt Schlüssel Datei lesen schreiben Ausgabe Eingabe testen",
    "ru": "функция класс метод цикл значение список строка параметр ошибка исключение модуль переменная вызвать "
    "программа объект ключ файл прочитать записать вывод ввод тест",
    "zh": "函数 类 方法 循环 返回值 列表 字符串 参数 错误 异常 模块 变量 调用 程序 对象 键 文件 读取 写入 输出 输入",
}
_CHARSETS = {"en": "utf-8", "fr": "iso-8859-15", "de": "iso-8859-1", "ru": "windows-1251", "zh": "gbk"}
_ASKED = (
    "How do I use {0} with {1}?",
    "Why does {0} raise an error when {1} is empty",
    "Best way to call {0} inside a loop",
    "{0} returns None instead of {1}",
    "What is the difference between {0} and {1}",
)
_TALK = (
    "I keep getting a traceback when I run my script and I don't understand why {0} fails.",
    "Did you check the return value of {0} before you pass it on to {1}?",
    "You should refactor this into a function and write a unit test for {0}.",
    "The documentation of {0} says that it returns a copy, so assign the result.",
    "Upgrading the package fixed the import of {1} for me, pin the version in your requirements.",
    "Looks like a race condition between two threads, use a lock around {0}.",
)


class _Source(NamedTuple):
    """A definition of the library: its dotted name, what its docstring says, and its lines."""

    name: str
    doc: str
    code: str


@cache
def _sources() -> tuple[_Source, ...]:
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (UnicodeDecodeError, SyntaxError):
            continue
        lines = text.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (doc := ast.get_docstring(node)) and len(doc) > 60:
                code = "\n".join(lines[node.lineno - 1 : min(node.end_lineno or 0, node.lineno + 30)])
                found.append(_Source(f"{path.stem}.{node.name}", doc, code))
    return tuple(found)


@cache
def _licences() -> tuple[str, ...]:
    texts = [path.read_text(errors="replace") for path in sorted(Path("/usr/share/common-licenses").glob("*"))]
    packages = sorted(Path(sysconfig.get_paths()["purelib"]).glob("*.dist-info/**/LICENSE*"))
    texts += [path.read_text(errors="replace") for path in packages if path.is_file()]
    return tuple(part for text in texts for part in re.split(r"\n\s*\n", text) if len(part) > 200)


class _Writer:
    """Makes the pieces of pages of a language by a random generator of its own."""

    def __init__(self, rng: random.Random, language: str) -> None:
        self.rng = rng
        self.language = language

    def sentences(self, subject: str, count: int) -> str:
        tables = _SUBJECTS[self.language]
        own = (_ABOUT_CODE[self.language] if subject == "code" else tables[subject]).split()
        space = "" if self.language == "zh" else " "
        said = []
        for _ in range(count):
            words = self.rng.choices(tables[""].split(), k=self.rng.randint(5, 14))
            for _ in range(self.rng.randint(1, 4)):
                words.insert(self.rng.randrange(len(words)), self.rng.choice(own))
            said.append(space.join(words).capitalize() + ("。" if self.language == "zh" else "."))
        return space.join(said)

    def subject(self) -> str:
        return self.rng.choice([name for name in _SUBJECTS[self.language] if name])

    def source(self) -> _Source:
        return self.rng.choice(_sources())

    def block(self) -> str:
        code = html.escape(self.source().code, quote=False)
        layout = self.rng.randrange(4)
        if layout == 0:
            return f'<pre><code class="language-python">{code}</code></pre>'
        if layout == 1:
            return f"<div class=highlight><pre>{code}</pre></div>"
        if layout == 2:
            lines = code.split("\n")
            numbers = "\n".join(str(number + 1) for number in range(len(lines)))
            return (
                f"<table class=highlighttable><tr><td class=linenos><pre>{numbers}</pre></td>"
                f"<td class=code><pre>{code}</pre></td></tr></table>"
            )
        return f"<pre>{code}</pre>"

    def about_code(self, count: int) -> str:
        if self.language != "en":
            return self.sentences("code", count)
        names = [self.source().name for _ in range(2)]
        said = [self.rng.choice(_TALK).format(*names) for _ in range(count)]
        return html.escape(" ".join(said))


def _documentation(writer: _Writer) -> tuple[str, str]:
    source = writer.source()
    told = html.escape(source.doc) if writer.language == "en" else writer.about_code(4)
    more = writer.block() if writer.rng.random() < 0.6 else ""
    return source.name, f"<h1>{source.name}</h1><p>{told}</p>{more}<p>{writer.about_code(1)}</p>"


def _question(writer: _Writer) -> tuple[str, str]:
    title = writer.rng.choice(_ASKED).format(writer.source().name, writer.source().name)
    answers = "".join(
        f"<div class=post><p>{writer.about_code(writer.rng.randint(1, 3))}</p>"
        f"{writer.block() if writer.rng.random() < 0.4 else ''}</div>"
        for _ in range(writer.rng.randint(1, 4))
    )
    return title, f"<h1>{html.escape(title)}</h1>{answers}"


def _tutorial(writer: _Writer) -> tuple[str, str]:
    source = writer.source()
    pieces = "".join(f"<p>{writer.about_code(2)}</p>{writer.block()}" for _ in range(writer.rng.randint(1, 3)))
    return f"Notes on {source.name}", f"<article><h1>Notes on {source.name}</h1>{pieces}</article>"


def _prose(writer: _Writer) -> tuple[str, str]:
    subject = writer.subject()
    pieces = "".join(f"<p>{writer.sentences(subject, writer.rng.randint(2, 6))}</p>" for _ in range(3))
    return subject.capitalize(), f"<article><h1>{writer.sentences(subject, 1)}</h1>{pieces}</article>"


def _thread(writer: _Writer) -> tuple[str, str]:
    subject = writer.subject()
    posts = "".join(
        f"<div class=post><p>{writer.sentences(subject, writer.rng.randint(1, 4))}</p></div>"
        for _ in range(writer.rng.randint(2, 6))
    )
    return f"{subject.capitalize()}?", f"<h1>{writer.sentences(subject, 1)}</h1>{posts}"


def _numbers(writer: _Writer) -> tuple[str, str]:
    columns = writer.rng.randint(3, 8)
    rows = "".join(
        "<tr>" + "".join(f"<td>{writer.rng.uniform(0, 999):.2f}</td>" for _ in range(columns)) + "</tr>"
        for _ in range(writer.rng.randint(8, 40))
    )
    subject = writer.subject()
    return f"{subject.capitalize()} {writer.rng.randint(1990, 2024)}", f"<h1>Results</h1><table>{rows}</table>"


def _legal(writer: _Writer) -> tuple[str, str]:
    parts = writer.rng.sample(_licences(), 4)
    return "Terms", "<h1>Terms and conditions</h1>" + "".join(f"<p>{html.escape(part)}</p>" for part in parts)


def _recipe(writer: _Writer) -> tuple[str, str]:
    rows = "".join(
        f"<li>{writer.rng.randint(1, 500)} {writer.rng.choice(('g', 'ml', 'cups', 'tbsp'))} "
        f"{writer.rng.choice(_SUBJECTS['en']['kitchen'].split())}</li>"
        for _ in range(8)
    )
    steps = "".join(f"<li>{_Writer(writer.rng, 'en').sentences('kitchen', 1)}</li>" for _ in range(5))
    return "A recipe", f"<h1>A recipe</h1><ul>{rows}</ul><ol>{steps}</ol>"


def _log(writer: _Writer) -> tuple[str, str]:
    lines = "\n".join(
        f"{writer.rng.randint(1, 255)}.0.0.{writer.rng.randint(1, 255)} - - [{writer.rng.randint(1, 28):02}/May/2024] "
        f'"GET /{writer.rng.choice(_SUBJECTS["en"]["travel"].split())}.html" 200 {writer.rng.randint(100, 99999)}'
        for _ in range(writer.rng.randint(10, 40))
    )
    return "access.log", f"<h1>Access log</h1><pre>{html.escape(lines)}</pre>"


def _mathematics(writer: _Writer) -> tuple[str, str]:
    symbols = ("x", "y", "z", "a", "b", "n", "k", "\\alpha", "\\beta", "\\lambda")
    formulas = "".join(
        f"<p>Let ${writer.rng.choice(symbols)} = \\sum_{{k=1}}^{{n}} \\frac{{{writer.rng.choice(symbols)}^{{2}}}}{{"
        f"{writer.rng.choice(symbols)} + {writer.rng.randint(1, 9)}}}$ be a convergent series; then the theorem holds "
        f"by induction on ${writer.rng.choice(symbols)}$ and the lemma above.</p>"
        for _ in range(5)
    )
    return "Theorem", f"<h1>Theorem {writer.rng.randint(1, 99)}</h1>{formulas}"


def _spam(writer: _Writer) -> tuple[str, str]:
    words = [word for subject in _SUBJECTS["en"].values() for word in subject.split()] + ["python", "java", "code"]
    return "Buy now", "<p>" + " ".join(writer.rng.choices(words, k=writer.rng.randint(60, 200))) + "</p>"


Maker = Callable[[_Writer], tuple[str, str]]
WANTED: dict[str, Maker] = {"documentation": _documentation, "forum": _question, "blog": _tutorial}
OTHERS: dict[str, Maker] = {
    "prose": _prose,
    "thread": _thread,
    "numbers": _numbers,
    "legal": _legal,
    "recipe": _recipe,
    "log": _log,
    "mathematics": _mathematics,
    "spam": _spam,
}

# A kind of site: how many of 30 sites are of it, and its parts: where, what of, and how large a share of its pages.
_SITES: dict[str, tuple[int, list[tuple[str, str, float]]]] = {
    "docs": (3, [("docs/{0}", "documentation", 0.85), ("legal/{0}", "legal", 0.05), ("about/{0}", "prose", 0.1)]),
    "ask": (3, [("questions/{0}/{1}", "forum", 0.9), ("users/{0}", "prose", 0.1)]),
    "board": (
        3,
        [("c/programming/{0}", "forum", 0.35), ("c/lounge/{0}", "thread", 0.5), ("stats/{0}", "numbers", 0.15)],
    ),
    "dev": (3, [("posts/{1}-{0}", "blog", 0.6), ("travel/{1}-{0}", "prose", 0.4)]),
    "paper": (6, [("news/2024/05/{1}-{0}", "prose", 0.9), ("sport/{0}", "numbers", 0.1)]),
    "talk": (4, [("t/{1}/{0}", "thread", 1.0)]),
    "food": (2, [("recipes/{1}-{0}", "recipe", 0.9), ("about/{0}", "prose", 0.1)]),
    "ops": (1, [("logs/{0}.html", "log", 1.0)]),
    "proof": (1, [("wiki/{1}_{0}", "mathematics", 1.0)]),
    "court": (2, [("terms/{0}", "legal", 1.0)]),
    "deals": (2, [("{1}/{0}", "spam", 1.0)]),
}


# ------------------------------------------------------------------------------ what training sees nowhere

_SNIPPETS = (
    "#include <stdio.h>\n\nint {0}(const char *{1}, int n)\n{{\n    for (int i = 0; i < n; i++)\n"
    '        printf("%s %d\\n", {1}, i);\n    return n;\n}}',
    "SELECT {0}, COUNT(*) AS {1}\nFROM orders\nJOIN customers USING (id)\nWHERE {0} > 10\nGROUP BY {0}\nORDER BY {1};",
    '#!/bin/sh\nset -e\nfor {0} in *.txt; do\n    grep -q {1} "${0}" && mv "${0}" done/\ndone',
    "export async function {0}({1}) {{\n  const answer = await fetch(`/api/${{{1}.id}}`);\n"
    "  if (!answer.ok) throw new Error(answer.statusText);\n  return answer.json();\n}}",
)


def _other_languages(writer: _Writer) -> tuple[str, str]:
    names = [writer.source().name.rpartition(".")[2] for _ in range(2)]
    block = html.escape(writer.rng.choice(_SNIPPETS).format(*names), quote=False)
    return names[0], f"<h1>{names[0]}</h1><p>{writer.about_code(1)}</p><pre><code>{block}</code></pre>"


def _listing(writer: _Writer) -> tuple[str, str]:
    rows = "".join(
        f"<tr><td><code>{each.name}</code></td><td>{html.escape(each.doc.splitlines()[0])}</td></tr>"
        for each in (writer.source() for _ in range(writer.rng.randint(5, 15)))
    )
    return "Index", f"<h1>Index</h1><table>{rows}</table>"


def _verse(writer: _Writer) -> tuple[str, str]:
    subject = writer.subject()
    lines = ["    " * writer.rng.randrange(3) + writer.sentences(subject, 1) for _ in range(writer.rng.randint(6, 20))]
    return subject.capitalize(), f"<h1>{subject.capitalize()}</h1><pre>{chr(10).join(lines)}</pre>"


def _chess(writer: _Writer) -> tuple[str, str]:
    def move() -> str:
        return (
            writer.rng.choice(["", "N", "B", "R", "Q", "K"])
            + writer.rng.choice("abcdefgh")
            + writer.rng.choice("12345678")
        )

    moves = " ".join(f"{number}. {move()} {move()}" for number in range(1, writer.rng.randint(20, 60)))
    return "Game", f'<h1>Game</h1><pre>[Event "Open"]\n[Result "1-0"]\n\n{moves} 1-0</pre>'


def _price_list(writer: _Writer) -> tuple[str, str]:
    words = _SUBJECTS["en"][writer.rng.choice(("cars", "phones", "garden"))].split()
    rows = "\n".join(
        f"{writer.rng.randint(1000, 9999)};{writer.rng.choice(words)};{writer.rng.uniform(1, 99):.2f};EUR"
        for _ in range(writer.rng.randint(10, 50))
    )
    return "Prices", f"<h1>Prices</h1><pre>id;name;price;currency\n{rows}</pre>"


WANTED_NOVEL: dict[str, Maker] = {"other languages": _other_languages, "listing": _listing}
OTHERS_NOVEL: dict[str, Maker] = {"verse": _verse, "chess": _chess, "price list": _price_list}
_NOVEL_SITES = [
    [("posts/{1}-{0}", "other languages", 1.0)],
    [("index/{0}", "listing", 0.8), ("about/{0}", "prose", 0.2)],
    [("poems/{0}", "verse", 1.0)],
    [("games/{0}", "chess", 0.7), ("club/{0}", "thread", 0.3)],
    [("shop/{0}", "price list", 0.6), ("terms/{0}", "legal", 0.4)],
    [("news/{1}-{0}", "prose", 1.0)],
    [("docs/{0}", "documentation", 1.0)],
]


_MAKERS = WANTED | OTHERS | WANTED_NOVEL | OTHERS_NOVEL


@dataclass(frozen=True)
class CrawlSize:
    """How large a crawl is."""

    pages: int = 20_000
    sites: int = 300
    novel: int = 0  # of the sites: unseen, and of kinds that training sees nowhere
    unseen: float = 0.25  # of the others
    files: int = 4  # of each part
    broken: float = 0.01  # records that are damaged
    copies: float = 0.05  # pages that are another's text at another address
    seeds: float = 0.3  # of the documentation of training sites
    others: float = 0.04  # of the other pages about code there
    wrong: float = 0.001  # of all other pages there


class Page(NamedTuple):
    """A page with its label."""

    url: str
    site: str
    kind: str
    content: bytes
    charset: str
    training: bool
    novel: bool

    @property
    def wanted(self) -> bool:
        return self.kind in WANTED or self.kind in WANTED_NOVEL


def pages(size: CrawlSize, seed: int = 0) -> Iterator[Page]:
    """All pages of a crawl, site by site."""
    shares = [kind for kind, (count, _) in _SITES.items() for _ in range(count)]
    for number in range(size.sites):
        rng = random.Random(f"{seed} {number}")
        novel = number >= size.sites - size.novel
        kind = "site" if novel else shares[number % len(shares)]
        language = rng.choices(["en", "de", "ru", "zh"], [7, 1, 1, 1])[0] if not novel else rng.choice(["en", "fr"])
        site = f"{kind}{number}.{rng.choice(['org', 'com', 'net', 'co.uk'])}"
        training = not novel and number // len(shares) % round(1 / size.unseen) != 0
        writer = _Writer(rng, language)
        # A tenth of the sites are much larger than the others; on average a site has its share.
        count = max(3, round(size.pages / size.sites * rng.choice([0.5] * 9 + [5.5])))
        parts = _NOVEL_SITES[number % len(_NOVEL_SITES)] if novel else _SITES[kind][1]
        for index in range(count):
            where, what, _ = rng.choices(parts, [share for *_, share in parts])[0]
            title, body = _MAKERS[what](writer)
            words = rng.choice(_SUBJECTS["en"][""].split())
            charset = _CHARSETS[language] if rng.random() < 0.5 else "utf-8"
            menu = "".join(f"<li><a href=/{name}>{name}</a></li>" for name in ("home", "about", "contact"))
            text = (
                f"<!doctype html><html><head><meta charset={charset}><title>{html.escape(title)}</title></head><body>"
                f"<nav><ul>{menu}</ul></nav><main>{body}</main><footer>All rights reserved</footer></body></html>"
            )
            url = f"https://www.{site}/{where.format(index, words)}"
            yield Page(url, site, what, text.encode(charset, "xmlcharrefreplace"), charset, training, novel)


def _record(page: Page, named: bool) -> bytes:
    kind = f"text/html; charset={page.charset}" if named else "text/html"
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + page.content
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {page.url}\r\nWARC-Date: 2024-05-06T07:08:09Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(answer)}\r\n\r\n"
    )
    return head.encode() + answer + b"\r\n\r\n"


def _broken(record: bytes, rng: random.Random) -> bytes:
    """A member that is cut short, whose checksum is wrong, or whose record lies about its length."""
    packed = gzip.compress(record, 6, mtime=0)
    way = rng.randrange(3)
    if way == 0:
        return packed[: len(packed) * 2 // 3]
    if way == 1:
        return packed[:-8] + b"\1" * 8
    return gzip.compress(record.replace(b"Content-Length: ", b"Content-Length: 7", 1), 6, mtime=0)


def write_crawl(folder: Path, size: CrawlSize, seed: int = 0) -> None:
    """Writes `training/*.warc.gz`, `unseen/*.warc.gz`, `seeds.jsonl` (url, score) and `labels.jsonl` (url, site, kind,
    wanted, training, novel), in which damaged pages aren't."""
    rng = random.Random(seed)
    for part in PARTS:
        (folder / part).mkdir(parents=True)
    records: dict[bool, list[bytes]] = {True: [], False: []}
    labels, seeds = [], []
    for page in pages(size, seed):
        if rng.random() < size.broken:
            records[page.training].append(_broken(_record(page, True), rng))
            continue
        records[page.training].append(gzip.compress(_record(page, rng.random() < 0.5), 6, mtime=0))
        labels.append(page)
        if rng.random() < size.copies:
            copy = page._replace(url=f"{page.url}?print=1")
            records[page.training].append(gzip.compress(_record(copy, True), 6, mtime=0))
            labels.append(copy)
        share = size.seeds if page.kind == "documentation" else size.others if page.wanted else size.wrong
        if page.training and rng.random() < share:
            seeds.append(page.url)
    for training, mine in records.items():
        rng.shuffle(mine)
        for number in range(size.files):
            name = folder / PARTS[not training] / f"part-{number:02}.warc.gz"
            name.write_bytes(b"".join(mine[number :: size.files]))
    names = ("url", "site", "kind", "wanted", "training", "novel")
    known = [{name: getattr(page, name) for name in names} for page in labels]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in known))
    (folder / "seeds.jsonl").write_text("".join(json.dumps({"url": url, "score": 0.9}) + "\n" for url in seeds))
