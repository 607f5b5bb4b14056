"""What holds of the body whatever the family: causality, checkpointing, compile, hand-written passes, the cache."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llm_training.errors import ConfigError
from llm_training.model.cpu_functions import RMSNormFunction, RotateFunction
from llm_training.model.kv_cache import KVCache
from llm_training.model.loss import TokenLoss, token_loss_sum
from llm_training.model.transformer import Transformer
from tests.model.tiny import SPECS, our_model, tokens


def _gradients(model: Transformer) -> dict[str, torch.Tensor]:
    ids = tokens(2, 17)
    model.zero_grad()
    token_loss_sum(model, ids[:, :-1], ids[:, 1:]).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", SPECS)
def test_no_token_sees_a_later_one(name: str) -> None:
    model, ids = our_model(name), tokens(1, 12)
    changed = ids.clone()
    changed[0, 7:] = (changed[0, 7:] + 1) % 97
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("name", SPECS)
def test_checkpointing_changes_no_gradient(name: str) -> None:
    model = our_model(name)
    plain = _gradients(model)
    model.gradient_checkpointing = True
    again = _gradients(model)
    assert plain.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(plain[key], again[key]) for key in plain)


def test_checkpointing_replays_dropout() -> None:
    from dataclasses import replace

    model = Transformer(replace(SPECS["gpt2"], dropout=0.3, attention_dropout=0.3))
    model.load_state_dict(our_model("gpt2").state_dict())
    results = []
    for is_on in (False, True):
        model.gradient_checkpointing = is_on
        torch.manual_seed(3)
        results.append(_gradients(model.train()))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_hand_written_passes_are_right() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: RMSNormFunction.apply(x, w, 1e-3, torch.float64), (x, weight))
    torch.testing.assert_close(RMSNormFunction.apply(x, weight, 1e-6, torch.float64), F.rms_norm(x, (6,), weight, 1e-6))
    angles = torch.randn(1, 3, 1, 3, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: RotateFunction.apply(x, angles.cos(), angles.sin()), (x,))
    transposed = x.transpose(1, 2)  # gradients arrive with any strides
    assert torch.autograd.gradcheck(lambda x: RMSNormFunction.apply(x, weight, 1e-3, torch.float64).transpose(1, 2), (transposed,))


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_autocast_computes_narrow_and_stays_close(name: str) -> None:
    model, ids = our_model(name), tokens(2, 33)
    exact = token_loss_sum(model, ids[:, :-1], ids[:, 1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(ids).dtype == torch.bfloat16
        narrow = token_loss_sum(model, ids[:, :-1], ids[:, 1:])
    assert narrow.dtype == torch.float32
    assert narrow.item() == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning", "ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("how", ["whole", "blocks"])
def test_compiled_gives_the_same_gradients_without_graph_breaks(how: str) -> None:
    torch.compiler.reset()
    reference = _gradients(our_model("qwen3"))
    model, ids = our_model("qwen3"), tokens(2, 17)
    loss = TokenLoss(model)
    if how == "whole":
        loss = torch.compile(loss, fullgraph=True, dynamic=False, backend="aot_eager")
    else:
        for block in model.layers:
            block.compile(fullgraph=True, dynamic=False, backend="aot_eager")
    loss(ids[:, :-1], ids[:, 1:]).backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, reference[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_reading_in_pieces_gives_the_same_logits(name: str) -> None:
    model, ids = our_model(name), tokens(2, 20)
    whole = model(ids)
    cache = KVCache(model.spec, batch_size=2, max_tokens=20)
    parts = [model(piece, cache=cache) for piece in ids.split([7, 1, 1, 5, 6], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)
    assert cache.lengths.tolist() == [20, 20]
    cache.clear()
    torch.testing.assert_close(model(ids, cache=cache), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_rows_of_different_lengths_do_not_disturb_each_other(name: str) -> None:
    model, ids = our_model(name), tokens(3, 12)
    lengths = [12, 3, 8]
    cache = KVCache(model.spec, batch_size=3, max_tokens=16)
    model(ids, cache=cache)
    cache.set_lengths(lengths)
    following = tokens(3, 4, seed=9)
    steps = [model(following[:, i : i + 1], cache=cache)[:, 0] for i in range(4)]
    for row, length in enumerate(lengths):
        alone = model(torch.cat([ids[row, :length], following[row]])[None])[0, length:]
        torch.testing.assert_close(torch.stack([step[row] for step in steps]), alone, rtol=1e-4, atol=1e-5)


def test_a_full_cache_says_so() -> None:
    model = our_model("qwen3")
    cache = KVCache(model.spec, batch_size=1, max_tokens=8)
    model(tokens(1, 8), cache=cache)
    with pytest.raises(ConfigError, match=r"holds 8 tokens; 8 \+ 1 do not fit"):
        model(tokens(1, 1), cache=cache)


def test_building_draws_no_random_numbers_and_zero_weights_predict_evenly() -> None:
    state = torch.get_rng_state()
    model = Transformer(SPECS["qwen3"])
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(model(tokens(1, 4)), torch.zeros(1, 4, 97))
