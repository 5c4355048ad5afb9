"""The rows of Parquet, JSON and CSV files, by names of our own for their columns; a dot leads into a nested one.

.parquet, .jsonl and .json are read, the last two also with .gz or .zst: a row a line, or one array of rows. Small side
tables may be .csv too. Of a table no more is held than some megabytes, whatever it unpacks to: texts of Parquet stay in
its dictionary until their row comes, rows are read by their bytes, and a row that is too long is none.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.sources.formats.members import LATEST, Damaged
from opencoder_jax.beam_pipelines.sources.formats.streams import Readable, unpacked

TABLES = (".parquet", *(kind + packed for kind in (".jsonl", ".json") for packed in ("", ".gz", ".zst")))

_BLOCK = 1 << 20  # bytes that are read at once
_ROWS = 256  # of Parquet at a time, …
_BYTES = 32_000_000  # … and their bytes, about
_LONGEST = 64_000_000  # bytes of a row
_BETWEEN = re.compile(r"\s*,?\s*")  # elements of an array
_LINE = re.compile(rb"\r\n|\r(?!\Z)|\n")
_WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

Rows = Iterator[tuple[int, dict[str, Any] | str]]
Require = Callable[[Sequence[str]], None]  # raises for names of columns among which a required one isn't


def read_rows(stream: pa.NativeFile, name: str, columns: Mapping[str, str], require: Require) -> Rows:
    """The rows of a file: (its number there, its fields by our names, or why it has none).

    Times are seconds since 1970; of a text that is no UTF-8, and of a binary column, there are the bytes.

    Args:
        name: of the file.
        columns: our name -> the column's. One that isn't there is None in every row.
        require: called with the columns' names, before the first row.

    Raises:
        Damaged, Untrusted: the file can't be read, or not to its end.
    """
    kind = next((ending for ending in (".parquet", ".csv") if name.lower().endswith(ending)), "")
    read = {".parquet": _parquet_rows, ".csv": _csv_rows}.get(kind)
    try:
        if read:
            yield from read(stream, columns, require)
        else:
            packed = name.lower().rpartition(".")[2]
            yield from _json_rows(unpacked(stream, packed) if packed in ("gz", "zst") else stream, columns, require)
    except (pa.ArrowException, OSError) as error:
        raise Damaged(" ".join(str(error).split())) from None


def _csv_rows(stream: pa.NativeFile, columns: Mapping[str, str], require: Require) -> Rows:
    table = pyarrow.csv.read_csv(stream)
    require(table.column_names)
    for number, row in enumerate(row for batch in table.to_batches() for row in batch.to_pylist()):
        yield number, {name: row.get(column) for name, column in columns.items()}


# ----------------------------------------------------------------------------------------------------------- Parquet


def _parquet_rows(stream: pa.NativeFile, columns: Mapping[str, str], require: Require) -> Rows:
    plain = pq.ParquetFile(stream)
    names = plain.schema_arrow.names
    require(names)
    wanted = sorted({column for column in columns.values() if column.split(".")[0] in names})
    leaves = [plain.schema.column(number) for number in range(len(plain.schema))]
    places = [place for place, leaf in enumerate(leaves) if any(f"{leaf.path}.".startswith(f"{w}.") for w in wanted)]
    texts = [leaves[place].path for place in places if leaves[place].physical_type == "BYTE_ARRAY"]
    file = pq.ParquetFile(
        stream,
        metadata=plain.metadata,
        read_dictionary=texts,
        buffer_size=_BLOCK,
        page_checksum_verification=True,  # where there are any
    )
    number = 0
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        size = sum(max(0, about.column(place).total_uncompressed_size) for place in places)
        row = size // max(1, about.num_rows)
        if row > _LONGEST:
            raise Damaged(f"rows of {row} bytes in row group {group}; more than {_LONGEST} aren't read")
        rows = min(_ROWS, max(1, _BYTES // max(1, row)))
        for batch in file.iter_batches(rows, row_groups=[group], columns=wanted):
            found = {name: _values(_nested(batch, column), batch.num_rows) for name, column in columns.items()}
            for index in range(batch.num_rows):
                yield number, {name: values[index] for name, values in found.items()}
                number += 1


def _nested(batch: pa.RecordBatch, column: str) -> pa.Array | None:
    """A column of a batch, or a field of one; the first of two with one name."""
    first, *steps = column.split(".")
    place = next((place for place, name in enumerate(batch.schema.names) if name == first), None)
    found = None if place is None else batch.column(place)
    for step in steps:
        known = found is not None and pa.types.is_struct(found.type) and found.type.get_field_index(step) >= 0
        found = pc.struct_field(found, step) if known else None
    return found


def _values(column: pa.Array | None, rows: int) -> list[Any]:
    """The values of a column; None for one that Python has no value for, as a time in the year 99999."""
    if column is None:
        return [None] * rows
    if pa.types.is_dictionary(column.type):
        # Each value that is used once, as a dictionary is often large, and each of its values too.
        used = pc.unique(column.indices.drop_null())
        values = dict(zip(used.to_pylist(), _values(column.dictionary.take(used), len(used)), strict=True))
        return [values.get(index) for index in column.indices.to_pylist()]
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    if pa.types.is_timestamp(column.type):
        unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
        times = [None if time is None else time // unit for time in column.cast(pa.int64()).to_pylist()]
        return [time if time is not None and 0 <= time < LATEST else None for time in times]
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes() if hasattr(scalar, "as_buffer") else None
    except (ValueError, OverflowError, pa.ArrowException):
        return None


# -------------------------------------------------------------------------------------------------------------- JSON


def _json_rows(stream: Readable, columns: Mapping[str, str], require: Require) -> Rows:
    blocks: Iterable[bytes] = iter(lambda: stream.read(_BLOCK), b"")
    head = next(iter(blocks), b"")
    blocks = chain([head], blocks)
    if wide := next((encoding for mark, encoding in _WIDE.items() if head.startswith(mark)), None):
        blocks = (text.encode("utf-8", "surrogatepass") for text in codecs.iterdecode(blocks, wide, "replace"))
        head = next(iter(blocks), b"")
        blocks = chain([head], blocks)
    if head.startswith(codecs.BOM_UTF8):
        head = head.removeprefix(codecs.BOM_UTF8)
        blocks = chain([head], islice(blocks, 1, None))
    kind, values = ("element", _elements(blocks)) if head.lstrip()[:1] == b"[" else ("line", _lines(blocks))
    first = True
    for number, row in values:
        if isinstance(row, ValueError):
            yield number, f"{kind} {number}: {row}"
        elif not isinstance(row, dict):
            yield number, f"{kind} {number}: no JSON object"
        else:
            if first:
                require(list(row))
            first = False
            yield number, {name: _field(row, column) for name, column in columns.items()}


def _lines(blocks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """The value of each line that isn't empty, or the ValueError, with the line's number."""
    for number, line in enumerate(_split(blocks), 1):
        if line is None:
            yield number, ValueError(f"longer than {_LONGEST} bytes")
        elif line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                yield number, error
            except RecursionError:
                yield number, ValueError("too deeply nested")


def _split(blocks: Iterable[bytes]) -> Iterator[bytes | None]:
    """Lines, however they end; None for one that is too long to be held."""
    rest, too_long = b"", False
    for block in blocks:
        data = rest + block
        *whole, rest = _LINE.split(data) if b"\r" in data else data.split(b"\n")
        for line in whole:
            yield None if too_long else line
            too_long = False
        if len(rest) > _LONGEST:
            rest, too_long = b"", True
    yield None if too_long else rest


def _elements(blocks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """The elements of one array, with their numbers from 1; only the one that is parsed is held in memory."""
    texts = codecs.iterdecode(blocks, "utf-8", "surrogateescape")
    parse = json.JSONDecoder().raw_decode
    text = next(texts)
    at, number = text.index("[") + 1, 0
    while True:
        found = _BETWEEN.match(text, at)
        at = found.end() if found else at
        if text[at : at + 1] == "]":
            if text[at + 1 :].strip() or any(more.strip() for more in texts):
                raise Damaged(f"something stands behind the array of {number} elements")
            return
        try:
            value, at = parse(text, at)
        except RecursionError:
            raise Damaged(f"element {number + 1} is too deeply nested") from None
        except ValueError as error:
            # Broken, or not all of it is here: twice as much is read, so that the work stays in proportion.
            more = "".join(islice(texts, 1 + (len(text) - at) // _BLOCK)) if len(text) - at < _LONGEST else ""
            if not more:
                raise Damaged(f"element {number + 1}: {error}") from None
            text, at = text[at:] + more, 0
            continue
        number += 1
        yield number, value


def _field(row: Mapping[str, Any], column: str) -> Any:
    value: Any = row
    for step in column.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def integer(value: Any) -> int:
    """A field that should be a whole number; 0 where it's none."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def epoch_seconds(value: Any) -> int:
    """Seconds since 1970 of a number, or of a time's ISO text; 0 where it's none.

    A number that would be a time after 2106 counts thousandths of a second, or of those, as often as need be.
    """
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value.strip())
            return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            pass
    number = integer(value)
    for _ in range(3):
        number = number // 1000 if number >= LATEST else number
    return number
