"""The usual way from text to a file of tokens, as a process of its own: `datasets.map` with a fast tokenizer, then a memmap.

    python -m benchmarks.usual_way TEXT_FOLDER TOKENIZER_JSON TARGET_FOLDER [PROCESSES]

Load the JSON Lines with `datasets`, tokenise batched in two processes, append the separator, and write the ids as uint16
shard by shard: what nanoGPT's and many other preparation scripts do. Prints JSON: seconds (imports left out) and tokens.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SEPARATOR = "<|endoftext|>"
SHARDS = 64


def pack(text: Path, tokenizer_file: Path, target: Path, processes: int) -> dict[str, float]:
    """Do it once, into an empty folder."""
    import numpy as np
    from datasets import concatenate_datasets, load_dataset
    from transformers import PreTrainedTokenizerFast

    start = time.perf_counter()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file), eos_token=SEPARATOR)
    separator = tokenizer.convert_tokens_to_ids(SEPARATOR)

    def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
        ids = [[*row, separator] for row in tokenizer(batch["text"], add_special_tokens=False)["input_ids"]]
        return {"ids": ids, "length": [len(row) for row in ids]}

    # One call a source: fields other than the text differ between them, which `datasets` does not take in one.
    groups = {path.name.split("-")[0]: [] for path in text.glob("*.jsonl")}
    for path in sorted(text.glob("*.jsonl")):
        groups[path.name.split("-")[0]].append(str(path))
    parts = [load_dataset("json", data_files=files, split="train", cache_dir=str(target / "hub")) for files in groups.values()]
    # Shuffled, or one process would get all the books and the other would wait for it.
    rows = concatenate_datasets([part.select_columns(["text"]) for part in parts]).shuffle(seed=0)
    # Batches of 100: these documents are long, and more at a time is slower.
    tokenised = rows.map(encode, batched=True, batch_size=100, num_proc=processes, remove_columns=["text"])
    total = int(np.sum(tokenised["length"], dtype=np.int64))
    flat = np.memmap(target / "train.bin", dtype=np.uint16, mode="w+", shape=(total,))
    filled = 0
    for number in range(min(SHARDS, len(tokenised))):
        part = tokenised.shard(num_shards=min(SHARDS, len(tokenised)), index=number, contiguous=True).with_format("numpy")
        ids = np.concatenate(part["ids"])
        flat[filled : filled + len(ids)] = ids
        filled += len(ids)
    flat.flush()
    return {"seconds": time.perf_counter() - start, "tokens": total}


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    text, tokenizer_file, target = map(Path, sys.argv[1:4])
    target.mkdir(parents=True, exist_ok=True)
    print(json.dumps(pack(text, tokenizer_file, target, int(sys.argv[4]) if len(sys.argv) > 4 else 2)))
