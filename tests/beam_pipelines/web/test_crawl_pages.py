"""Pages of crawls: what comes in, what is dropped and why, and that nothing broken costs more than itself."""

import gzip
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crawls import members, record, response, simple
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources.formats.members import Damaged
from opencoder_jax.beam_pipelines.sources.units import QuarantineConfig
from opencoder_jax.beam_pipelines.web.addresses import normalised, place_of, site_of
from opencoder_jax.beam_pipelines.web.pages import PagesConfig, language_of, run
from opencoder_jax.beam_pipelines.web.warc import Record, Unread, records
from opencoder_jax.recipe import UserError

WORDS = "Some plain words about a function that returns the sum of two numbers, as every book of its kind has it."
PAGES = [response(f"https://example.org/{number}", simple(f"Page {number}", WORDS)) for number in range(6)]


def pages_of(folder: Path, share: float = 1.0, **config: Any) -> tuple[Manifest, list[dict[str, Any]]]:
    output = folder.with_name(f"{folder.name}.pages")
    manifest = run([str(folder)], str(output), PagesConfig(**config), BeamOptions(), QuarantineConfig(share))
    return manifest, [row for name in manifest.shards() for row in pq.read_table(output / name).to_pylist()]


def crawl(place: Path, content: bytes, name: str = "a.warc.gz") -> Path:
    (place / "crawl").mkdir(exist_ok=True)
    (place / "crawl" / name).write_bytes(content)
    return place / "crawl"


def test_a_crawl_of_every_kind(tmp_path: Path) -> None:
    code = "def add(a, b):\n    return a + b"
    html = simple("Häuser", "Der Hund läuft über die Straße und sucht die Katze, die er gestern im Garten sah.")
    answers = [
        record("warcinfo", "", b"software: none\r\n", "application/warc-fields"),
        response(
            "HTTP://WWW.Example.co.uk:80/a?utm_source=x&b=2&a=1#top", simple("Adding", WORDS, f"<pre>{code}</pre>")
        ),
        response("http://de.example.com/", html.decode().encode("latin-1"), kind="text/html; charset=iso-8859-1"),
        response("https://zh.example.cn/", simple("函数", "这是一个中文网页,关于编程语言和函数的文章。" * 4)),
        response("https://example.org/gone", b"<p>gone</p>", status="404 Not Found"),
        response("https://example.org/picture", b"\x89PNG\r\n", kind="image/png"),
        response("https://example.org/zip", gzip.compress(simple("Packed", WORDS)), more="Content-Encoding: gzip\r\n"),
        response("https://example.org/empty", b"<html></html>"),
        response("ftp://example.org/", simple("No page", WORDS)),
        response("https://example.org/deep", b"<div>" * 100_000 + b"deep"),
        record("conversion", "https://example.net/wet", WORDS.encode(), "text/plain"),
    ]
    manifest, rows = pages_of(crawl(tmp_path, members(answers)))
    by_url = {row["url"]: row for row in rows}
    assert list(by_url) == [
        "http://www.example.co.uk/a?a=1&b=2",
        "http://de.example.com/",
        "https://zh.example.cn/",
        "https://example.org/zip",
        "https://example.net/wet",
    ]
    adding = by_url["http://www.example.co.uk/a?a=1&b=2"]
    assert f"```\n{code}\n```" in adding["text"]
    assert adding["text"].startswith("Adding\n\n")
    assert (adding["repository"], adding["path"]) == ("example.co.uk", "example.co.uk/a?a=1&b=2")
    assert (adding["kind"], adding["source"], adding["commit_time"]) == ("web", "web", 1714979289)
    assert "über die Straße" in by_url["http://de.example.com/"]["text"]
    assert [row["language"] for row in rows] == ["en", "de", "zh", "en", "en"]
    assert manifest.table("drop", "documents") == {
        "http_status": 1,
        "not_html": 1,
        "empty": 1,
        "no_url": 1,
        "too_deep": 1,
    }
    assert manifest.table("count") == {"warcinfo record": 1}


