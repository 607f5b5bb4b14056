"""Run in a process of its own: write a source of a given size and form, plan it, read it, print the peaks as JSON."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llm_training.corpus import CorpusSettings, SliceReader, make_plan, open_corpus

_SENTENCES = [" ".join(f"word{number * index % 4_999}" for index in range(1, 14)) + "." for number in range(2_000)]
_BATCH = 500
# Bytes of one more document, for the writers.
LONG = int(os.environ.get("SOURCE_MEMORY_LONG", "0"))


def texts(num_bytes: int) -> Iterator[str]:
    """Documents of 2 to 6 kB until there are enough bytes; before them one of ``LONG`` bytes."""
    choose = random.Random(1)
    if LONG:
        yield "long " * (LONG // 5)
    while num_bytes > 0:
        text = " ".join(choose.choices(_SENTENCES, k=choose.randrange(20, 60)))
        num_bytes -= len(text)
        yield text


def _tables(num_bytes: int) -> Iterator[pa.Table]:
    group: list[str] = []
    for text in texts(num_bytes):
        group.append(text)
        if len(group) == _BATCH:
            yield pa.table({"text": group})
            group = []
    yield pa.table({"text": group})


def _write_jsonl(path: Path, num_bytes: int) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts(num_bytes))


def _write_jsonl_gz(path: Path, num_bytes: int) -> None:
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts(num_bytes))


def _write_csv(path: Path, num_bytes: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([text] for text in texts(num_bytes))


def _write_parquet(path: Path, num_bytes: int) -> None:
    """Row groups of 64 MB, as data sets on the Hub have them."""
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        tables: list[pa.Table] = []
        for table in _tables(num_bytes):
            tables.append(table)
            if len(tables) * _BATCH * 4_000 > 64_000_000:
                writer.write_table(pa.concat_tables(tables), row_group_size=1 << 30)
                tables = []
        if tables:
            writer.write_table(pa.concat_tables(tables), row_group_size=1 << 30)


def _write_arrow(path: Path, num_bytes: int) -> None:
    with pa.ipc.new_file(path, pa.schema([("text", pa.string())])) as writer:
        for table in _tables(num_bytes):
            writer.write_table(table)


def _write_warc(path: Path, num_bytes: int) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for number, text in enumerate(texts(num_bytes)):
            page = f"<html><body><p>{text}</p></body></html>".encode()
            body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
            head = io.BytesIO()
            head.write(f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n".encode())
            head.write(f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            file.write(head.getvalue() + body + b"\r\n\r\n")


WRITERS = {
    "x.jsonl": _write_jsonl,
    "x.jsonl.gz": _write_jsonl_gz,
    "x.csv": _write_csv,
    "x.parquet": _write_parquet,
    "x.arrow": _write_arrow,
    "x.warc.gz": _write_warc,
}


def peak_bytes() -> int:
    """Most memory this program ever held. Not ``ru_maxrss``, which begins with that of the process that started it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    """``write|read FOLDER NAME BYTES [SLICE_BYTES]``."""
    verb, folder, name, size, *rest = sys.argv[1:]
    path = Path(folder) / name
    if verb == "write":
        WRITERS[name](path, int(size))
        return
    settings = CorpusSettings(slice_bytes=int(rest[0])) if rest else CorpusSettings()
    before = peak_bytes()
    corpus = open_corpus([str(path)], settings)
    reader = SliceReader(corpus, make_plan(corpus))
    count = num_bytes = 0
    for document in reader.documents():
        count += 1
        num_bytes += len(document.text)
    reader.close()
    print(json.dumps({"before": before, "peak": peak_bytes(), "documents": count, "bytes": num_bytes}))


if __name__ == "__main__":
    main()
