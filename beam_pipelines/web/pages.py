"""Reads pages from crawls: WARC and WET files, FineWeb-like Parquet, JSON lines.

    python -m beam_pipelines pages --crawl=data/crawl --output=runs/web/pages

A page becomes a document whose repository is its site (the registered domain), whose path is where it lies there, and
whose language is the one that it's written in ("en"). HTML is read as html.py says: main content, code fenced and as it
was written. WET files and tables hold text already; a table's columns are named by PagesConfig, and one of HTML may
stand in place of the text.

Counted drops: http_status, not_html, no_url, too_large, too_deep, empty, same_id (a URL that the file holds already),
same_id_elsewhere (one that an earlier file holds), broken_json. A damaged record goes to quarantine, what stands before
and behind it is kept.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

from fastwarc.warc import WarcRecord, WarcRecordType
from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from resiliparse.parse.lang import detect_fast

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.languages.detect import Language
from opencoder_jax.beam_pipelines.sources.builder import document
from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Late, Row
from opencoder_jax.beam_pipelines.sources.formats.rows import TABLES
from opencoder_jax.beam_pipelines.sources.inputs import Unit, list_units, rows_of
from opencoder_jax.beam_pipelines.sources.units import USUAL, QuarantineConfig, collect_units
from opencoder_jax.beam_pipelines.web.addresses import normalised, place_of, site_of
from opencoder_jax.beam_pipelines.web.text.html import TooDeep, page_text
from opencoder_jax.beam_pipelines.web.warc import MOST_BYTES, Unread, records
from opencoder_jax.checks import between, check
from opencoder_jax.recipe import configurable

SPEED = 10.0  # megabytes of what is unpacked a second on one core
WARCS = tuple(kind + packed for kind in (".warc", ".wet") for packed in ("", ".gz"))
UNKNOWN = "und"  # ISO 639's code for a language that nobody could tell
_LOOKED_AT = 1_500  # characters by which a language is told
_FEWEST = 30  # letters among them
_FARTHEST = 1200  # resiliparse's distance from which on it isn't
_SCRIPTS = (  # and the share of letters that is enough, for the words beside them may be English
    ("ja", re.compile("[\u3040-\u30ff]"), 0.05),
    ("ko", re.compile("[\uac00-\ud7af]"), 0.1),
    ("zh", re.compile("[\u4e00-\u9fff]"), 0.1),
)
_HTML = re.compile(r"text/html|application/xhtml\+xml", re.I)
_FENCED = re.compile(r"^(`{3,}).*?^\1$", re.M | re.S)


@configurable
@dataclass(frozen=True)
class PagesConfig:
    """What a crawl's files hold.

    Attributes:
        max_page_bytes: larger pages are dropped.
        source: what documents call the crawl; by default what the column of that name says, or "web".
        url, text: a table's columns.
        html: a table's column of HTML, in place of the text.
        dump: a table's column of the crawl's name.
    """

    max_page_bytes: int = MOST_BYTES
    source: str = ""
    url: str = "url"
    text: str = "text"
    html: str = ""
    dump: str = "dump"

    def __post_init__(self) -> None:
        check(self, max_page_bytes=between(1, MOST_BYTES))


def language_of(text: str) -> str:
    """The language that a text is written in, as ISO 639 calls it; its code doesn't count.

    Of East Asian ones the script tells; others are resiliparse's to tell, by the frequency of their n-grams.
    """
    prose = _FENCED.sub(" ", text[:20_000])[:_LOOKED_AT]
    letters = sum(map(str.isalpha, prose))
    if letters < _FEWEST:
        return UNKNOWN
    for name, script, share in _SCRIPTS:
        if len(script.findall(prose)) > share * letters:
            return name
    name, _ = detect_fast(prose, cutoff=_FARTHEST)
    return UNKNOWN if name == "unknown" else str(name)


def read_pages(file: Unit, config: PagesConfig) -> Iterator[Row | Late]:
    """The pages of a file as documents and drops."""
    return _archived(file, config) if file.name.lower().endswith(WARCS) else _tabled(file, config)


def _archived(file: Unit, config: PagesConfig) -> Iterator[Row | Late]:
    with Directory(file.directory).fetch(file.name) as stream:
        for found in records(stream):
            if isinstance(found, Unread):
                if found.reason:
                    yield _drop(found.place, found.reason, f"{file.name}, {found.place}: {found.why}", found.size)
                else:
                    yield Late(found.place, partial(_raise, found.why), found.size)
            else:
                make = partial(_of_record, found.content, config)
                yield Late(found.place, make, len(found.content))


def _raise(why: str) -> NoReturn:
    raise Damaged(why)


def _of_record(content: bytes, config: PagesConfig) -> Row:
    """A record's page. Raises Damaged where it's no record, or what it holds doesn't unpack."""
    try:
        record = WarcRecord.from_bytes(content)
        if record.record_type not in (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion):
            return {"passed": f"{(record.headers.get('WARC-Type') or '')[:20]} record", "bytes": len(content)}
        url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
        kind, charset = record.headers.get("Content-Type") or "", ""
        if record.is_http:
            record.parse_http(auto_decode="all", quirks_mode=True)
            if record.http_headers is None:
                raise Damaged("no HTTP response")
            if record.http_headers.status_code != 200:
                return _drop(url, "http_status", f"{record.http_headers.status_code} {url}", len(content))
            kind, charset = record.http_content_type or "", record.http_charset or ""
        payload = record.reader.read(config.max_page_bytes + 1)
        time = _seconds(record.record_date)
    except (OSError, ValueError) as error:
        raise Damaged(str(error)) from None
    if len(payload) > config.max_page_bytes:
        return _drop(url, "too_large", f"more than {config.max_page_bytes} bytes: {url}", len(payload))
    if record.record_type == WarcRecordType.conversion:
        return _page(url, lambda: payload.decode("utf-8", "replace"), len(payload), config, time=time)
    if _HTML.search(kind) or (not kind and b"<" in payload[:1000]):
        return _page(url, lambda: _text_of_html(payload, charset), len(payload), config, time=time)
    if kind.lower().startswith("text/plain"):
        return _page(
            url, lambda: bytes_to_str(payload, charset or detect_encoding(payload) or "utf-8"), len(payload), config
        )
    return _drop(url, "not_html", f"{kind[:100]}: {url}", len(payload))


