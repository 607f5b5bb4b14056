"""Which files may be opened as tensors: safetensors, by content. Everything else is refused before anything parses it.

A pickle runs code while it loads, so ``.pt``, ``.pth``, ``.ckpt``, ``.bin`` and torch.distributed.checkpoint directories are
refused by name and by their first bytes, whatever the name says.
"""

from __future__ import annotations

from pathlib import Path

from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.reading import RegularFile

_REMEDY = "give a checkpoint directory of this program or a safetensors file"
_UNTRUSTED_SUFFIXES = frozenset(
    {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".tar", ".zip", ".gz", ".h5"}
)
_PICKLED_DIRECTORY_MARK = ".metadata"  # torch.distributed.checkpoint keeps its index there, as a pickle

# (offset, first bytes, what it is)
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x80\x02", "a pickle"),
    (0, b"\x80\x03", "a pickle"),
    (0, b"\x80\x04", "a pickle"),
    (0, b"\x80\x05", "a pickle"),
    (0, b"PK\x03\x04", "a zip archive (torch.save writes pickles into one)"),
    (0, b"\x93NUMPY", "a numpy file (which may hold a pickle)"),
    (0, b"\x1f\x8b", "a gzip file"),
    (257, b"ustar", "a tar archive"),
)
_HEAD_BYTES = 512
_HEADER_START = 8  # eight bytes of length, then the header, which is a JSON object


def describe_untrusted(head: bytes, num_bytes: int) -> str | None:
    """What a file is when it is not safetensors, from its first bytes and its size; None when it may be safetensors."""
    length = int.from_bytes(head[:_HEADER_START], "little")
    if head[_HEADER_START : _HEADER_START + 1] == b"{" and 2 <= length <= num_bytes - _HEADER_START:
        return None
    kinds = [kind for offset, magic, kind in _SIGNATURES if head[offset : offset + len(magic)] == magic]
    return kinds[0] if kinds else "not a safetensors file"


def refuse_untrusted_path(path: Path) -> None:
    """Refuse what must never be parsed as a checkpoint, file or directory, by name and first bytes. Raises IntegrityError."""
    if path.is_dir():
        if (path / _PICKLED_DIRECTORY_MARK).exists():
            raise IntegrityError(
                "a torch.distributed.checkpoint directory holds pickles, which can run code", where=str(path), remedy=_REMEDY
            )
        return
    if path.suffix.lower() in _UNTRUSTED_SUFFIXES or path.name == _PICKLED_DIRECTORY_MARK:
        raise IntegrityError(
            f"{path.suffix or path.name} files may hold pickles, which can run code, and are never opened", where=str(path), remedy=_REMEDY
        )
    try:
        with RegularFile(path) as file:
            head = bytearray(_HEAD_BYTES)
            count = file.read_some(memoryview(head))
    except StorageError:
        return  # missing or unreadable: the caller's own error is the better one
    kind = describe_untrusted(bytes(head[:count]), file.num_bytes)
    if kind is not None:
        raise IntegrityError(f"this is {kind}, refused by its type", where=str(path), remedy=_REMEDY)
