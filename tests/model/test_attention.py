"""Every backend that runs here gives the same result; documents do not see each other; the choice says why."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from llm_training.errors import ConfigError
from llm_training.model import attention
from llm_training.model.families import load_hf_tensors, to_hf_tensors
from llm_training.model.transformer import Transformer
from tests.model.tiny import SPECS, our_model, tokens


def _reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None])


@pytest.mark.parametrize("name", ["eager", "sdpa", "flash", "split"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("has_documents", [False, True])
def test_backends_agree_with_the_definition(name: str, heads: tuple[int, int], has_documents: bool) -> None:
    num_heads, num_kv = heads
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(3, num_heads, 10, 8, generator=generator, dtype=torch.float64)
    k, v = (torch.randn(3, num_kv, 10, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    segments = torch.tensor([[0] * 4 + [1] * 6, [0] * 10, [3] + [4] * 9])
    allowed = attention.document_mask(segments) if has_documents else attention.causal_mask(10, q.device)
    visible = attention.Visibility(10, segment_ids=segments if has_documents else None)
    backend = attention.BACKENDS["sdpa" if name == "flash" and not has_documents else name]  # flash alone needs CUDA
    mask = backend.prepare(visible, (3, num_kv, num_heads // num_kv), q.dtype, q.device)
    torch.testing.assert_close(backend.attend(q, k, v, mask, 0.0), _reference(q, k, v, allowed.expand(3, -1, -1)))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_a_packed_row_gives_each_document_what_it_gets_alone(name: str, backend: str) -> None:
    model = Transformer(replace(SPECS[name], attention=backend)).eval()
    load_hf_tensors(model, to_hf_tensors(our_model(name)))
    ids = tokens(2, 24)
    segments = torch.tensor([[0] * 7 + [1] * 12 + [2] * 5, [0] * 24])
    packed = model(ids, segment_ids=segments)
    for start, end in ((0, 7), (7, 19), (19, 24)):
        torch.testing.assert_close(packed[:1, start:end], model(ids[:1, start:end]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed[1:], model(ids[1:]), rtol=1e-4, atol=1e-5)


def test_positions_restart_in_each_document() -> None:
    segments = torch.tensor([[5, 5, 5, 2, 2, 9], [1, 1, 1, 1, 1, 1]])
    assert attention.document_positions(segments).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("requested", "facts", "name", "reason"),
    [
        ("auto", {"device_type": "cpu", "num_tokens": 256}, "eager", "fastest up to 256"),
        ("auto", {"device_type": "cpu", "num_tokens": 257}, "sdpa", "fused kernel"),
        ("auto", {"device_type": "cuda", "num_tokens": 64}, "sdpa", "fused kernel"),
        ("auto", {"device_type": "cuda", "num_tokens": 64, "has_documents": True}, "flex", "whole blocks"),
        ("auto", {"device_type": "cuda", "num_tokens": 64, "has_documents": True, "dropout": 0.1}, "sdpa", "fused"),
        ("auto", {"device_type": "cpu", "num_tokens": 256, "has_documents": True}, "eager", "fastest up to 256"),
        ("auto", {"device_type": "cpu", "num_tokens": 512, "has_documents": True}, "sdpa", "fused kernel"),
        ("auto", {"device_type": "cpu", "num_tokens": 513, "has_documents": True}, "split", "longer than 512 tokens"),
        ("auto", {"device_type": "cpu", "num_tokens": 513, "has_documents": True, "dropout": 0.1}, "sdpa", "fused kernel"),
        ("sdpa", {"device_type": "cpu", "num_tokens": 513, "has_documents": True}, "sdpa", "as configured"),
        ("eager", {"device_type": "cpu", "num_tokens": 4096}, "eager", "as configured"),
        ("flash", {"device_type": "cpu", "num_tokens": 64}, "eager", "flash was asked for, but flash kernels of that name need CUDA"),
        ("flash", {"device_type": "cuda", "num_tokens": 64}, "sdpa", "need fp16 or bf16, the model computes in float32"),
        ("flash", {"device_type": "cuda", "num_tokens": 64, "dtype": torch.bfloat16}, "flash", "as configured"),
        ("flex", {"device_type": "cpu", "num_tokens": 512}, "sdpa", "no backward pass on cpu"),
        ("flex", {"device_type": "cuda", "num_tokens": 512}, "flex", "as configured"),
    ],
)
def test_the_choice_and_its_reason(requested: str, facts: dict, name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "HAS_TRITON", True)
    choice = attention.choose(requested, **({"dtype": torch.float32} | facts))
    assert choice.name == name and reason in choice.reason


def test_without_triton_documents_on_a_gpu_get_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "HAS_TRITON", False)
    for requested in ("auto", "flex"):
        choice = attention.choose(requested, device_type="cuda", dtype=torch.bfloat16, num_tokens=2048, has_documents=True)
        assert choice.name == "sdpa"
    assert "FlexAttention needs Triton" in choice.reason


def test_every_backend_of_the_configuration_exists() -> None:
    from llm_training.model.spec import ATTENTION_BACKENDS

    assert set(ATTENTION_BACKENDS) == {"auto", *attention.BACKENDS} - {"split"}  # which auto alone takes, for documents


def test_too_long_a_sequence_is_refused_with_both_lengths() -> None:
    with pytest.raises(ConfigError, match=r"65 tokens is longer than model.max_seq_len \(64\)"):
        our_model("qwen3")(tokens(1, 65))


def test_dropout_only_while_training() -> None:
    model = Transformer(replace(SPECS["gpt2"], dropout=0.5, attention_dropout=0.5))
    load_hf_tensors(model, to_hf_tensors(our_model("gpt2")))
    ids = tokens(1, 8)
    torch.testing.assert_close(model.eval()(ids), our_model("gpt2")(ids))
    torch.manual_seed(0)
    first = model.train()(ids)
    torch.manual_seed(0)
    assert torch.equal(first, model(ids)) and not torch.allclose(first, model.eval()(ids))
