"""The record: what was kept is found, whatever kills its process; what was damaged is told."""

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opencoder_jax.clients.openai_client import ServerReply
from opencoder_jax.clients.recorded_answers import FILE, RecordedAnswers, request_key
from opencoder_jax.recipe import UserError


def body(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "seed": 1}


def fill(folder: Path, texts: list[str]) -> None:
    with RecordedAnswers(folder) as record:
        for text in texts:
            record.keep("p", body(text), ServerReply(text.upper(), "stop", len(text), 2))


TEXTS = st.lists(st.text(max_size=20), min_size=1, max_size=6, unique=True)


@given(TEXTS, st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_anywhere_it_holds_all_whole_lines_and_goes_on(
    tmp_path: Path, texts: list[str], data: st.DataObject
) -> None:
    file = tmp_path / FILE
    file.unlink(missing_ok=True)  # of the example before
    fill(tmp_path, texts)
    whole = file.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    file.write_bytes(whole[:cut])
    left = whole[:cut].count(b"\n")
    with RecordedAnswers(tmp_path) as record:
        found = [record.find(request_key("p", body(text))) for text in texts]
        assert [reply.text if reply else None for reply in found] == [
            text.upper() if number < left else None for number, text in enumerate(texts)
        ]
    fill(tmp_path, texts[left:])
    assert file.read_bytes() == whole


def test_a_line_that_was_changed_is_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b", "c"])
    file = tmp_path / FILE
    lines = file.read_bytes().splitlines(keepends=True)
    for damaged in (lines[1].replace(b'"B"', b'"D"'), b"\n", b"{}\n", b"not JSON\n"):
        file.write_bytes(lines[0] + damaged + lines[2])
        with pytest.raises(UserError, match="line 2: damaged after it was written; delete that line"):
            RecordedAnswers(tmp_path)
        assert file.read_bytes() == lines[0] + damaged + lines[2]


def test_a_request_is_its_content() -> None:
    keys = {request_key("p", {"a": 1, "b": 2}), request_key("p", {"b": 2, "a": 1})}
    assert len(keys) == 1
    assert len({request_key("p", {"a": 1}), request_key("q", {"a": 1}), request_key("p", {"a": "1"}), *keys}) == 4
    assert len(request_key("p", {"a": "\ud800"})) == 32  # half a character, as models write it


def test_one_process_at_a_time_and_many_threads(tmp_path: Path) -> None:
    with RecordedAnswers(tmp_path) as record:
        with pytest.raises(UserError, match="another process"):
            RecordedAnswers(tmp_path)

        def keep(first: int) -> None:
            for number in range(first, 200, 4):
                record.keep("p", body(str(number)), ServerReply(str(number) * 50, None, 1))

        threads = [threading.Thread(target=keep, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with RecordedAnswers(tmp_path) as record:
        assert len(record) == 200
        assert sorted(int(each["request"]["messages"][0]["content"]) for each in record.all()) == list(range(200))


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["a"])
    with RecordedAnswers(tmp_path) as record:
        write, left = os.write, [5]

        def full(file: int, data: bytes) -> int:
            if not left:
                raise OSError(28, "No space left on device")
            return write(file, data[: left.pop()])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            record.keep("p", body("b"), ServerReply("B", None, 1))
        monkeypatch.undo()
        record.keep("p", body("c"), ServerReply("C", None, 1))
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line)["reply"]["text"] for line in lines] == ["A", "C"]
