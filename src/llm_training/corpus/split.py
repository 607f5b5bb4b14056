"""Which documents are held out.

By name when file names say so; by the hash of the document otherwise, so that equal texts fall on one side whatever
their order or number (the parts of a text larger than a slice are placed one by one); a single document gives its last
tenth. What a small corpus gets held out by force is written
into the plan, so that the rule stays a pure function of plan and document.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

from llm_training.corpus.document import TEST, TRAIN, VALIDATION
from llm_training.corpus.sources.kinds import SourceFile

SPLIT_OF_WORD = {
    "train": TRAIN,
    "training": TRAIN,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}
SINGLE_DOCUMENT_TRAIN_FRACTION = 0.9
_WORDS = re.compile(r"[a-z]+")
_DIGEST_CHARACTERS = 16
_NUM_DIGESTS = 1 << 4 * _DIGEST_CHARACTERS


def split_of_name(key: str) -> str | None:
    """The split that a file's name, or a folder above it, spells; ``wiki.valid.tokens`` is validation.

    Source code is not asked: ``test_parser.py`` is a program.
    """
    *folders, name = key.split("/")
    if name.endswith(".py"):
        return None
    in_name = [SPLIT_OF_WORD[word] for word in _WORDS.findall(name.lower()) if word in SPLIT_OF_WORD]
    in_folders = [SPLIT_OF_WORD[folder.lower()] for folder in folders[1:] if folder.lower() in SPLIT_OF_WORD]
    return next(iter((*in_name, *reversed(in_folders))), None)


def assign_named_splits(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Give files the splits of their names.

    Names count when some file is named for training, or all are named; a lone ``test results.txt`` among letters is a
    letter. Files without a name then train, and with no validation file the training files are split by hash.
    """
    named = [split_of_name(file.key) for file in files]
    if not any(named) or (TRAIN not in named and None in named):
        return list(files)
    splits = [split or TRAIN for split in named]
    if VALIDATION not in splits:
        splits = [None if split == TRAIN else split for split in splits]
    return [replace(file, split=split) for file, split in zip(files, splits, strict=True)]


def text_digest(text: str) -> str:
    """The hash that places a document: 64 bits of sha256 of its text, hex."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def split_of_digest(digest: str, validation_fraction: float) -> str:
    """Validation for the given share of all digests, else train."""
    return VALIDATION if int(digest, 16) < validation_fraction * _NUM_DIGESTS else TRAIN


def tail_boundary(text: str) -> int:
    """Index at which the last tenth of a text begins, at a line break where there is one in the ninth tenth."""
    aim = int(len(text) * SINGLE_DOCUMENT_TRAIN_FRACTION)
    return text.rfind("\n", int(len(text) * 0.8), aim) + 1 or aim
