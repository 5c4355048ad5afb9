"""Finds keys and passwords in program text: by their own form, by the name before them, by the place they stand in.

A key has a form of its own (`AKIA…`, a private key block), or stands behind a name (`api_key = "…"`, `&access_token=…`)
and looks random. A password looks like anything, so only its place tells: behind its name, in a URL, a connection
string, an SQL statement, a command line, the arguments of a call that logs in. What names no secret (a placeholder, a
template, an expression, prose) stays.

Each place is looked for from a literal that it must contain, if the text can hold it (seen.py); every pattern is
anchored at that literal and bounded, so the cost is linear. Literals and lists are data: secrets.json.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from opencoder_jax.beam_pipelines.redaction.seen import Seen

Span = tuple[int, int, str]  # start, stop, "key" or "password"


@cache
def lists() -> dict[str, Any]:
    """The literals and lists of secrets.json."""
    return json.loads(Path(__file__).with_name("secrets.json").read_text(encoding="utf-8"))


def find_credentials(text: str, lower: str, language: str, seen: Seen) -> Iterator[Span]:
    """Keys and passwords, in no order; they may overlap.

    Args:
        lower: the text in lower case, character by character.
        language: linguist's name; in some, values need no quotes.
        seen: what `lower` holds.
    """
    yield from _by_form(text, seen)
    yield from _named(text, lower, language, seen)
    yield from _in_places(text, lower, seen)


# ------------------------------------------------------------------------------------------------- forms of their own

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    # A block that was cut ends with its last line of 64 signs.
    r"(?:(?:[^-]++|-(?!----))*+-----END [A-Z0-9 ]{0,30}-----|(?:(?:\\n|\s|[\"'+\\#*/])*+[A-Za-z0-9+/=]{40,76}){2,}+)"
)


@cache
def _key_patterns() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Prefix in lower case -> the prefixes that are so written, with their forms."""
    prefixes = {prefix: form for prefix, form in lists()["key_prefixes"].items() if prefix != "reason"}
    patterns: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for prefix, form in prefixes.items():
        patterns.setdefault(prefix.lower(), []).append((prefix, re.compile(rf"{form}(?![A-Za-z0-9])")))
    return patterns


@cache
def _key_prefixes() -> tuple[str, ...]:
    return tuple(_key_patterns())


def _by_form(text: str, seen: Seen) -> Iterator[Span]:
    if "PRIVATE KEY" in text:
        for block in _PRIVATE_KEY.finditer(text):
            yield *block.span(), "key"
    for literal, pattern in (each for prefix in seen.among(_key_prefixes()) for each in _key_patterns()[prefix]):
        place = text.find(literal)
        while place >= 0:
            before = text[place - 1 : place]
            match = None if before.isalnum() or before == "_" else pattern.match(text, place)
            group = pattern.groups  # a form may say which part of it is the key
            if match and _looks_random(match[group], digits=1):
                yield *match.span(group), "key"
            place = text.find(literal, place + len(literal))


# ------------------------------------------------------------------------------------------------- behind a name

