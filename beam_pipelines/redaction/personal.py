"""Finds e-mail addresses, IP addresses, keys, passwords and names of people in program text.

OpenCoder replaces them by placeholders but published no pattern (paper section 2.1.3, transformation); these are our
own, made for precision on code: a version number isn't an address, a function call isn't a password. Addresses that
lead to nobody stay as they are: example domains, loopback, private and documentation networks, public resolvers.

Keys and passwords are found by credentials.py, names by names.py, addresses here. Each kind is looked for from a
literal that it must contain (`@`, `::`, "password", "AKIA"); which of them a text can hold, seen.py says in one pass.
"""

import ipaddress
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

from opencoder_jax.beam_pipelines.redaction.credentials import find_credentials, lists
from opencoder_jax.beam_pipelines.redaction.names import find_names
from opencoder_jax.beam_pipelines.redaction.seen import Seen

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
    seen = Seen(lower)
    found = [Finding(*span) for span in find_credentials(text, lower, language, seen)]
    found += [*_emails(text, language), *_written_out(lower, seen), *_ips(text, lower, seen)]
    found += [Finding(start, stop, "name") for start, stop in find_names(text, lower, language, seen)]
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda finding: (finding.start, -finding.stop)):
        if not kept or finding.start >= kept[-1].stop:
            kept.append(finding)
    return kept


# Perl's documentation closes its bracket with `E<gt>`.
_DOMAIN = re.compile(
    r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,5}([A-Za-z]{2,10}?))(?:(?=E<gt>)|(?![\w(\[@-]|\.\w))"
)
_CREDENTIALS = re.compile(r"://[^\s/]{0,64}:\Z")  # of a URL: what follows is a password
_PLACE = re.compile(r":(?:[/~]|\d|[\w.-]+/)")  # of a file on another machine: joe@host:/srv, git@host:team/repository
_REMOTE = re.compile(r"\b(?:ssh|scp|sftp|rsync|mosh|ssh-copy-id)\b(?![^\n]*mail)")  # the command that takes joe@host
_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-")


def _emails(text: str, language: str) -> Iterator[Finding]:
    if "@" not in text:
        return
    for match in _DOMAIN.finditer(text):
        domain, last = match[1].lower(), match[2].lower()
        at = match.start() - text.startswith("\\", match.start() - 1)  # "joe\\@acme.org" in Perl
        start = at
        while start > 0 and at - start < 64 and text[start - 1] in _LOCAL:
            start -= 1
        local = text[start:at].lstrip(".%+-")
        start = at - len(local)
        if not local or last not in _top_level_domains() or _is_nobodys(local.lower(), domain):
            continue
        # Part of a URL's path or of a longer word, such as an npm package or a decorator's argument.
        if start and text[start - 1] in "/@$":
            continue
        if start and text[start - 1] == ":" and _CREDENTIALS.search(text, max(0, start - 80), start):
            continue
        if domain.find(".") == 1 == len(local) and text[start - 1 : start] in (" ", "(", "=", ""):
            continue  # a matrix times another: a@b.it
        if (
            _NUMBERS.match(domain)
            or local in _RECEIVERS
            or (language == "Kotlin" and _is_code(text, start, match.end()))
        ):
            continue
        if _PLACE.match(text, match.end()) or _REMOTE.search(text, text.rfind("\n", 0, start) + 1, start):
            continue
        yield Finding(start, match.end(), "email")


_NUMBERS = re.compile(r"v?\d+\.\d")  # of a version, behind a package's name: launcher@0.15.1.io
_RECEIVERS = frozenset(("this", "super", "return", "break", "continue"))  # of Kotlin: this@Outer.id


def _is_code(text: str, start: int, stop: int) -> bool:
    """Whether text[start:stop] is no part of a comment or a string, as far as its line tells."""
    before = text[text.rfind("\n", 0, start) + 1 : start]
    line = before + text[stop : text.find("\n", stop) if "\n" in text[stop:] else len(text)]
    return not re.search(r"[\"']|//|/\*|^\s*\*", before) and re.search(r"[{}()=]", line) is not None


# joe (at) acme (dot) org · joe at acme dot org · joe [at] acme.org
_WRITTEN_OUT = re.compile(
    r"(?<![\w.+-])([\w+-][\w.+-]{1,63})(?P<at>[ ]at[ ]|[ ]{0,2}[\[({<]at[\])}>][ ]{0,2}|_at_)"
    r"([\w-]{2,63}(?:(?:[ ]dot[ ]|[ ]{0,2}[\[({<]dot[\])}>][ ]{0,2}|_dot_|\.)[\w-]{2,63}){0,3}?)"
    r"(?P<dot>[ ]dot[ ]|[ ]{0,2}[\[({<]dot[\])}>][ ]{0,2}|_dot_|\.)([a-z]{2,10})(?![\w@-]|\.\w| dot )"
)
_AT = ("(at)", "[at]", "{at}", "<at>", " dot ", "_dot_")


def _written_out(lower: str, seen: Seen) -> Iterator[Finding]:
    """Addresses in words that a program isn't to read."""
    if not any(literal in lower for literal in seen.among(_AT)):
        return
    for match in _WRITTEN_OUT.finditer(lower):
        if match[5] in _top_level_domains() and (match["at"].strip() not in ("at", "_at_") or match["dot"] != "."):
            yield Finding(*match.span(), "email")


def _is_nobodys(local: str, domain: str) -> bool:
    """Whether an address stands for any, or leads to a machine."""
    if local in lists()["email_machine_users"] or domain in lists()["email_example_domains"]:
        return True
    if domain.endswith((".example.com", ".example.org", ".example.net")):
        return True
    if re.sub(r"[-_.]", "", local) in lists()["email_placeholder_users"]:
        return True
    if domain in lists()["protocol_domains"]["domains"] and re.search(r"-|\d", local):
        return True  # aes256-gcm@openssh.com
    return "." in local and re.fullmatch(r"[\d.]{12,}", local) is not None  # the number of a message


@cache
def _top_level_domains() -> frozenset[str]:
    return frozenset(lists()["top_level_domains"])


_IPV4 = re.compile(
    r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?![\w.~@]|-\w)|[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?=\.(?!\w))"
)
# What makes the four numbers behind it a version, a part of a text or an object identifier.
_VERSION = re.compile(
    r"(?:version|release|\bver|\brev|build|linux|kernel|\boid|\bv"
    r"|#:changed|#:added|\bsections?|\bsec|§|\bchapter|\bclause|\bparagraph|\bfigures?|\bfig|\btables?|\bappendix)[\W_]{0,10}v?[\"'(]*$"
    r"|\w==[\"']?$|[<>~^]= ?(?:\w{1,20}\()?[\"'v(]*$"  # tool==… · >= parse("…")
    r"|(?:^|[\s\"'(;,])[a-z][\w.+-]*/$"  # Chrome/…
    r"|/[\w.-]{1,40}:$|(?<![:\w])\d:$"  # registry/image:… · the epoch of a package, 1:…
    r"|[\w.-]:[\w.-]{1,40}:$"  # the coordinates of a package, group:name:…
    # "some.package": "…" · some-package: … · the lines of a lock file, `    some-package (…`
    r"|[\"']@?[a-z][\w-]*[./][\w./-]*[\"']:[ ][\"']$|(?:^|\n) {2,8}[a-z][\w-]* \($"
    r"|(?:^|\n)[ ]*[\"']?(?![\w-]*(?:ip|host|addr|server|node|gateway|dns|ntp|proxy|master|peer|web|db|url)\b)"
    r"[a-z]\w*-[\w-]{2,40}[\"']?(?::[ ]|[ ])[\"']?$"
    r"|\.(?:dll|exe|so|jar)\W{0,3}$"
)
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*")  # to the end of a run, so that none is read twice
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


