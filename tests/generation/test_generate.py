"""Generation: greedy equals no cache, batches equal single rows, stops, long contexts, refusals."""

from __future__ import annotations

import pytest
import torch

from llm_training.errors import ConfigError
from llm_training.generation.generate import Result, StopRules, generate, stream, window_start
from llm_training.generation.sampling import SamplingSettings
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer

GREEDY = SamplingSettings(temperature=0)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [3, 3]]


def _model(family: str = "qwen3", max_seq_len: int = 64) -> Transformer:
    spec = ModelSpec(
        family=family, vocab_size=53, hidden_size=32, num_layers=2, num_attention_heads=4, max_seq_len=max_seq_len, tie_embeddings=True
    )
    model = Transformer(spec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def _without_cache(model: Transformer, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        window = ids[window_start(len(ids), model.spec.max_seq_len) :]
        ids.append(int(model(torch.tensor([window]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
def test_greedy_with_cache_is_greedy_without(family: str) -> None:
    model = _model(family)
    results = generate(model, PROMPTS, max_new_tokens=20, sampling=GREEDY)
    assert [result.token_ids for result in results] == [_without_cache(model, prompt, 20) for prompt in PROMPTS]
    assert {result.finish_reason for result in results} == {"length"}


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_a_text_longer_than_the_context_slides(family: str) -> None:
    model = _model(family, max_seq_len=12)
    prompts = [*PROMPTS, list(range(20))]
    results = generate(model, prompts, max_new_tokens=30, sampling=GREEDY)
    assert [result.token_ids for result in results] == [_without_cache(model, prompt, 30) for prompt in prompts]


def test_or_stops_where_asked() -> None:
    model = _model(max_seq_len=12)
    results = generate(model, [[1, 2, 3], list(range(20))], max_new_tokens=30, sampling=GREEDY, context="stop")
    assert results[0] == Result(_without_cache(model, [1, 2, 3], 10), "context")
    assert results[1] == Result([], "context")


@pytest.mark.parametrize(("num_tokens", "start"), [(1, 0), (12, 0), (13, 7), (19, 7), (20, 14), (26, 14), (27, 21)])
def test_the_window_moves_in_steps(num_tokens: int, start: int) -> None:
    assert window_start(num_tokens, 12) == start


def test_sampled_text_does_not_depend_on_the_batch() -> None:
    model = _model()
    sampling = SamplingSettings(temperature=1.0, top_k=20, top_p=0.95, seed=5)
    together = generate(model, PROMPTS, max_new_tokens=15, sampling=sampling)
    assert together == generate(model, PROMPTS, max_new_tokens=15, sampling=sampling)
    assert together[0] == generate(model, PROMPTS[:1], max_new_tokens=15, sampling=sampling)[0]
    assert together != generate(model, PROMPTS, max_new_tokens=15, sampling=SamplingSettings(temperature=1.0, top_k=20, seed=6))


def test_rows_end_by_their_own_stop_and_the_rest_go_on() -> None:
    model = _model()
    free = generate(model, PROMPTS, max_new_tokens=12, sampling=GREEDY)
    stop_id = free[0].token_ids[4]
    cut = generate(model, PROMPTS, max_new_tokens=12, sampling=GREEDY, stop=StopRules(token_ids=frozenset({stop_id})))
    for before, after in zip(free, cut, strict=True):
        if stop_id in before.token_ids:
            assert after == Result(before.token_ids[: before.token_ids.index(stop_id)], "stop")
        else:
            assert after == before


def test_a_stop_string_ends_the_row() -> None:
    model = _model()

    def decode(ids: list[int]) -> str:
        return "".join(f"<{token}>" for token in ids)

    prompt = PROMPTS[2]
    free = generate(model, [prompt], max_new_tokens=10, sampling=GREEDY)[0].token_ids
    text = decode(free[3:5])
    length = next(count for count in range(1, 11) if text in decode(free[:count]))
    rules = StopRules(strings=("never", text), decode=decode)
    assert generate(model, [prompt], max_new_tokens=10, sampling=GREEDY, stop=rules)[0] == Result(free[:length], "stop")


def test_streaming_yields_each_token_once_in_order() -> None:
    model = _model()
    steps = list(stream(model, PROMPTS[:2], max_new_tokens=3, sampling=GREEDY))
    assert [step.row for step in steps] == [0, 1, 0, 1, 0, 1]
    assert [step.finish_reason for step in steps] == ["", "", "", "", "length", "length"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": [[]]}, "prompt 0 is empty"),
        ({"prompts": [[1], [53]]}, "ids 0 to 52"),
        ({"prompts": [[-1]]}, "ids 0 to 52"),
        ({"max_new_tokens": 0}, "the number of tokens to write is 0"),
        ({"context": "grow"}, "known: slide, stop"),
    ],
)
def test_bad_requests_are_refused_before_the_model_runs(change: dict, message: str) -> None:
    arguments = {"prompts": [[1]], "max_new_tokens": 3} | change
    with pytest.raises(ConfigError, match=message):
        generate(_model(), **arguments)


def test_stop_strings_need_a_decoder() -> None:
    with pytest.raises(ConfigError, match="need a decode function"):
        StopRules(strings=("x",))
    with pytest.raises(ConfigError, match="empty"):
        StopRules(strings=("",), decode=str)