def test_tables_name_their_columns(tmp_path: Path) -> None:
    folder = tmp_path / "crawl"
    folder.mkdir()
    rows = [{"url": f"https://a{n}.org/x", "text": WORDS, "dump": "CC-MAIN-2024-10"} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    lines = [json.dumps({"url": "https://b.org/y", "text": WORDS}), "{", json.dumps({"url": None, "text": WORDS})]
    (folder / "b.jsonl").write_text("\n".join(lines))
    manifest, found = pages_of(folder)
    assert [(row["repository"], row["source"]) for row in found] == [
        *((f"a{n}.org", "CC-MAIN-2024-10") for n in range(3)),
        ("b.org", "web"),
    ]
    assert manifest.table("drop", "documents") == {"broken_json": 1, "no_url": 1}

    pq.write_table(pa.table({"address": ["https://c.org/"], "page": [simple("T", WORDS)]}), folder / "a.parquet")
    (folder / "b.jsonl").unlink()
    _, found = pages_of(folder, url="address", html="page")
    assert [row["text"] for row in found] == [f"T\n\n{WORDS}"]
    with pytest.raises(UserError, match=r"no column 'url' in address, page; see PagesConfig"):
        pages_of(folder)


@pytest.mark.parametrize("packing", ["members", "one member", "plain"])
def test_a_damaged_record_costs_itself(tmp_path: Path, packing: str) -> None:
    """Cut short or with a wrong length in the middle of a file, however it's packed."""
    short = PAGES[2][:-200]
    lying = PAGES[4].replace(b"Content-Length: ", b"Content-Length: 9", 1)
    broken = [*PAGES[:2], short, PAGES[3], lying, PAGES[5]]
    content = {"members": members(broken), "one member": gzip.compress(b"".join(broken)), "plain": b"".join(broken)}
    name = "a.warc" if packing == "plain" else "a.warc.gz"
    manifest, rows = pages_of(crawl(tmp_path, content[packing], name))
    kept = {row["url"][-1] for row in rows}
    assert kept == {"0", "1", "3", "5"}
    assert manifest.table("quarantine", "documents") == {"Damaged": 2}
    assert sum(manifest.table("quarantine", "units").values()) == 0


def test_damaged_members_cost_themselves(tmp_path: Path) -> None:
    packed = [gzip.compress(each) for each in PAGES]
    packed[1] = packed[1][: len(packed[1]) // 2]  # cut short
    packed[3] = packed[3][:-8] + b"\0" * 8  # its checksum is wrong
    packed[4] = packed[4][:-30] + b"\xff\xff\xff" + packed[4][-27:]
    manifest, rows = pages_of(crawl(tmp_path, b"".join(packed)))
    assert [row["url"][-1] for row in rows] == ["0", "2", "5"]
    assert manifest.table("quarantine", "documents") == {"Damaged": 3}
    with pytest.raises(UserError, match="in quarantine, 0 of 1 units"):
        pages_of(crawl(tmp_path, b"".join(packed)), share=0.1)


@pytest.mark.slow
def test_what_is_large_is_passed_over(tmp_path: Path) -> None:
    large = response("https://example.org/large", b"<p>" + b"word " * 20_000_000)  # 100 MB
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
    inner = record("response", "https://example.org/bomb", head + gzip.compress(b"0" * 50_000_000), "application/http")
    squeeze = zlib.compressobj(1, wbits=31)
    bomb = squeeze.compress(PAGES[1])  # a page, and behind it 400 MB that are none
    bomb += b"".join(squeeze.compress(b"\0" * 10_000_000) for _ in range(40)) + squeeze.flush()
    content = b"".join([*map(gzip.compress, (PAGES[0], large, inner)), bomb, gzip.compress(PAGES[2])])
    manifest, rows = pages_of(crawl(tmp_path, content))
    assert [row["url"][-1] for row in rows] == ["0", "2"]
    assert manifest.table("drop", "documents") == {"too_large": 2}
    assert manifest.table("quarantine", "documents") == {"Damaged": 1}


def test_no_warc_file_at_all(tmp_path: Path) -> None:
    folder = crawl(tmp_path, members(PAGES[:1]))
    for name, content in (("b.warc", b"<html>"), ("c.warc.gz", b""), ("d.wet.gz", gzip.compress(b"nothing"))):
        (folder / name).write_bytes(content)
    manifest, rows = pages_of(folder)
    assert len(rows) == 1
    assert manifest.table("quarantine", "documents") == {"Damaged": 3}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["flip", "cut", "insert"]), st.booleans())
def test_one_fault_costs_at_most_two_records(seed: int, fault: str, packed: bool) -> None:
    """Wherever it is: what is read is what was written, and all but what the fault touched is."""
    rng = random.Random(seed)
    content = members(PAGES) if packed else b"".join(PAGES)
    at = rng.randrange(10, len(content))
    rest = content[at + (fault == "flip") :] if fault != "cut" else content[at + rng.randint(1, 50) :]
    broken = content[:at] + (b"" if fault == "cut" else bytes([rng.randrange(256)])) + rest
    try:
        found = list(records(pa.BufferReader(broken)))
    except Damaged:
        return
    read = {each.content.rstrip() for each in found if isinstance(each, Record)}
    whole = {page.rstrip() for page in PAGES}
    assert len(read & whole) >= len(PAGES) - 2
    if packed:
        assert read <= whole  # the checksum tells
        assert len(read) == len(PAGES) or any(isinstance(each, Unread) for each in found) or fault == "insert"


def test_addresses() -> None:
    same = {"http://a.org", "HTTP://A.org:80/", "http://a.org./#x", "http://a.org/?utm_medium=b", " http://a.org/ "}
    assert {normalised(url) for url in same} == {"http://a.org/"}
    assert normalised("https://b.org/%7Eme/a b?z=1&y=%20") == "https://b.org/~me/a%20b?y=+&z=1"
    assert normalised("https://münchen.de/ä") == "https://xn--mnchen-3ya.de/%C3%A4"
    for wrong in ("", "mailto:a@b.org", "https://", "a.org", "http://a b.org/", "http://a.org:x/", "http://[::1/"):
        with pytest.raises(ValueError, match=r"."):
            normalised(wrong)
    assert place_of("https://www.a.org/b") == "a.org/b"
    assert site_of("https://docs.python.org:8/3/") == "python.org"
    assert site_of("https://a.b.example.co.uk/") == "example.co.uk"
    assert site_of("https://someone.github.io/") == "someone.github.io"
    assert [site_of(f"http://{host}/") for host in ("127.0.0.1", "[::1]:80", "localhost")] == [
        "127.0.0.1",
        "[::1]:80",
        "localhost",
    ]


@settings(deadline=None)
@given(st.text(max_size=80))
@example("%2541 100%25 %zz")
def test_an_address_is_its_own_normal_form(text: str) -> None:
    try:
        url = normalised(f"https://example.org/{text}")
    except ValueError:
        return
    assert normalised(url) == url
    assert site_of(url) == "example.org"


def test_languages_are_told_by_prose() -> None:
    assert language_of("12 | 14 | 99\n" * 50) == "und"
    assert language_of("```python\ndef f(x):\n    return x\n```\n" * 5) == "und"
    assert language_of("これは日本語のページです。プログラムについて。" * 5) == "ja"
    assert language_of("이것은 프로그래밍에 대한 한국어 페이지입니다. " * 5) == "ko"
    assert language_of("Это страница о программировании на русском языке, и она довольно длинная.") == "ru"