def _ips(text: str, lower: str, seen: Seen) -> Iterator[Finding]:
    for match in _IPV4.finditer(text) if seen.numbers else ():
        start = match.start()
        if start and (text[start - 1].isalnum() or text[start - 1] in "._-"):
            continue
        if not _is_somebodys(match[0]) or _VERSION.search(lower, max(0, start - 48), start):
            continue
        if re.match(r"\.\s", text[match.end() : match.end() + 2]) and text[start - 1 : start] in ("", ">", '"', "\n"):
            continue  # the number of a section: <h4>12.60.7.33. Notation
        if text.startswith("/", match.end()) and re.search(r"[^/]/$", text[max(0, start - 2) : start]):
            continue  # a folder: …/three/0.150.33.44/three.min.js
        yield Finding(*match.span(), "ip_address")
    for match in _COLONS.finditer(text) if seen.colons else ():
        start, stop = match.span()
        while start > 0 and match.start() - start < 5 and text[start - 1] in _HEXADECIMAL:
            start -= 1
        if stop - start > 39:
            continue  # longer than any address
        outside = text[start - 1 : start] + text[stop : stop + 1]
        # Three groups at the least: `dead::beef` is a C++ name, `a[1::2]` a slice.
        if text.count(":", start, stop) >= 3 and not re.search(r"\w", outside) and _is_somebodys(text[start:stop]):
            yield Finding(start, stop, "ip_address")


_GIVEN_OUT = ipaddress.ip_network("2000::/3")


@cache
def _special_networks() -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(network) for network in lists()["special_networks"]]


@lru_cache(1 << 12)
def _is_somebodys(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not parsed.is_global or parsed.is_multicast:
        return False
    if address in lists()["public_resolvers"] or address in lists()["stand_ins"]:
        return False
    if parsed.version == 6:  # of IPv6 only this block is given out; `::ffff:d` and the like explain its notation
        return parsed in _GIVEN_OUT and any(parsed.packed[8:])  # without a host part it is a network
    # A last 0 or 255 names a network or all of it. 2.7.0.40 and 14.6.1.1 are versions or sections far oftener.
    if parsed.packed[-1] in (0, 255) or any(parsed in network for network in _special_networks()):
        return False
    # Object identifiers begin with 0 to 2 and a digit, as 2.5.29.37.
    if re.match(r"[0-2]\.\d\.|\d\.\d\.\d\.", address) or max(parsed.packed) < 32:
        return False
    # 11.22.33.44, 12.34.56.78, 111.111.111.111 stand for any.
    return len({second - first for first, second in pairwise(parsed.packed)}) > 1
