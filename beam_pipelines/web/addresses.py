"""Addresses of pages: URLs in one spelling, the site of a page, where in it the page lies, and what kind that names."""

import re
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import tldextract

_LONGEST = 4_000  # characters of a URL
_PORTS = {"http": 80, "https": 443}
# What is added to a link to see who followed it.
_TRACKING = re.compile(r"utm_\w+|fbclid|gclid|msclkid|mc_[ce]id|yclid|igshid|_ga|sessionid|phpsessid|jsessionid", re.I)
# Words of a host or path by the kind of page they name; where a place has several, the first kind counts.
_CATEGORIES = {
    "forum": "forums?|boards?|threads?|topics?|t|c|questions?|answers?|ask|viewtopic|showthread|discuss|discussions?|"
    "comments?|community|qa|issues?",
    "documentation": "docs?|documentation|manuals?|reference|api|apidocs|javadoc|guides?|help|wiki|tutorials?|faq|man",
    "news": "news|press|stories|story|sport|politics|business",
    "blog": "blogs?|posts?|articles?|entry|entries|journal|p",
}
_CATEGORY = re.compile("|".join(f"(?P<{name}>^(?:{words})$)" for name, words in _CATEGORIES.items()))
_SAFE = "/:@!$&'()*+,;=-._~"

# The list of public suffixes that is part of the package: no look-up, no cache on disk.
_EXTRACT = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=(), include_psl_private_domains=True)


def normalised(url: str) -> str:
    """A URL in one spelling: scheme and host in lower case, no usual port, fragment or tracking, parameters sorted.

    Raises:
        ValueError: it's no address of a web page.
    """
    if len(url) > _LONGEST:
        raise ValueError("too long")
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in _PORTS or not host or re.search(r"[\s/\\<>\"]", host):
        raise ValueError("no address of a web page")
    if not host.isascii():
        host = host.encode("idna").decode()
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    kept = sorted((key, value) for key, value in parse_qsl(parts.query, True) if not _TRACKING.fullmatch(key))
    path = quote(unquote(re.sub(r";jsessionid=[^/?]*", "", parts.path, flags=re.I), errors="surrogateescape"), _SAFE,
                 errors="surrogateescape")  # fmt: skip
    query = f"?{urlencode(kept, errors='surrogateescape')}" if kept else ""
    return f"{parts.scheme}://{host}{port}{path or '/'}{query}"


def one_spelling(url: str) -> str:
    """A URL as `normalised` has it, or as it is where it's no address of a web page."""
    try:
        return normalised(url)
    except ValueError:
        return url


def place_of(url: str) -> str:
    """Where a page lies: its URL without scheme and `www.`."""
    return url.partition("://")[2].removeprefix("www.")


def category_of(place: str) -> str:
    """The kind of page that lies there, by a word of its host or path: forum, documentation, news, blog or other."""
    words = re.split(r"[/.?=&_-]", place.lower())
    found = {match.lastgroup for word in words if (match := _CATEGORY.match(word))}
    return next((name for name in _CATEGORIES if name in found), "other")


def site_of(url: str) -> str:
    """The registered domain of a page (example.co.uk), or the host where it has none, as an IP address has."""
    return _site(url.partition("://")[2].split("/", 1)[0].rpartition("@")[2])


@lru_cache(1 << 16)
def _site(host: str) -> str:
    name = host if host.startswith("[") else host.partition(":")[0]
    return _EXTRACT(name).top_domain_under_public_suffix or name
