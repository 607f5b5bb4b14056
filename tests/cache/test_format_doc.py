"""The snippet of docs/cache-format.md reads what the program reads."""

import re

import numpy as np
import pyarrow as pa
import pytest

from llm_training.cache.pins import pin_all
from llm_training.cache.reader import PackedDataset


@pytest.fixture
def snippet(repository):
    found = re.search(r"```python\n(.*?)```", (repository / "docs" / "cache-format.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found.group(1)


def test_the_documented_snippet_gives_the_rows_of_the_reader(built, snippet):
    view = built.view(32)
    scope = {"cache": built.root, "dataset": "toy-ffffffff", "length": 32}
    exec(compile(snippet, "cache-format.md", "exec"), scope)
    count = view.records[0].num_rows
    rows = PackedDataset(built.store(), view, pin_all(view)).rows(np.arange(count))
    assert np.array_equal(scope["rows"], rows.input_ids)


def test_the_documented_columns_are_those_of_the_file(built, repository):
    text = (repository / "docs" / "cache-format.md").read_text(encoding="utf-8")
    with pa.ipc.open_file(built.directory / "chunk_000000.arrow") as file:
        columns, metadata = file.schema.names, file.schema.metadata
    assert re.findall(r"^\| `(\w+)` \| (?:string|int|list)", text, re.MULTILINE) == columns
    assert set(metadata) == {b"format", b"version", b"number", b"split", b"tokenizer", b"vocab_size", b"separator_id"}
