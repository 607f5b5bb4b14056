"""Finding NaN and infinity in tensors without torch's thread pool.

The background writer runs this; a torch reduction there would start a second team of threads beside the one that trains.
A float is NaN or infinite when all bits of its exponent are ones, so integers are compared and every width works alike,
bfloat16 included, which numpy does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# dtype -> (unsigned integer of the same width, the bits that are all ones in a non-finite value)
_NON_FINITE_BITS: dict[torch.dtype, tuple[type[np.unsignedinteger[Any]], int]] = {
    torch.float64: (np.uint64, 0x7FF0_0000_0000_0000),
    torch.float32: (np.uint32, 0x7F80_0000),
    torch.float16: (np.uint16, 0x7C00),
    torch.bfloat16: (np.uint16, 0x7F80),
    torch.float8_e5m2: (np.uint8, 0x7C),
    torch.float8_e4m3fn: (np.uint8, 0x7F),  # this format has no infinity and one NaN
}
_BLOCK_ELEMENTS = 1 << 17  # stays in the second-level cache


def has_non_finite(tensor: Tensor) -> bool:
    """True when a contiguous CPU tensor holds NaN or infinity; integers and booleans never do."""
    if tensor.dtype not in _NON_FINITE_BITS:
        return False
    kind, mask = _NON_FINITE_BITS[tensor.dtype]
    bits = tensor.detach().reshape(-1).view(torch.uint8).numpy().view(kind)
    scratch = np.empty(min(_BLOCK_ELEMENTS, bits.size), dtype=kind)
    for start in range(0, bits.size, _BLOCK_ELEMENTS):
        block = bits[start : start + _BLOCK_ELEMENTS]
        masked = np.bitwise_and(block, kind(mask), out=scratch[: block.size])
        if int(masked.max()) == mask:
            return True
    return False


def non_finite_names(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors if has_non_finite(tensor)]
