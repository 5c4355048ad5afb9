"""Bytes of crawls for tests: WARC records, whole files, and how they break."""

import gzip
from collections.abc import Sequence


def record(kind: str, url: str, content: bytes, content_type: str) -> bytes:
    """A WARC record."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-05-06T07:08:09Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content + b"\r\n\r\n"


def response(url: str, html: bytes, *, kind: str = "text/html", status: str = "200 OK", more: str = "") -> bytes:
    """A record of a server's answer; `more`: heads, each with its line's end."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(html)}\r\n\r\n"
    return record("response", url, head.encode() + html, "application/http; msgtype=response")


def members(records: Sequence[bytes]) -> bytes:
    """A .warc.gz as Common Crawl writes it: a member a record."""
    return b"".join(gzip.compress(each, mtime=0) for each in records)


def simple(title: str, *paragraphs: str) -> bytes:
    """A page of a title and paragraphs."""
    body = "".join(f"<p>{each}</p>" for each in paragraphs)
    return f"<html><head><title>{title}</title></head><body><main>{body}</main></body></html>".encode()
