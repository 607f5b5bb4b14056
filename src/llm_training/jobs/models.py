"""A trained model from wherever a user points: a checkpoint, a run, a store of checkpoints, or any Hugging Face directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llm_training.checkpoint.layout import CONFIG_FILE
from llm_training.checkpoint.load import load_model_directory
from llm_training.checkpoint.resume import find_checkpoint
from llm_training.errors import ConfigError, IntegrityError
from llm_training.model.families import load_hf_tensors
from llm_training.model.hf_config import from_hf_config
from llm_training.model.transformer import Transformer
from llm_training.runtime.device import Device, Precision, choose_device, choose_precision
from llm_training.storage.links import is_pointer, read_pointer
from llm_training.storage.reading import read_json
from llm_training.storage.runs import RUNS_DIRECTORY
from llm_training.tokenizer.tokenizer import Tokenizer, load_tokenizer

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode on its device, with its tokenizer."""

    path: Path
    model: Transformer
    tokenizer: Tokenizer
    device: Device
    precision: Precision


def locate_model(path: str) -> Path:
    """The directory with ``config.json`` and weights that ``path`` means; ``latest`` and other pointers are resolved once.

    Raises:
        ConfigError: there is nothing of that name.
        IntegrityError: no checkpoint there verifies.
    """
    place = Path(path)
    named = Path(RUNS_DIRECTORY) / path
    if not place.exists() and named.is_dir():
        place = named
    if is_pointer(place) and (target := read_pointer(place)) is not None:
        place = place.parent / target
    if (place / CONFIG_FILE).is_file():
        return place
    if not place.exists():
        raise ConfigError("there is no model here", where=path, remedy="give a checkpoint, a run, or a Hugging Face directory")
    store = place / "checkpoints" if (place / "checkpoints").is_dir() else place
    found = find_checkpoint(store, quarantine=False) if store.is_dir() else None
    if found is None:
        raise IntegrityError(
            "there is no checkpoint here", where=str(place), remedy="give a checkpoint, a run, or a Hugging Face directory"
        )
    return found.path


def load_model(path: str, *, device: str = "auto", precision: str = "fp32") -> LoadedModel:
    """Load weights and tokenizer.

    Raises:
        ConfigError: nothing is there, or the architecture is not one of the three families.
        IntegrityError: damage, missing or unknown weights, a pickle.
    """
    place = locate_model(path)
    chosen = choose_device(device)
    model = Transformer(from_hf_config(read_json(place / CONFIG_FILE)))
    load_hf_tensors(model, load_model_directory(place))
    if not any((place / name).is_file() for name in TOKENIZER_FILES):
        raise IntegrityError("the directory has no tokenizer", where=str(place), remedy="put its tokenizer.json beside config.json")
    tokenizer = load_tokenizer(place)
    if tokenizer.vocab_size > model.spec.vocab_size:
        raise IntegrityError(
            f"the tokenizer has {tokenizer.vocab_size} entries, the model {model.spec.vocab_size}",
            where=str(place),
            remedy="use the tokenizer the model was trained with",
        )
    model.to(chosen.torch).eval()
    return LoadedModel(place, model, tokenizer, chosen, choose_precision(precision, chosen))
