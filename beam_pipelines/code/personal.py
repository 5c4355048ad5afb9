"""Finds e-mail addresses, IP addresses, keys, passwords and names of people in program text.

OpenCoder replaces them by placeholders but published no pattern (paper section 2.1.3, transformation); these are our
own, made for precision on code: a version number isn't an address, a function call isn't a password. Addresses that
lead to nobody stay as they are: example domains, loopback, private and documentation networks, public resolvers.

Each kind is looked for from a literal that it must contain (`@`, `::`, "password", "AKIA"), so text without any is left
after a few substring searches; every pattern is anchored at that literal and bounded, so the cost is linear. The
literals and lists are data: secrets.json. `redact.py` measures the cost.
"""

import ipaddress
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from beam_pipelines.code.names import find_names

KINDS = ("email", "ip_address", "key", "password", "name")


class Finding(NamedTuple):
    """text[start:stop] is a secret or personal; `kind` names its placeholder."""

    start: int
    stop: int
    kind: str


def find(text: str, language: str) -> list[Finding]:
    """All findings in order, without overlaps; where two overlap, the one that starts first, then the longer, stays."""
    lower = text.lower()
    if len(lower) != len(text):  # a few capitals become two characters; positions must agree
        lower = "".join(low if len(low := character.lower()) == 1 else character for character in text)
    found = [*_keys(text), *_assigned(text, lower, language), *_url_passwords(text), *_emails(text), *_ips(text, lower)]
    found += [Finding(start, stop, "name") for start, stop in find_names(text, lower, language)]
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda finding: (finding.start, -finding.stop)):
        if not kept or finding.start >= kept[-1].stop:
            kept.append(finding)
    return kept


@cache
def _lists() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("secrets.json").read_text(encoding="utf-8"))


@cache
def _key_patterns() -> dict[str, re.Pattern[str]]:
    prefixes = {prefix: form for prefix, form in _lists()["key_prefixes"].items() if prefix != "reason"}
    return {prefix: re.compile(rf"(?<![A-Za-z0-9_]){form}(?![A-Za-z0-9])") for prefix, form in prefixes.items()}


_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:[^-]++|-(?!----))*+-----END [A-Z0-9 ]{0,30}-----"
)


def _keys(text: str) -> Iterator[Finding]:
    if "PRIVATE KEY" in text:
        for match in _PRIVATE_KEY.finditer(text):
            yield Finding(*match.span(), "key")
    for prefix, pattern in _key_patterns().items():
        if prefix in text:
            for match in pattern.finditer(text):
                if _looks_random(match[0], digits=1):
                    yield Finding(*match.span(), "key")


# After the name: the rest of it, a closing quote or bracket, a type annotation, `=`, `:` or `=>`; then a quoted value.
_QUOTED = re.compile(
    r"""(?:_base|_value)?[\])"' \t]{0,4}(?::\s?str\s?)?[ \t]{0,8}(?:=>|:=|[:=])[ \t]{0,8}"""
    r"""[rbuf]?(["'])([^"'\n]{4,200})\1(?![%\w])"""
)
_BARE = re.compile(r"""[ \t]{0,8}[:=][ \t]{0,8}([^\s"'#$<>{}()\[\];,]{6,200})[ \t]*(?=$|#|;)""", re.MULTILINE)
_BARE_HEX = re.compile(r"""[ \t]{0,8}[:=][ \t]{0,8}([0-9a-f]{32,128})[ \t]*$""", re.MULTILINE)
_BEARER = re.compile(r"(?: |\s{1,2}token )([A-Za-z0-9_.~+/-]{20,400}=*)")
# Other places of a value: what must stand before the name, and what after it.
_FORMS = tuple(
    (re.compile(before, re.IGNORECASE | re.MULTILINE), re.compile(after, re.MULTILINE))
    for before, after in [
        # define('DB_PASSWORD', '…') · setPassword("…") · #define PASSWORD "…"
        (r"(?:define|put\w*|set\w*|add\w*)\([ ]?[\"'][\w.]*$", r"[\"'],[ ]?[\"']([^\"'\n]{4,200})[\"']"),
        (r"set_?$", r"\([\"']([^\"'\n]{4,200})[\"']\)"),
        (r"#[ \t]*define[ \t]+\w*$", r"[ \t]+\"([^\"\n]{4,200})\"$"),
        # "Server=db;Password=…;" · --password=… · ENV PASSWORD … · <password>…</password> · key="password" value="…"
        (r"[;\"'][ ]?$", r"=([^;\"'{}\s]{4,200});"),
        (r"--(?:\w+-)?$", r"=([^\s\"'$<>{}()]{4,200})(?=\s|$)"),
        (r"^ENV[ ]\w*$", r"[ ]([^\s\"'$<>{}()]{4,200})$"),
        (r"<(?:\w+:)?\w*$", r">([^<>\s]{4,200})</"),
        (r"(?:name|key)=[\"'][\w.-]*$", r"[\"'][ ]value=[\"']([^\"'\n]{4,200})[\"']"),
        (r"authorization[\"']?[:,][ ][\"']?$", r"[ ]([A-Za-z0-9_.~+/-]{20,400})"),
    ]
)