# After the name: the rest of it, a closing quote or bracket, a type annotation, `=`, `:` or `=>`; then a quoted value.
_QUOTED = re.compile(
    r"""(?:_base|_value)?[\])"' \t]{0,4}(?::\s?str\s?)?[ \t]{0,8}(?:=>|:=|[:=])[ \t]{0,8}"""
    r"""(?:u8|[rbufNL@$]|(?:\[\]byte|[\w.]{1,40}[Bb](?:ytes|uffer|uffer\.from))\()?(["'])([^"'\n]{4,200}+)\1(?![%\w])"""
)
_BARE = re.compile(r"""[ \t]{0,8}[:=][ \t]{0,8}([^\s"'#$<>{}()\[\];,]{6,200}+)[ \t]*(?=$|#|;)""", re.MULTILINE)
_BARE_HEX = re.compile(r"""[ \t]{0,8}[:=][ \t]{0,8}([0-9a-f]{32,128})[ \t]*$""", re.MULTILINE)
_BEARER = re.compile(r"(?: |\s{1,2}token )([A-Za-z0-9_.~+/-]{20,400}=*)")
# Of a value without quotes. No value goes on where it may end, so none gives back what it took: `{4,200}+`.
_WORD = r"""[^\s"'`$<>{}()\\]"""
# The same in a list of settings, which `;` and `&` divide.
_PART = r"""[^\s"'`$<>{}()\\;&]"""
# Other places of a value: what must stand before the name, what after it, and with which signs that may begin.
_FORMS = tuple(
    (re.compile(before, re.IGNORECASE | re.MULTILINE), re.compile(after, re.MULTILINE), first)
    for before, after, first in [
        # define('DB_PASSWORD', '…') · setPassword("…") · #define PASSWORD "…" · getenv("DB_PASSWORD", "…")
        (
            r"(?:define|put\w*|set\w*|add\w*|get\w*|fetch|env|config|string|\w*field)"
            r"\([ ]?(?:[\"']\w+[\"'],[ ])?[\"'][\w.-]*\Z",
            r"[\"'],[ ]?(?:default=)?[\"'](?:\\\\[\"'])?([^\"'\\\n]{4,200})(?:\\\\)?[\"']",
            "\"'",
        ),
        (r"\bset\w{0,40}\Z", r"\([\"']([^\"'\n]{4,200})[\"']\)", "("),
        (r"#[ \t]*define[ \t]+\w*\Z", r"[ \t]+\"([^\"\n]{4,200})\"$", " \t"),
        # process.env.DB_PASSWORD || '…' · ENV['DB_PASSWORD'] || '…' · ENV.fetch("DB_PASSWORD") { "…" }
        (r"env[.\[(\"'\w]*\Z", r"[\"'\])]{0,3}[ ]?(?:\|\||\?\?|or|\?:)[ ][\"']([^\"'\n]{4,200})[\"']", "\"']) |?o"),
        (r"fetch\([\"']\w*\Z", r"[\"']\)[ ]\{[ ]?[\"']([^\"'\n]{4,200})[\"']", "\"'"),
        # "Server=db;Password=…" · "user=joe password=… host=db" · "…?user=joe&password=…"
        (
            r"(?:[;?&\"'][\w-]*|\b(?:user|uid|username|dbname|database|host|port)=[^\s,()\"']{1,80})[ ]?\Z",
            rf"=({_WORD}{{4}}{_PART}{{0,396}}+)(?=[;&\s\"'`]|$)",
            "=",
        ),
        # AccountKey=…== of a connection string, and before a command: PGPASSWORD=… psql
        (r"", r"=([A-Za-z0-9+/]{40,200}={0,2})(?=;)", "="),
        (r"^[ \t]*(?:export[ ])?[A-Z_]*\Z", rf"=[\"']?({_WORD}{{4,200}}+)[\"']?(?=[ ]+[a-z./])", "="),
        # --password=… · --password … · -e DB_PASSWORD=… · - DB_PASSWORD=… · ENV PASSWORD … · <password>…</password>
        (r"--(?:[\w-]+-)?\Z", rf"=({_WORD}{{4,200}}+)(?=\s|$)", "="),
        (r"--(?:[\w-]+-)?\Z", rf"[ ][\"']?(?=\S*[\d!@#%^*])({_WORD}{{4,200}}+)[\"']?(?=\s|$)", " "),
        (r"(?:-e|--env|export|-)[ ][\"']?[A-Z0-9_]*\Z", rf"=({_WORD}{{4,200}}+)(?=[\s\"'`]|$)", "="),
        (r"^ENV[ ]\w*\Z", rf"[ ]({_WORD}{{4,200}}+)$", " "),
        (r"<(?:\w+:)?\w*\Z", r">([^<>\s]{4,200})</", ">"),
        # key="password" value="…" · name: DB_PASSWORD, and on the next line value: …
        (r"(?:name|key)=[\"'][\w.-]*\Z", r"[\"'][ ]value=[\"']([^\"'\n]{4,200})[\"']", "\"'"),
        (r"name:[ ][\"']?[\w.-]*\Z", rf"[\"']?\n[ ]+value:[ ][\"']?({_WORD}{{4,200}}+)[\"']?$", "\"'\n"),
        # authorization: … · "x-api-key: …"
        (r"authorization[\"']?[:,][ ][\"']?\Z", r"[ ]([A-Za-z0-9_.~+/-]{20,400})", " "),
        (r"[\"'][\w-]*\Z", r":[ ]([A-Za-z0-9_.~+/=-]{16,400})[\"']", ":"),
        # with encrypted password '…' · set password for joe = password('…')
        (r"(?:with|encrypted|login|superuser|(?:user|role)[ ]\S{1,64})[ ]\Z", r"[ ](?:=[ ])?'([^'\n]{4,200})'", " "),
        (r"=[ ]?\Z", r"\('([^'\n]{4,200})'\)", "("),
    ]
)
# Those that may go on with a sign behind the name.
_FORMS_AT = {
    sign: [(before, after) for before, after, first in _FORMS if sign in first]
    for sign in set("".join(first for *_, first in _FORMS))
}


