"""Keys and values of the tokens already read, so that each new token costs one step of attention.

Preallocated and written in place: ``[L, B, K, Tmax, C]``. Rows may hold different numbers of tokens (prompts of different
lengths in one batch): each row has its own length, a row's token sits at its own position, and what lies beyond a row's length is
masked until it is overwritten. So no left padding is needed and a row's logits do not depend on its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llm_training.errors import ConfigError
from llm_training.model.spec import ModelSpec


class KVCache:
    """Cache for ``batch_size`` rows of at most ``max_tokens`` tokens each.

    Attributes:
        lengths: tokens held by each row, int64 [B].
        num_filled: the longest row's length, known without asking the device.
    """

    def __init__(
        self, spec: ModelSpec, *, batch_size: int, max_tokens: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        shape = (spec.num_layers, batch_size, spec.num_key_value_heads, max_tokens, spec.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.max_tokens = max_tokens
        self.num_filled = 0
        self._is_ragged = False

    def positions(self, num_new: int) -> Tensor:
        """Positions [B, num_new] that the next tokens take.

        Raises:
            ConfigError: they do not fit.
        """
        if self.num_filled + num_new > self.max_tokens:
            raise ConfigError(
                f"the key/value cache holds {self.max_tokens} tokens; {self.num_filled} + {num_new} do not fit",
                remedy="make the cache larger or the text shorter",
            )
        return self.lengths[:, None] + torch.arange(num_new, device=self.lengths.device)

    def update(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values [B, K, T, C] of one layer; return all of that layer, each [B, K, S, C]."""
        end = self.num_filled + keys.shape[2]
        for store, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if self._is_ragged:
                rows = torch.arange(new.shape[0], device=new.device)[:, None]
                store[rows, :, positions] = new.transpose(1, 2).to(store.dtype)
            else:
                store[:, :, self.num_filled : end] = new
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, num_new: int) -> None:
        """Count ``num_new`` more tokens in every row; called once after all layers were updated."""
        self.lengths += num_new
        self.num_filled += num_new

    def set_lengths(self, lengths: list[int]) -> None:
        """Say how many tokens of each row are real, after prompts padded on the right were read."""
        self.lengths = torch.tensor(lengths, dtype=torch.int64, device=self.lengths.device)
        self.num_filled = max(lengths)
        self._is_ragged = len(set(lengths)) > 1

    def clear(self) -> None:
        """Forget everything; the memory stays."""
        self.set_lengths([0] * self.lengths.shape[0])
