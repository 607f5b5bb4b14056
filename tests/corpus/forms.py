"""The same documents in every form that a source may have."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

TEXTS = [f'document {number} é "quoted", with a comma;\nand a second line\n' + "word " * number for number in range(60)]

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def as_lines(texts: Sequence[str]) -> bytes:
    """JSON Lines."""
    return b"".join(json.dumps({"text": text, "n": number}).encode() + b"\n" for number, text in enumerate(texts))


def as_array(texts: Sequence[str]) -> bytes:
    """A JSON array."""
    return json.dumps([{"text": text, "n": number} for number, text in enumerate(texts)], indent=1).encode()


def as_csv(texts: Sequence[str], delimiter: str = ",", line_end: str = "\n") -> bytes:
    """Rows under a header."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end)
    writer.writerow(["n", "text"])
    writer.writerows(enumerate(texts))
    return out.getvalue().encode()


def as_table(texts: Sequence[str]) -> pa.Table:
    """A table with a nested column that nobody reads."""
    return pa.table({"n": list(range(len(texts))), "text": list(texts), "nested": [[1, 2]] * len(texts)})


def as_parquet(texts: Sequence[str], rows: int = 7, **options: object) -> bytes:
    """Parquet with small row groups."""
    out = io.BytesIO()
    pq.write_table(as_table(texts), out, row_group_size=rows, **options)  # pyright: ignore[reportArgumentType]
    return out.getvalue()


def as_arrow(texts: Sequence[str], *, is_file: bool = True, rows: int = 7, compression: str | None = None) -> bytes:
    """Arrow IPC with small batches."""
    out = io.BytesIO()
    table = as_table(texts)
    open_writer = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with open_writer(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def warc_record(kind: str, content: bytes, number: int, **fields: str) -> bytes:
    """One record of an archive."""
    head = {"WARC-Type": kind, "WARC-Record-ID": f"<urn:uuid:{number:08}>", "WARC-Date": "2026-01-01T00:00:00Z"}
    if kind == "response":
        head["Content-Type"] = "application/http; msgtype=response"
    head |= fields
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in head.items())
    return f"WARC/1.0\r\n{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content + b"\r\n\r\n"


def as_wet(texts: Sequence[str]) -> bytes:
    """Extracted text, as Common Crawl has it."""
    head = warc_record("warcinfo", b"software: none\r\n", 0, Content_Type="application/warc-fields")
    pages = (
        warc_record("conversion", text.encode(), number, WARC_Target_URI=f"https://example.org/{number}", Content_Type="text/plain")
        for number, text in enumerate(texts, 1)
    )
    return head + b"".join(pages)


def response(body: bytes, status: str = "200 OK", content_type: str = "text/html; charset=utf-8", extra: str = "") -> bytes:
    """What a server sends."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{extra}\r\n".encode() + body


FORMS: dict[str, Callable[[Sequence[str]], bytes]] = {
    "a.jsonl": as_lines,
    "b.json": as_array,
    "c.csv": as_csv,
    "d.tsv": lambda texts: as_csv(texts, "\t"),
    "e.csv": lambda texts: as_csv(texts, ";", "\r\n"),
    "f.arrow": as_arrow,
    "g.arrows": lambda texts: as_arrow(texts, is_file=False),
    "h.feather": lambda texts: as_arrow(texts, compression="zstd"),
    "i.wet": as_wet,
}


def write_forms(folder: Path, texts: Sequence[str] = TEXTS, compressions: Sequence[str] = tuple(COMPRESSIONS)) -> list[Path]:
    """Every form in every compression that it may have."""
    made = []
    for name, form in FORMS.items():
        for suffix in compressions:
            path = folder / (name + suffix)
            path.write_bytes(COMPRESSIONS[suffix](form(texts)))
            made.append(path)
    path = folder / "j.parquet"
    path.write_bytes(as_parquet(texts))
    return [*made, path]