@cache
def _names() -> dict[str, str]:
    lists = _lists()
    return dict.fromkeys(lists["key_names"], "key") | dict.fromkeys(lists["password_names"], "password")


def _assigned(text: str, lower: str, language: str) -> Iterator[Finding]:
    bare = language in _lists()["bare_value_languages"]
    for name, kind in _names().items():
        start = lower.find(name)
        while start >= 0:
            stop = start + len(name)
            value = None if "public" in lower[max(0, start - 12) : start] else _value(text, start, stop, name, bare)
            if value and (
                _is_password(text[slice(*value)]) if kind == "password" else _looks_random(text[slice(*value)])
            ):
                yield Finding(*value, kind)
            start = lower.find(name, stop)


def _value(text: str, start: int, stop: int, name: str, bare: bool) -> tuple[int, int] | None:
    """Where the value of the name text[start:stop] stands."""
    if match := _QUOTED.match(text, stop):
        return match.span(2)
    if match := (_BARE if bare else _BARE_HEX).match(text, stop):
        return match.span(1)
    if name == "bearer" and (match := _BEARER.match(text, stop)):
        return match.span(1)
    for before, after in _FORMS:
        if (match := after.match(text, stop)) and before.search(text[max(0, start - 40) : start]):
            return match.span(1)
    return None


_DOTTED = re.compile(r"[a-z]+(?:\.[A-Za-z]+){2,}")


def _is_password(value: str) -> bool:
    if value.lower() in _lists()["placeholders"]["words"] or len(set(value)) < 3:
        return False
    if "password" in value.lower() or _DOTTED.fullmatch(value):  # "userPassword", "java.naming.security.credentials"
        return False
    # Prose, templates, paths, expressions and translations are no passwords.
    return not re.search(
        r"[\s<>{}()]|^[$%*]|^(?:your|my|the|some|enter|insert)[-_]|^(?:\.{0,2}/|https?:)|%[sd(]", value
    )


def _looks_random(value: str, digits: int = 2) -> bool:
    """Whether a value can be a key: long, letters and digits mixed, no words or template in it."""
    if len(value) < 16 or re.search(r"[\s<>{}()]|^[$%]|%[sd]|^https?:|^(?:\.{0,2}/)", value):
        return False
    if sum(map(str.isdigit, value)) < digits or sum(map(str.isalpha, value)) < 2 or len(set(value)) < 8:
        return False
    low = value.lower()
    return not ("example" in low or "xxxx" in low or "1234567890" in low or "your" in low or "abcdefgh" in low)


_URL_PASSWORD = re.compile(r"://[^\s/:@\"'<>{}$%]{0,64}:([^\s/:@\"'<>{}$%()]{3,100})@[\w\[]")


