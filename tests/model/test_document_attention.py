"""A packed row with document-limited attention is its documents run apart: loss and gradients, every family, every kernel here."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention

from llm_training.cache.batch import segments_of
from llm_training.model import attention
from llm_training.model.families import load_hf_tensors
from llm_training.model.hf_config import from_hf_config
from llm_training.model.loss import TokenLoss, token_loss_sum
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer
from tests.model.tiny import SPECS, VOCAB_SIZE, hf_model, our_model, randomise, tokens

SEPARATOR = 0
KERNELS = ("eager", "sdpa", "split")
NARROW = {name: replace(SPECS[name], hidden_size=16, head_dim=4) for name in ("qwen3", "llama")} | {
    "gpt2": replace(SPECS["gpt2"], hidden_size=16, head_dim=4)
}


@st.composite
def packed_rows(draw: st.DrawFn) -> tuple[list[list[list[int]]], int]:
    """Rows of documents of text tokens (no separator), and the row length: documents of one token, whole rows, short rows."""
    length = draw(st.integers(4, 24))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        documents, room = [], length
        while room > 1 and draw(st.booleans()) | (not documents):
            size = draw(st.integers(1, room - 1))
            documents.append(draw(st.lists(st.integers(1, VOCAB_SIZE - 1), min_size=size, max_size=size)))
            room -= size + 1
        rows.append(documents)
    return rows, length


def pack(rows: list[list[list[int]]], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels as the cache lays them out: a separator after each document, padding of separators with label -100."""
    ids, labels = torch.full((len(rows), length), SEPARATOR), torch.full((len(rows), length), -100)
    for row, documents in enumerate(rows):
        stream = torch.tensor([token for document in documents for token in (*document, SEPARATOR)])[:length]
        ids[row, : len(stream)] = stream
        labels[row, : len(stream) - 1] = stream[1:]
    return ids, labels


