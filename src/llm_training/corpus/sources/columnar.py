"""What Parquet and Arrow files share: which columns are read, batches as rows, and errors in one line."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
import pyarrow as pa

from llm_training.errors import DataError
from llm_training.storage.oserrors import to_storage_error

# In the schema of a table that this program wrote: the column that holds the other fields of each document, as JSON.
JSON_COLUMN_KEY = b"llm-training.fields"
_ROWS_AT_ONCE = 256
_MAX_NAMED_COLUMNS = 8


@contextmanager
def columnar_errors(kind: str, shown: Any) -> Generator[None]:
    """Turn what pyarrow throws into DataError (damaged content) or StorageError (the system refused)."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise to_storage_error(error, "read a source file", shown) from None
        raise _damaged(kind, shown, error) from None
    except (pa.ArrowException, MemoryError) as error:
        raise _damaged(kind, shown, error) from None


def _damaged(kind: str, shown: Any, error: BaseException) -> DataError:
    message = next(iter(str(error).splitlines()), "") or type(error).__name__
    return DataError(f"{kind} file is damaged or cut off ({message[:160]})", where=str(shown), remedy="copy or write the file again")


def wanted_columns(schema: pa.Schema, text_field: str, shown: object) -> list[str]:
    """The text and the columns of short values; what is nested or binary is not read. Raises DataError without a text."""
    if text_field not in schema.names:
        names = ", ".join(schema.names[:_MAX_NAMED_COLUMNS])
        raise DataError(f"no column {text_field!r} (columns: {names})", where=str(shown), remedy="name it with --text-field")
    return [field.name for field in schema if field.name == text_field or _is_short(field.type)]


def _is_short(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(value) for test in (_is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def rows_of_batch(batch: pa.RecordBatch, columns: Sequence[str], skip: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of a batch from ``skip`` on, one at a time; a string that is not UTF-8 comes as its bytes.

    Raises pyarrow's errors for offsets that point outside of their buffers.
    """
    values = [_values(batch.column(batch.schema.get_field_index(name)).slice(skip)) for name in columns]
    for row in zip(*values, strict=True):
        yield dict(zip(columns, row, strict=True))


def unpacked(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Rows with the fields of the JSON column of a prepared table as fields of their own; of other tables as they are."""
    name = (schema.metadata or {}).get(JSON_COLUMN_KEY)
    return rows if name is None else (_with_fields(row, name.decode(errors="replace")) for row in rows)


def _with_fields(row: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        fields = orjson.loads(row[name])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return row
    return {**fields, **{key: value for key, value in row.items() if key != name}} if isinstance(fields, dict) else row


def _values(array: pa.Array) -> Iterator[Any]:
    """Values one by one: a dictionary is looked up and not written out, for one long text may stand in a million rows."""
    if pa.types.is_dictionary(array.type):
        array.indices.validate(full=True)
        entries = _as_bytes(array.dictionary)
        return (None if index is None else _decoded(_entry(entries, index)) for index in _numbers(array.indices))
    if _is_string(array.type):
        return (_decoded(scalar.as_py()) for scalar in _as_bytes(array))
    array.validate(full=True)
    return _numbers(array)


def _entry(entries: pa.Array, index: int) -> Any:
    if not 0 <= index < len(entries):
        raise pa.ArrowInvalid(f"dictionary index {index} of {len(entries)}")
    return entries[index].as_py()


def _as_bytes(array: pa.Array) -> pa.Array:
    """Strings as bytes, offsets checked: reading strings at unchecked offsets can crash."""
    if pa.types.is_string_view(array.type):
        array.validate(full=True)
        array = array.cast(pa.large_string())
    if pa.types.is_string(array.type):
        array = array.view(pa.binary())
    elif pa.types.is_large_string(array.type):
        array = array.view(pa.large_binary())
    array.validate(full=True)
    return array


def _numbers(array: pa.Array) -> Iterator[Any]:
    for start in range(0, len(array), _ROWS_AT_ONCE):
        yield from array.slice(start, _ROWS_AT_ONCE).to_pylist()


def _decoded(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