def _seconds(date: datetime | None) -> int:
    return int(date.timestamp()) if date else 0


def _text_of_html(content: bytes, charset: str) -> str:
    title, text, _ = page_text(content, charset)
    return f"{title}\n\n{text}" if title and text and not text.startswith(title) else text


def _tabled(file: Unit, config: PagesConfig) -> Iterator[Late]:
    columns = {"url": config.url, "text": config.html or config.text, "dump": config.dump}
    for number, row in rows_of(file, columns, ("url", "text"), lambda names: "see PagesConfig.url, .text and .html"):
        yield Late(f"row {number}", partial(_of_row, f"{file.name}, row {number}", row, config))


def _of_row(place: str, row: dict[str, Any] | str, config: PagesConfig) -> Row:
    if isinstance(row, str):
        return _drop(place, "broken_json", row, len(row))
    url, text = row["url"], row["text"]
    content = text if isinstance(text, bytes) else str(text or "").encode("utf-8", "replace")
    if len(content) > config.max_page_bytes:
        return _drop(place, "too_large", f"{len(content)} bytes: {url}", len(content))

    def made() -> str:
        return _text_of_html(content, "utf-8") if config.html else content.decode("utf-8", "replace")

    return _page(str(url or ""), made, len(content), config, dump=str(row["dump"] or ""))


def _page(url: str, made: Callable[[], str], size: int, config: PagesConfig, *, time: int = 0, dump: str = "") -> Row:
    try:
        place = normalised(url)
    except ValueError as error:
        return _drop(url[:200], "no_url", f"{error}: {url[:200]}", size)
    try:
        text = made()
    except TooDeep:
        return _drop(place, "too_deep", place, size)
    return document(
        site_of(place),
        place_of(place),
        text.encode("utf-8", "replace").decode(),
        source=config.source or dump or "web",
        language=Language(language_of(text), "web"),
        max_bytes=None,
        commit_time=time,
        url=place,
    )


def _drop(place: str, reason: str, detail: str, size: int) -> Row:
    return document("", place, b"", reason=reason, detail=detail, size=size, language=Language(UNKNOWN, "web"))


def run(
    crawl: Sequence[str],
    output: str,
    config: PagesConfig,
    options: BeamOptions,
    quarantine: QuarantineConfig = USUAL,
) -> Manifest:
    """Reads pages.

    Args:
        crawl: a WARC, WET, Parquet or JSON file, or a folder of them

    Raises:
        UserError: an input is missing, holds no page or nowhere the columns, or too much is damaged.
    """
    units = list_units(crawl, (*WARCS, *TABLES), output, options)
    return collect_units(__name__, units, read_pages, config, output, options, SPEED, quarantine)
