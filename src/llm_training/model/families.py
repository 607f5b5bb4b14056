"""Hugging Face tensor names in and out.

Ours are the names of Hugging Face's Llama without the leading ``model.``, so ``qwen3`` and ``llama`` only gain a prefix. GPT-2 has
other names, keeps q, k and v in one tensor, and stores its matrices transposed (Conv1D: [in, out]). A table per family says all of
it. Loading is exact: a key missing, left over or of the wrong shape is an error that lists every one; nothing is skipped silently
except buffers that old files carry and that hold no weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_training.errors import IntegrityError
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer

_MOST_LISTED = 20


@dataclass(frozen=True)
class Piece:
    """One tensor of theirs: the parameters of ours that are stacked in it (along the output), and whether it lies transposed."""

    theirs: str
    ours: tuple[str, ...]
    is_transposed: bool = False

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Their tensor from ours."""
        parts = [tensors[name] for name in self.ours]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.t().contiguous() if self.is_transposed else whole

    def split(self, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
        """Ours from their tensor."""
        whole = tensor.t() if self.is_transposed else tensor
        return zip(self.ours, whole.chunk(len(self.ours)), strict=True)


def _llama_pieces(spec: ModelSpec) -> list[Piece]:
    names = _our_names(spec)
    return [Piece(name if name == "lm_head.weight" else f"model.{name}", (name,)) for name in names]


# Our module -> theirs inside ``transformer.h.N.``; the Conv1D ones lie transposed.
_GPT2_BLOCK = {
    "input_layernorm": "ln_1",
    "self_attn.o_proj": "attn.c_proj",
    "post_attention_layernorm": "ln_2",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}


def _gpt2_pieces(spec: ModelSpec) -> list[Piece]:
    pieces = [
        Piece("transformer.wte.weight", ("embed_tokens.weight",)),
        Piece("transformer.wpe.weight", ("embed_positions.weight",)),
    ]
    for layer in range(spec.num_layers):
        theirs, ours = f"transformer.h.{layer}", f"layers.{layer}"
        for kind in ("weight", "bias"):
            heads = tuple(f"{ours}.self_attn.{part}_proj.{kind}" for part in "qkv")
            pieces.append(Piece(f"{theirs}.attn.c_attn.{kind}", heads, is_transposed=kind == "weight"))
            for our_module, their_module in _GPT2_BLOCK.items():
                is_matrix = kind == "weight" and "ln_" not in their_module
                pieces.append(Piece(f"{theirs}.{their_module}.{kind}", (f"{ours}.{our_module}.{kind}",), is_transposed=is_matrix))
    pieces += [Piece(f"transformer.ln_f.{kind}", (f"norm.{kind}",)) for kind in ("weight", "bias")]
    if not spec.tie_embeddings:
        pieces.append(Piece("lm_head.weight", ("lm_head.weight",)))
    return pieces


_PIECES: dict[str, Callable[[ModelSpec], list[Piece]]] = {"qwen3": _llama_pieces, "llama": _llama_pieces, "gpt2": _gpt2_pieces}
_PREFIXES = {"qwen3": "model.", "llama": "model.", "gpt2": "transformer."}
# Buffers of older files: the causal mask of GPT-2 and the rotary frequencies of Llama. They hold no weights.
_BUFFERS = re.compile(r"(\.attn\.(bias|masked_bias)|rotary_emb\.inv_freq)$")


def _our_names(spec: ModelSpec) -> list[str]:
    with torch.device("meta"):
        return [name for name, _ in Transformer(spec).named_parameters()]


def hf_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the model's Hugging Face file, from the spec alone."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in to_hf_tensors(Transformer(spec)).items()}


def to_hf_tensors(model: Transformer) -> dict[str, Tensor]:
    """The weights under Hugging Face's names and in its layout, detached; a tied output matrix is stored once, as the embedding.

    Tensors share memory with the model where the layout allows it: copy before the next training step.
    """
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return {piece.theirs: piece.join(tensors) for piece in _PIECES[model.spec.family](model.spec)}


def load_hf_tensors(model: Transformer, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights in Hugging Face's layout into the model, whatever its device and dtype.

    Raises:
        IntegrityError: names missing, names left over, or shapes that differ: all of them listed.
    """
    spec = model.spec
    found = _normalised(tensors, _PREFIXES[spec.family])
    if spec.tie_embeddings:
        _drop_tied_head(found, spec)
    pieces = {piece.theirs: piece for piece in _PIECES[spec.family](spec)}
    wanted = hf_shapes(spec)
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in wanted]
    problems += [
        f"{name} has shape {list(found[name].shape)}, the model needs {list(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    if problems:
        raise IntegrityError(f"the weights do not fit the model: {_listed(problems)}", remedy="use the config.json that belongs to them")
    ours = dict(model.named_parameters())
    with torch.no_grad():
        for name, piece in pieces.items():
            for our_name, value in piece.split(found[name]):
                ours[our_name].copy_(value)


def _normalised(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Without buffers, and with the prefix that files of a bare base model (the hub's ``gpt2``) lack."""
    kept = {name: tensor for name, tensor in tensors.items() if not _BUFFERS.search(name)}
    if any(name.startswith(prefix) for name in kept):
        return kept
    return {name if name == "lm_head.weight" else prefix + name: tensor for name, tensor in kept.items()}


def _drop_tied_head(found: dict[str, Tensor], spec: ModelSpec) -> None:
    """Some writers store a tied output matrix twice; the copies must agree."""
    head = found.pop("lm_head.weight", None)
    embedding = found.get(_PIECES[spec.family](spec)[0].theirs)
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise IntegrityError(
            "lm_head.weight differs from the embedding although config.json ties them", remedy="set tie_word_embeddings to false"
        )


def _listed(problems: list[str]) -> str:
    shown = "; ".join(problems[:_MOST_LISTED])
    rest = len(problems) - _MOST_LISTED
    return f"{len(problems)} problems: {shown}" + (f"; and {rest} more" if rest > 0 else "")
