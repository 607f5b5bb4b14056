"""The size dial: shape, context, batch and rates for this machine, time and data. Pure arithmetic; says why.

The dial answers "what is the best model I get here in this time". Between anchors it
interpolates in the logarithm of the compute. With a time budget the compute is the measured speed of
the machine times the time; with a given number of tokens it is what the data asks for; with a given parameter count
(``model.size: 10M``) only the shape is looked for.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """A shape with its batch. ``reason`` is one line for people."""

    hidden_size: int
    num_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    sequence_length: int
    global_batch_tokens: int
    reason: str

    @property
    def num_parameters(self) -> int:
        """Untied, without norms: what the dial steers by."""
        return 2 * self.vocab_size * self.hidden_size + self.num_layers * block_parameters(
            self.hidden_size, self.num_attention_heads, self.num_key_value_heads, self.intermediate_size
        )


# Shapes from small to large: width, layers, heads, key-value heads. Heads are 128 wide where the width allows it: at equal
# width they make attention 1.35 to 1.7 times cheaper on a CPU than heads of 64.
LADDER: tuple[tuple[int, int, int, int], ...] = (
    (64, 2, 1, 1),
    (128, 4, 1, 1),
    (192, 5, 3, 3),
    (256, 6, 2, 2),
    (384, 6, 3, 3),
    (512, 8, 4, 4),
    (640, 10, 5, 5),
    (768, 12, 6, 6),
    (1024, 16, 8, 4),
    (1280, 20, 10, 5),
    (1536, 24, 12, 4),
    (2048, 24, 16, 4),
    (2560, 32, 20, 5),
    (3072, 32, 24, 8),
    (4096, 36, 32, 8),
)

# Compute of a run (FLOP) and the width that did best with it. A factor of ten in compute is worth about one and a half
# rungs; the first two anchors are measured on the standard library's source, the rest follow Hoffmann et al.,
# arXiv:2203.15556 (parameters grow with the square root of the compute, about 20 tokens a parameter).
COMPUTE_ANCHORS: tuple[tuple[float, int], ...] = (
    (1e12, 64),
    (1e13, 128),
    (4e13, 192),
    (1.8e14, 256),
    (2e15, 384),
    (2e16, 512),
    (4e17, 768),
    (1e20, 2048),
    (1e22, 4096),
)

USABLE_SHARE = 0.25  # of the measured matmul peak that small models reach in training


def block_parameters(hidden_size: int, heads: int, key_value_heads: int, intermediate_size: int) -> int:
    """Matrix parameters of one block with gated feed-forward."""
    head_dim = hidden_size // heads
    return hidden_size * head_dim * (2 * heads + 2 * key_value_heads) + 3 * hidden_size * intermediate_size


def gated_width(hidden_size: int) -> int:
    """8/3 of the width, rounded up to 64: as many parameters as 4 times the width without a gate."""
    return -(-8 * hidden_size // (3 * 64)) * 64


def width_for_compute(flop: float) -> int:
    """The width that the anchors give for a compute, interpolated in logarithms."""
    anchors = COMPUTE_ANCHORS
    if flop <= anchors[0][0]:
        return anchors[0][1]
    for (low_flop, low), (high_flop, high) in itertools.pairwise(anchors):
        if flop <= high_flop:
            share = math.log(flop / low_flop) / math.log(high_flop / low_flop)
            return round(low * (high / low) ** share)
    return anchors[-1][1]


def vocabulary_for(text_bytes: int, hidden_size: int) -> int:
    """Entries worth having: large enough to shorten the text, small enough that embeddings do not eat a small model.

    A power of two near 16 times the width, 32,768 at most (49,152 from width 2,048 on), and no more than one entry
    per 500 bytes of text, so that each is seen often enough to be learned.
    """
    by_width = 2 ** round(math.log2(max(16 * hidden_size, 1_024)))
    by_text = 2 ** int(math.log2(max(text_bytes / 500, 512)))
    return max(512, min(by_width, by_text, 32_768 if hidden_size < 2_048 else 49_152))


def sequence_length_for(hidden_size: int, *, has_gpu: bool) -> int:
    """Context by width; on a CPU attention is dear, so small models read 256 tokens."""
    if has_gpu:
        return 512 if hidden_size <= 384 else 1_024 if hidden_size < 1_024 else 2_048
    return 256 if hidden_size <= 512 else 512


def batch_tokens_for(hidden_size: int, total_tokens: float) -> int:
    """Tokens per step: few while the run is short (steps matter more than noise), more as it grows.

    The power of two nearest to total / 1,200, within bounds by width: halving it changed nothing at equal tokens on the standard
    library's source, and cost time.
    """
    wanted = min(max(total_tokens / 1_200, 2_048), 524_288 if hidden_size >= 768 else 65_536)
    return 2 ** round(math.log2(wanted))


def _rung(width: int) -> tuple[int, int, int, int]:
    return min(LADDER, key=lambda rung: abs(math.log(rung[0] / width)))


def choose(
    *,
    flops_per_second: float,
    seconds: float | None,
    total_tokens: int | None,
    text_bytes: int,
    parameters: int | None = None,
    vocab_size: int | None = None,
    sequence_length: int | None = None,
    has_gpu: bool = False,
) -> Choice:
    """Pick everything that was not given.

    Args:
        flops_per_second: measured matmul peak of all devices together.
        seconds: training time planned, or None.
        total_tokens: tokens the run will see when its length is given in tokens, steps or epochs; else None.
        text_bytes: training text at hand.
        parameters: parameter count asked for (``model.size: 10M``).
        vocab_size, sequence_length: taken when given (a loaded tokenizer, a set length).
    """
    if parameters is not None:
        rung = min(LADDER, key=lambda r: abs(math.log(_count(r, vocab_size or vocabulary_for(text_bytes, r[0])) / parameters)))
        why = f"the shape nearest to {parameters / 1e6:,.1f} M parameters"
    elif seconds is not None:
        flop = flops_per_second * USABLE_SHARE * seconds
        rung = _rung(width_for_compute(flop))
        why = (
            f"{flops_per_second / 1e12:.2f} TFLOP/s measured, {seconds / 60:.0f} min: about {flop:.0e} FLOP, best spent at width {rung[0]}"
        )
    else:
        tokens = total_tokens or text_bytes // 4
        rung = min(LADDER, key=lambda r: abs(math.log(20 * _count(r, vocab_size or vocabulary_for(text_bytes, r[0])) / tokens)))
        why = f"{tokens:,} tokens to see, about 20 a parameter"
    width, layers, heads, key_value_heads = rung
    vocabulary = vocab_size or vocabulary_for(text_bytes, width)
    length = sequence_length or sequence_length_for(width, has_gpu=has_gpu)
    seen = total_tokens
    if seen is None and seconds is not None:
        seen = int(flops_per_second * USABLE_SHARE * seconds / (6 * _count(rung, vocabulary)))
    batch = max(length, batch_tokens_for(width, seen or text_bytes // 4) // length * length)
    return Choice(width, layers, heads, key_value_heads, gated_width(width), vocabulary, length, batch, why)


def _count(rung: tuple[int, int, int, int], vocabulary: int) -> int:
    width, layers, heads, key_value_heads = rung
    # The input embedding costs no products; the head does.
    return vocabulary * width + layers * block_parameters(width, heads, key_value_heads, gated_width(width))
