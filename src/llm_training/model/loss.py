"""Cross-entropy as a sum of nats over counted tokens, with the logits never stored whole when the vocabulary is large.

``T*`` is B * T flattened, ``V`` the vocabulary. The sum (not the mean) is what training needs: divided by the global number of
counted tokens it gives the same gradient for every split into micro-batches and ranks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_training.model.transformer import Transformer

IGNORED_LABEL = -100


class TokenLoss(nn.Module):
    """``(input_ids, labels) -> loss sum``: the module to compile or to hand to DistributedDataParallel, whose hooks need a forward."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, labels: Tensor, segment_ids: Tensor | None = None) -> Tensor:
        """See ``token_loss_sum``."""
        return token_loss_sum(self.model, input_ids, labels, segment_ids=segment_ids)


def token_loss_sum(model: Transformer, input_ids: Tensor, labels: Tensor, *, segment_ids: Tensor | None = None) -> Tensor:
    """Sum of nats over the tokens whose label is not -100, a scalar in fp32 (fp64 for an fp64 model).

    Args:
        model: the transformer; autocast is the caller's.
        input_ids: [B, T].
        labels: [B, T], the token that follows each position (already shifted), -100 where nothing is counted.
        segment_ids: document numbers [B, T] for document-limited attention.
    """
    hidden = model.hidden(input_ids, segment_ids=segment_ids)
    logits = F.linear(hidden.flatten(0, 1), model.head_weight)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(dtype), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum")


def count_labels(labels: Tensor) -> Tensor:
    """Number of counted tokens, an int64 scalar on the device of ``labels``."""
    return (labels != IGNORED_LABEL).sum()