def apart(rows: list[list[list[int]]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The same documents as sequences of their own: after the first of a row each opens with the separator, as in evaluation."""
    sequences = []
    for documents in rows:
        for number, document in enumerate(documents):
            stream = torch.tensor([*([SEPARATOR] if number else []), *document, SEPARATOR])
            sequences.append((stream[None, :-1], stream[None, 1:]))
    return sequences


def gradients(model: Transformer, loss: torch.Tensor) -> torch.Tensor:
    """All gradients of the loss as one vector."""
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["fp64", "fp32"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", NARROW)
def test_loss_and_gradients_are_those_of_the_documents_alone(
    family: str, kernel: str, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Transformer(NARROW[family])
    randomise(model, 0)
    model.to(dtype)
    monkeypatch.setattr(attention, "choose", lambda requested, **_: attention.Choice(kernel, "test"))

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(drawn=packed_rows())
    def holds(drawn: tuple[list[list[list[int]]], int]) -> None:
        ids, labels = pack(*drawn)
        segments = torch.from_numpy(segments_of(ids.numpy(), SEPARATOR))
        loss = token_loss_sum(model, ids, labels, segment_ids=segments)
        expected = torch.stack([token_loss_sum(model, *sequence) for sequence in apart(drawn[0])]).sum()
        # What ends exactly with its row has no label for its last token; the sequences apart have none either.
        torch.testing.assert_close(loss, expected, rtol=bound, atol=bound)
        found, wanted = gradients(model, loss), gradients(model, expected)
        assert float((found - wanted).norm()) <= bound * max(1.0, float(wanted.norm()))

    holds()


def test_a_row_of_one_document_is_plain_causal_attention() -> None:
    for name in SPECS:
        model = our_model(name)
        ids = tokens(3, 40)
        torch.testing.assert_close(model(ids, segment_ids=torch.zeros_like(ids)), model(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_flex_attention_sees_the_same_forward(heads: tuple[int, int]) -> None:
    """Its backward pass exists on CUDA alone; mask and forward are the same there."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 200, 16, generator=generator) for n in (heads[0], heads[1], heads[1]))
    segments = (torch.rand(2, 200, generator=generator) < 0.05).long().cumsum(1)
    backend, visible = attention.BACKENDS["flex"], attention.Visibility(200, segment_ids=segments)
    mask = backend.prepare(visible, (2, heads[1], heads[0] // heads[1]), q.dtype, q.device)
    with torch.no_grad():
        found = flex_attention(q, k, v, block_mask=mask, enable_gqa=heads[0] != heads[1])
    reference = attention.BACKENDS["sdpa"]
    expected = reference.attend(q, k, v, reference.prepare(visible, (2, heads[1], 1), q.dtype, q.device), 0.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def _flex_by_the_book(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, block_mask: object, enable_gqa: bool) -> torch.Tensor:
    allowed = attention.document_mask((torch.arange(q.shape[2]) // 100)[None])[:, None]
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=enable_gqa)


def _flex_that_fails(*_: object, **__: object) -> torch.Tensor:
    raise RuntimeError("no valid triton configs")


def _flex_across_documents(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **_: object) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        (_flex_by_the_book, None),
        (_flex_that_fails, "FlexAttention does not run here (RuntimeError)"),
        (_flex_across_documents, "FlexAttention gives other numbers than the masked kernel here"),
    ],
)
def test_flex_attention_is_probed_before_documents_are_left_to_it(
    kernel: object, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "PROBLEMS", {})
    monkeypatch.setattr(attention, "HAS_TRITON", True)
    monkeypatch.setattr(attention, "_compiled_flex", lambda: kernel)
    attention.probe_flex(torch.device("cpu"), torch.bfloat16, num_heads=4, num_kv=2, head_dim=16)
    assert attention.PROBLEMS.get("flex") == problem
    choice = attention.choose("flex", device_type="cuda", dtype=torch.bfloat16, num_tokens=2048, has_documents=True)
    assert choice.name == ("flex" if problem is None else "sdpa") and (problem or "") in choice.reason


@pytest.mark.parametrize("name", ["qwen3", "llama-grouped", "gpt2"])
def test_transformers_packed_with_restarting_positions_gives_the_same_logits(name: str) -> None:
    theirs = hf_model(name)
    ours = Transformer(from_hf_config(theirs.config.to_dict())).eval()
    load_hf_tensors(ours, theirs.state_dict())
    ids = tokens(2, 30)
    segments = torch.tensor([[0] * 11 + [1] * 2 + [2] * 17, [0] * 29 + [1]])
    allowed = attention.document_mask(segments)[:, None]
    bias = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)
    expected = theirs(ids, attention_mask=bias, position_ids=attention.document_positions(segments)).logits
    assert (expected - ours(ids, segment_ids=segments)).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("length", [32, 640])
def test_the_compiled_blocks_are_one_graph_for_any_documents(length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks in short rows, one call a document in long ones: no batch compiles anew, and the loss is that of eager."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    spec = ModelSpec(vocab_size=VOCAB_SIZE, hidden_size=32, num_layers=2, num_attention_heads=2, num_key_value_heads=1, max_seq_len=length)
    model = Transformer(spec)
    randomise(model, 0)
    batches = [
        (tokens(2, length, seed), (torch.rand(2, length, generator=torch.Generator().manual_seed(seed)) < rate).long().cumsum(1))
        for seed, rate in enumerate((0.0, 0.01, 0.1, 0.5))
    ]
    eager = [_loss_and_norm(model, *batch) for batch in batches]
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    model.compile_blocks()
    compiled = [_loss_and_norm(model, *batch) for batch in batches]
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    for found, wanted in zip(itertools.chain(*compiled), itertools.chain(*eager), strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)


def _loss_and_norm(model: Transformer, ids: torch.Tensor, segments: torch.Tensor) -> tuple[float, float]:
    loss = TokenLoss(model)(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), segments[:, :-1].contiguous())
    return float(loss.detach()), float(gradients(model, loss).norm())