@cache
def _names() -> dict[str, str]:
    return dict.fromkeys(lists()["key_names"], "key") | dict.fromkeys(lists()["password_names"], "password")


@cache
def _names_looked_for() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that are looked for one by one; and, less their ending, those that end in "key"."""
    keys = tuple(name.removesuffix("key") for name in _names() if name.endswith("key"))
    return tuple(name for name in _names() if not name.endswith("key")), keys


def _named(text: str, lower: str, language: str, seen: Seen) -> Iterator[Span]:
    bare = language in lists()["bare_value_languages"]
    for name, start in _places_of_names(lower, seen):
        kind, stop = _names()[name], start + len(name)
        value = _value(text, start, stop, name, bare)
        may_be = _is_password if kind == "password" else _is_key
        if value and may_be(text[slice(*value)]) and not _is_public(lower, start):
            yield *value, kind


def _places_of_names(lower: str, seen: Seen) -> Iterator[tuple[str, int]]:
    """Each name that a key or a password may stand behind, and where it begins."""
    names, keys = _names_looked_for()
    for name in seen.among(names):
        start = lower.find(name)
        while start >= 0:
            yield name, start
            start = lower.find(name, start + len(name))
    place = lower.find("key")
    while place >= 0:
        if lower.endswith(keys, 0, place):
            yield next((f"{key}key", place - len(key)) for key in keys if lower.endswith(key, 0, place))
        place = lower.find("key", place + 3)


_PUBLIC = re.compile(r"publi[cs]\w{0,24}[-_.]?\w{0,12}$")


def _is_public(lower: str, start: int) -> bool:
    """Whether the name that goes on at `start` says that everybody may know: PUBLIC_KEY, publishableKey."""
    return _PUBLIC.search(lower, max(0, start - 40), start) is not None


def _value(text: str, start: int, stop: int, name: str, bare: bool) -> tuple[int, int] | None:
    """Where the value of the name text[start:stop] stands."""
    if match := _QUOTED.match(text, stop):
        return match.span(2)
    if match := (_BARE if bare else _BARE_HEX).match(text, stop):
        start, stop = match.span(1)
        return start + len("base64:") * text.startswith("base64:", start), stop
    if name == "bearer" and (match := _BEARER.match(text, stop)):
        return match.span(1)
    head = ""
    for before, after in _FORMS_AT.get(text[stop : stop + 1], ()):
        if match := after.match(text, stop):
            head = head or text[max(0, start - 100) : start]
            if before.search(head):
                return match.span(1)
    return None


# ------------------------------------------------------------------------------------------------- places of their own

_ARGUMENT = r"""(?:["'][^"'\n]{0,200}["']|[\w.$>-]{1,60})"""
# A literal that must be there, what is looked for, both in lower case, and the kind of its group.
_PLACES = tuple(
    (literal, re.compile(pattern, re.MULTILINE), kind)
    for literal, pattern, kind in [
        ("://", r"://[^\s/:@\"'<>{}$%]{0,64}:([^\s/:@\"'<>{}$%()]{3,100})@[\w\[]", "password"),
        (
            "identified",
            r"(?:(?:create|alter)[ ]user\b|grant\b|\bto[ ]['\"`]?[\w.%-]{1,64}['\"`]?@)[^;\n]{0,160}"
            r"\bidentified[ ](?:with[ ]\w{1,40}[ ])?by[ ](?:password[ ])?"
            r"(?:['\"]([^'\"\n]{4,200})['\"]|([\w#!]{4,64})(?=[ ]*(?:;|$)))",
            "password",
        ),
        (  # joe:…@tcp(db:3306)/app
            "@tcp(",
            r"(?<![\w/:])[\w.-]{1,40}:([^\s/:@\"'<>{}$%()]{3,100})@tcp\(",
            "password",
        ),
        ("sshpass", rf"\bsshpass[ ]+-p[ ]?[\"']?({_WORD}{{4,100}}+)[\"']?(?=\s)", "password"),
        (
            "mysql",
            rf"\bmysql(?:dump|admin|import)?\b[^\n|;&]{{0,80}}?[ ]-p(?!assword|ort|rotocol)[\"']?({_WORD}{{4,100}}+)"
            r"[\"']?(?=\s|$)",
            "password",
        ),
        (
            "curl",
            rf"\bcurl\b[^\n|;]{{0,120}}?[ ](?:-u|--user)[ ]?[\"']?[\w.@-]{{1,64}}:({_WORD}{{4,100}}+)[\"']?(?=\s|$)",
            "password",
        ),
        ("redis-cli", rf"\bredis-cli\b[^\n|;]{{0,80}}?[ ]-a[ ][\"']?({_WORD}{{4,100}}+)[\"']?(?=\s|$)", "password"),
        # mysqli("db", "joe", "…") · getConnection(url, "joe", "…") · NetworkCredential("joe", "…") · login("joe", "…")
        *(
            (
                name,
                rf"\b{name}\([ ]?{_ARGUMENT},[ ]?[\"'][^\"'\n]{{1,64}}[\"'],[ ]?[\"']([^\"'\n]{{4,100}})[\"']",
                "password",
            )
            for name in ("mysqli", "mysqli_connect", "mysql_connect", "pdo", "getconnection")
        ),
        (
            "networkcredential",
            r"\bnetworkcredential[ ]?\([ ]?[\"'][^\"'\n]{1,64}[\"'],[ ]?[\"']([^\"'\n]{4,100})[\"']",
            "password",
        ),
        (
            ".login(",
            r"\.login\([ ]?[\"'][^\"'\n]{1,64}[\"'],[ ]?[\"']"
            r"(?=[^\"'\n]*[\d!#$%^&*])(?![^\"'\n]*@\w)([^\"'\n]{4,100})[\"']",
            "password",
        ),
        # pass: "…" · 'pass' => '…'
        ("pass", r"pass(?<![\w.-]pass)[\"']?[ ]?(?:=>|[:=])[ ]?[\"']([^\"'\s]{4,100})[\"']", "password"),
        *(
            (
                name,
                rf"\b{name}\(?[ ]?[\"'][^\"'\n]{{1,64}}[\"'],[ ]?[\"']([^\"'\n]{{4,100}})[\"']",
                "password",
            )
            for name in (
                *("usernamepasswordcredentials", "usernamepasswordauthenticationtoken", "passwordauthentication"),
                *("httpbasicauth", "httpdigestauth", "basicauth", "basic_auth"),
            )
        ),
        ("auth=(", r"\bauth=\([\"'][^\"'\n]{1,64}[\"'],[ ]?[\"']([^\"'\n]{4,100})[\"']", "password"),
        # docker login -u … -p … · echo … | sudo -S · Google's passwords for applications, four words of four letters
        (
            "login",
            rf"\blogin[ ][^\n|;]{{0,120}}?[ ](?:-p|--password)[ =]?(?!assword|rofile|ort)[\"']?({_WORD}{{4,100}}+)"
            r"[\"']?(?=\s|$)",
            "password",
        ),
        ("sudo -s", r"\becho[ ]+[\"']?([^\s\"'|$]{4,100})[\"']?[ ]*\|[ ]*sudo[ ]+-s\b", "password"),
        (".login(", r"\.login\([^()\n]{1,80},[ ]?[\"']([a-z]{4}(?:[ ][a-z]{4}){3})[\"']", "password"),
        ("pass", r"pass(?:word)?[\"']?[ ]?[:=][ ]?[\"']([a-z]{4}(?:[ ][a-z]{4}){3})[\"']", "password"),
        ("wifi.begin(", r"\bwifi\.begin\([ ]?[^,()\n]{1,60},[ ]?[\"']([^\"'\n]{4,100})[\"']", "password"),
        ("psk", r"\bpsk[ ]?=[ ]?[\"']?([^\s\"']{8,64})[\"']?[ \t]*$", "password"),
        ("basic ", r"authorization[\"']?[ ]?[:,=][ ]?[\"']?basic[ ]([a-z0-9+/]{16,200}={0,2})", "key"),
        ("sig=", r"[?&]sig=([a-z0-9%+/]{40,120})", "key"),
        ("/webhooks/", r"discord(?:app)?\.com/api/webhooks/\d{15,20}/([\w-]{60,80})", "key"),
        ("://", r"://(?:x-access-token:|oauth2:)?([0-9a-f]{40}|[a-z0-9_]{36,100})(?::x-oauth-basic)?@\w", "key"),
        # of Sentry, Travis, Docker and Algolia
        ("sentry", r"://([0-9a-f]{32})(?::[0-9a-f]{32})?@[\w.-]*sentry", "key"),
        ("client(", r"\bclient\([\"']ac[0-9a-f]{32}[\"'],[ ]?[\"']([0-9a-f]{32})[\"']", "key"),
        ("slack:", r"\bslack:[ ]+[\w-]{1,40}:([a-z0-9]{24})(?!\w)", "key"),
        ('"auth"', r"\"auth\":[ ]?\"([a-z0-9+/]{20,200}={0,2})\"", "key"),
        ("algoliasearch(", r"\balgoliasearch\([\"']\w{10}[\"'],[ ]?[\"']([0-9a-f]{32})[\"']", "key"),
        # …?key=…&appid=…
        ("key=", r"[?&]key=([a-z0-9_.~-]{20,200})", "key"),
        ("appid=", r"[?&]appid=([a-z0-9_.~-]{20,200})", "key"),
        # a bot's token at Telegram: its number, then a key
        (":aa", r"(?:(?<!\w)|(?<=/bot))([0-9]{8,10}:aa[a-z0-9_-]{32,34})(?![\w-])", "key"),
        # jwt.sign(payload, "…") · bot.run("…") · client.login("…")
        ("jwt.", r"\bjwt\.(?:sign|verify)\([^,()\n]{1,80},[ ]?[\"']([^\"'\s]{16,400})[\"']", "key"),
        (".login(", r"\.login\([\"']([\w.-]{40,100})[\"']\)", "key"),
        (".run(", r"\.run\([\"']([\w.-]{40,100})[\"']", "key"),
    ]
)
# Names that end in "key" are many; only what looks very random behind one is taken.
_ANY_KEY = re.compile(r"""key["'\]]{0,2}[ ]{0,4}(?:=>|:=|[:=])[ ]{0,4}["']([a-z0-9_+/=-]{20,200})["']""")


_PLACES_BY_LITERAL = {
    literal: [(pattern, kind) for known, pattern, kind in _PLACES if known == literal] for literal, *_ in _PLACES
}
_LITERALS = tuple(_PLACES_BY_LITERAL)


def _in_places(text: str, lower: str, seen: Seen) -> Iterator[Span]:
    for literal in seen.among(_LITERALS):
        for pattern, kind in _PLACES_BY_LITERAL[literal] if literal in lower else ():
            for match in pattern.finditer(lower):
                start, stop = match.span(match.lastindex or 1)
                if (_is_password if kind == "password" else _is_key)(text[start:stop]):
                    yield start, stop, kind
    for match in _ANY_KEY.finditer(lower):
        value = text[slice(*match.span(1))]
        digits = sum(map(str.isdigit, value))
        if _is_public(lower, match.start()):
            continue
        if digits >= 3 and value.lower() != value != value.upper() and len(set(value)) > 14 and _looks_random(value):
            yield *match.span(1), "key"


# ------------------------------------------------------------------------------------------------- what a value can be

_FOUR_WORDS = re.compile(r"[a-z]{4}(?: [a-z]{4}){3}")  # as Google gives them to applications
_DOTTED = re.compile(r"[a-z]+(?:\.[A-Za-z]+){2,}")


def _is_password(value: str) -> bool:
    if value.lower() in lists()["placeholders"]["words"] or len(set(value)) < 3:
        return False
    if "password" in value.lower() or _DOTTED.fullmatch(value):  # "userPassword", "java.naming.security.credentials"
        return False
    if _FOUR_WORDS.fullmatch(value):
        return True
    # Prose, templates, paths, expressions and translations are no passwords.
    return not re.search(
        r"[\s<>{}()]|^[$%*]|^(?:your|my|the|some|enter|insert)[-_]|^(?:\.{0,2}/|https?:)|%[sd(]", value
    )


def _is_key(value: str) -> bool:
    # Django's secrets have every sign of the keyboard.
    scrambled = (
        len(set(value)) >= 20 and re.fullmatch(r"[\w!@#$%^&*()=+-]{40,}", value) and re.search(r"[!@#^&*(]", value)
    )
    return bool(scrambled) or _looks_random(value)


def _looks_random(value: str, digits: int = 2) -> bool:
    """Whether a value can be a key: long, letters and digits mixed, no words or template in it."""
    if len(value) < 16 or re.search(r"[\s<>{}()]|^[$%]|%[sd]|^https?:|^(?:\.{0,2}/)", value):
        return False
    if sum(map(str.isdigit, value)) < digits or sum(map(str.isalpha, value)) < 2 or len(set(value)) < 8:
        return False
    low = value.lower()
    return not ("example" in low or "xxxx" in low or "1234567890" in low or "your" in low or "abcdefgh" in low)