def _url_passwords(text: str) -> Iterator[Finding]:
    if "://" in text and "@" in text:
        for match in _URL_PASSWORD.finditer(text):
            if _is_password(match[1]):
                yield Finding(*match.span(1), "password")


_DOMAIN = re.compile(r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,5}([A-Za-z]{2,10}))(?![\w(\[@-]|\.\w)")
_CREDENTIALS = re.compile(r"://[^\s/]{0,64}:\Z")  # of a URL: what follows is a password
_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-")


def _emails(text: str) -> Iterator[Finding]:
    if "@" not in text:
        return
    lists = _lists()
    for match in _DOMAIN.finditer(text):
        domain, last = match[1].lower(), match[2].lower()
        start = match.start()
        while start > 0 and match.start() - start < 64 and text[start - 1] in _LOCAL:
            start -= 1
        local = text[start : match.start()].lstrip(".%+-")
        start = match.start() - len(local)
        if not local or last not in _top_level_domains() or local.lower() in lists["email_machine_users"]:
            continue
        if domain in lists["email_example_domains"] or domain.endswith(
            (".example.com", ".example.org", ".example.net")
        ):
            continue
        # Part of a URL's path or of a longer word, such as an npm package or a decorator's argument.
        if start and text[start - 1] in "/@$":
            continue
        if start and text[start - 1] == ":" and _CREDENTIALS.search(text, max(0, start - 80), start):
            continue
        yield Finding(start, match.end(), "email")


@cache
def _top_level_domains() -> frozenset[str]:
    return frozenset(_lists()["top_level_domains"])


_IPV4 = re.compile(
    r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?![\w.]|-\w)|[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?=\.(?!\w))"
)
# What makes the four numbers behind it a version, a section of a text or an object identifier.
_VERSION = re.compile(
    r"(?:version|release|\bver|\brev|build|\bsections?|\boid|\bimage: ?[\w/.-]{1,24}|\bv|[=<>~^]=|[a-z]/)"
    r"[>\s]*[\"':=]*\s*[\"'v(]*$"
)
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = frozenset("0123456789abcdefABCDEF:")


def _ips(text: str, lower: str) -> Iterator[Finding]:
    for match in _IPV4.finditer(text):
        start = match.start()
        if start and (text[start - 1].isalnum() or text[start - 1] in "._-"):
            continue
        if _is_somebodys(match[0]) and not _VERSION.search(lower[max(0, start - 24) : start]):
            yield Finding(*match.span(), "ip_address")
    end = 0
    for match in _COLONS.finditer(text):
        if match.start() < end:
            continue
        start, stop = match.span()
        while start > 0 and stop - start < 40 and text[start - 1] in _IPV6:
            start -= 1
        while stop < len(text) and stop - start < 40 and text[stop] in _IPV6:
            stop += 1
        end = stop
        outside = text[start - 1 : start] + text[stop : stop + 1]
        # Three groups at the least: `dead::beef` is a C++ name, `a[1::2]` a slice.
        if text.count(":", start, stop) >= 3 and not re.search(r"\w", outside) and _is_somebodys(text[start:stop]):
            yield Finding(start, stop, "ip_address")


_GIVEN_OUT = ipaddress.ip_network("2000::/3")


@cache
def _special_networks() -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(network) for network in _lists()["special_networks"]]


def _is_somebodys(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not parsed.is_global or parsed.is_multicast or address in _lists()["public_resolvers"]:
        return False
    if parsed.version == 6:  # of IPv6 only this block is given out; `::ffff:d` and the like explain its notation
        return parsed in _GIVEN_OUT and any(parsed.packed[8:])  # without a host part it is a network
    # A last 0 or 255 names a network or all of it. 2.7.0.40 and 14.6.1.1 are versions or sections far oftener.
    if parsed.packed[-1] in (0, 255) or any(parsed in network for network in _special_networks()):
        return False
    return re.match(r"\d\.\d\.\d\.", address) is None and max(parsed.packed) >= 32
