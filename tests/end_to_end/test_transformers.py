"""What a run leaves behind is a Hugging Face model: transformers reads ``checkpoints/latest`` as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_training.generation.generate import StopRules, generate
from llm_training.generation.sampling import SamplingSettings
from llm_training.jobs.models import LoadedModel, load_model
from llm_training.jobs.train import train
from llm_training.model.loss import token_loss_sum
from tests.end_to_end.tiny import WORDS, tiny_config, write_corpus

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3-tied-grouped": {"model.tie_embeddings": True, "model.num_key_value_heads": 1, "model.head_dim": 16},
    "llama-tied": {"model.family": "llama", "model.tie_embeddings": True},
    "llama-grouped": {"model.family": "llama", "model.num_key_value_heads": 1},
    "gpt2": {"model.family": "gpt2", "model.dropout": 0.1},
}
TEXTS = [" ".join(WORDS), "Ünïcode — 漢字 🙂", "  spaces\n\n\tand tabs ", "<|endoftext|> is plain text", "", "1234567890 don't"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of all families share one cache."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module", params=FAMILIES)
def latest(request: pytest.FixtureRequest, folder: Path, source: Path) -> Path:
    """``checkpoints/latest`` of a finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11)
        run = folder / str(request.param)
        train(tiny_config(folder, source, **FAMILIES[request.param], **{"training.output_dir": str(run), "training.max_steps": 30}))
    return run / "checkpoints" / "latest"


@pytest.fixture(scope="module")
def ours(latest: Path) -> LoadedModel:
    return load_model(str(latest), device="cpu")


@pytest.fixture(scope="module")
def theirs(latest: Path) -> Any:
    model, info = AutoModelForCausalLM.from_pretrained(latest, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def test_logits_and_loss_are_equal(ours: LoadedModel, theirs: Any) -> None:
    ids = torch.tensor([ours.tokenizer.encode(" ".join(WORDS * 3))[:32]])
    with torch.no_grad():
        answer = theirs(ids, labels=ids)
        logits = ours.model(ids)
        loss = token_loss_sum(ours.model, ids[:, :-1], ids[:, 1:]) / (ids.numel() - 1)
    assert (answer.logits - logits).abs().max() < 1e-4
    assert answer.loss.item() == pytest.approx(float(loss), abs=1e-5)


def test_the_tokenizer_gives_the_same_ids(latest: Path, ours: LoadedModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(latest)
    # The separator in a text is plain text to us; transformers must be told so.
    for text in TEXTS:
        assert tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] == ours.tokenizer.encode(text), text
    assert tokenizer.eos_token_id == ours.tokenizer.separator_id
    ids = ours.tokenizer.encode(TEXTS[1])
    assert tokenizer.decode(ids) == ours.tokenizer.decode(ids) == TEXTS[1]


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_text_is_the_same(latest: Path, ours: LoadedModel, theirs: Any, use_cache: bool) -> None:
    prompt = ours.tokenizer.encode("the model learns")
    separator = ours.tokenizer.separator_id
    result = generate(
        ours.model,
        [prompt],
        max_new_tokens=20,
        sampling=SamplingSettings(temperature=0),
        stop=StopRules(token_ids=frozenset({separator})),
    )[0]
    answer = theirs.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=20,
        do_sample=False,
        use_cache=use_cache,
    )[0, len(prompt) :].tolist()
    answer = answer[: answer.index(separator)] if separator in answer else answer
    assert answer == result.token_ids
    assert AutoTokenizer.from_pretrained(latest).decode(answer) == ours.tokenizer.decode(result.token_ids)
