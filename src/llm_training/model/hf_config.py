"""``config.json`` in and out: the Hugging Face spelling of a ``ModelSpec``.

Reads both spellings of the rotary keys (``rope_theta`` and ``rope_scaling`` at the top level, as transformers 4 wrote them, and
``rope_parameters`` as transformers 5 does) and writes both, so that either version reads our directories. A setting that would
change the arithmetic and that this transformer does not have (sliding windows, scaled attention by layer, other rotary types) is
refused by name rather than ignored: ignoring it would give other logits silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_training.errors import ConfigError, IntegrityError
from llm_training.model.spec import FAMILIES, ModelSpec, RopeScaling

ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel"}

# Theirs -> ours. Several names of theirs mean the same function.
_ACTIVATIONS_IN = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_ACTIVATIONS_OUT = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}

# spec field -> key of config.json, where the value is the same.
_LLAMA_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate_size": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
    "attention_dropout": "attention_dropout",
    "attention_bias": "attention_bias",
}
_KEYS = {
    "qwen3": _LLAMA_KEYS,
    "llama": {**_LLAMA_KEYS, "mlp_bias": "mlp_bias"},
    "gpt2": {
        "vocab_size": "vocab_size",
        "hidden_size": "n_embd",
        "num_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "max_seq_len": "n_positions",
        "norm_eps": "layer_norm_epsilon",
        "tie_embeddings": "tie_word_embeddings",
        "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
    },
}
# What transformers takes when the key is absent, wherever it differs from ours or is required here.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen3": {"max_seq_len": 32768, "head_dim": 128, "norm_eps": 1e-6},
    "llama": {"max_seq_len": 2048, "norm_eps": 1e-6},
    "gpt2": {"max_seq_len": 1024, "tie_embeddings": True, "dropout": 0.1, "attention_dropout": 0.1},
}
_REQUIRED = ("vocab_size", "hidden_size", "num_layers", "num_attention_heads")
# key -> the only value that means what this transformer computes.
_FIXED: dict[str, dict[str, object]] = {
    "qwen3": {"use_sliding_window": False},
    "llama": {},
    "gpt2": {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
}


def from_hf_config(config: Mapping[str, Any], *, attention: str = "auto") -> ModelSpec:
    """The spec that a ``config.json`` describes.

    Raises:
        IntegrityError: a needed key is missing or has the wrong type.
        ConfigError: the model is of a family, or has a setting, that this program does not compute.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ConfigError(
            f"model_type is {family!r}; known: {', '.join(FAMILIES)}", where="config.json", remedy="choose a model of these families"
        )
    keys = _KEYS[family]
    missing = [keys[name] for name in _REQUIRED if config.get(keys[name]) is None]
    if family != "gpt2" and config.get("intermediate_size") is None:
        missing.append("intermediate_size")
    if missing:
        raise IntegrityError(f"config.json lacks {', '.join(missing)}", where="config.json", remedy="use a complete model directory")
    _refuse_unsupported(config, family)
    values = dict(_DEFAULTS[family])
    values.update({name: config[key] for name, key in keys.items() if config.get(key) is not None})
    values["activation"] = _activation(config, family)
    if FAMILIES[family].uses_rope:
        values["rope_theta"], values["rope_scaling"] = _read_rope(config, values["max_seq_len"])
    _check_types(values)
    return ModelSpec(family=family, attention=attention, **values)


def to_hf_config(
    spec: ModelSpec,
    *,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    dtype: str = "float32",
) -> dict[str, Any]:
    """``config.json`` of the model, as plain JSON values, for transformers 4 and 5 alike."""
    config: dict[str, Any] = {"architectures": [ARCHITECTURES[spec.family]], "model_type": spec.family}
    config.update({key: getattr(spec, name) for name, key in _KEYS[spec.family].items()})
    config.update(_FIXED[spec.family])
    activation = _ACTIVATIONS_OUT[spec.activation]
    if spec.family == "gpt2":
        config.update({"activation_function": activation, "embd_pdrop": spec.dropout})
    else:
        config.update({"hidden_act": activation, **_write_rope(spec)})
    config.update({"bos_token_id": bos_token_id, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id})
    config.update({"initializer_range": 0.02, "use_cache": True, "torch_dtype": dtype, "dtype": dtype})
    return config


def to_generation_config(
    *, bos_token_id: int | None = None, eos_token_id: int | None = None, pad_token_id: int | None = None
) -> dict[str, Any]:
    """``generation_config.json``: greedy unless the caller asks otherwise, as transformers does."""
    ids = {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    return {"_from_model_config": True, **{name: value for name, value in ids.items() if value is not None}}


def _activation(config: Mapping[str, Any], family: str) -> str:
    key, default = ("activation_function", "gelu_new") if family == "gpt2" else ("hidden_act", "silu")
    name = config.get(key) or default
    if name not in _ACTIVATIONS_IN:
        raise ConfigError(f"{key} is {name!r}; known: {', '.join(_ACTIVATIONS_IN)}", where="config.json", remedy="choose another model")
    return _ACTIVATIONS_IN[name]


def _refuse_unsupported(config: Mapping[str, Any], family: str) -> None:
    problems = [
        f"config.json: {key} is {config[key]!r}; only {value!r} is computed here"
        for key, value in _FIXED[family].items()
        if config.get(key) is not None and config[key] != value
    ]
    layer_types = config.get("layer_types") or []
    if any(kind != "full_attention" for kind in layer_types):
        problems.append("config.json: layer_types has other than 'full_attention'; sliding windows are not computed here")
    if family == "gpt2" and config.get("embd_pdrop", 0.1) != config.get("resid_pdrop", 0.1):
        problems.append(f"config.json: embd_pdrop {config.get('embd_pdrop')} and resid_pdrop {config.get('resid_pdrop')} must be equal")
    if problems:
        raise ConfigError("the model has settings that are not computed here", where="config.json", problems=problems)


def _check_types(values: Mapping[str, Any]) -> None:
    floats = {"rope_theta", "norm_eps", "dropout", "attention_dropout"}
    flags = {"tie_embeddings", "attention_bias", "mlp_bias"}
    for name, value in values.items():
        if name in ("activation", "rope_scaling"):
            continue
        wanted = bool if name in flags else (int, float) if name in floats else int
        if not isinstance(value, wanted) or (isinstance(value, bool) and name not in flags):
            raise IntegrityError(f"{name} is {value!r}, not a {'flag' if name in flags else 'number'}", where="config.json")


def _read_rope(config: Mapping[str, Any], max_seq_len: Any) -> tuple[Any, RopeScaling | None]:
    """Base and scaling from either spelling; transformers 5 nests the base, transformers 4 has it at the top."""
    nested = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(nested, Mapping):
        raise IntegrityError(f"the rotary settings are {nested!r}, not a mapping", where="config.json")
    theta = nested.get("rope_theta") or config.get("rope_theta") or 10_000.0
    kind = nested.get("rope_type") or nested.get("type") or "default"
    if nested.get("partial_rotary_factor", 1.0) != 1.0 or config.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConfigError("partial_rotary_factor other than 1 is not computed here", where="config.json", remedy="choose another model")
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3"):
        raise ConfigError(
            f"rope type {kind!r} is not computed here; known: default, linear, llama3", where="config.json", remedy="choose another model"
        )
    names = {"factor": "factor", "low_freq_factor": "low_freq_factor", "high_freq_factor": "high_freq_factor"}
    if kind == "llama3":
        names["original_max_seq_len"] = "original_max_position_embeddings"
    values = {ours: nested[theirs] for ours, theirs in names.items() if nested.get(theirs) is not None}
    if "factor" not in values:
        raise IntegrityError(f"rope type {kind!r} needs a factor", where="config.json")
    values.setdefault("original_max_seq_len", max_seq_len)
    return theta, RopeScaling(rope_type=kind, **values)


def _write_rope(spec: ModelSpec) -> dict[str, Any]:
    scaling = spec.rope_scaling
    if scaling is None:
        return {"rope_theta": spec.rope_theta, "rope_parameters": {"rope_theta": spec.rope_theta, "rope_type": "default"}}
    values: dict[str, Any] = {"rope_type": scaling.rope_type, "factor": scaling.factor}
    if scaling.rope_type == "llama3":
        values.update(
            low_freq_factor=scaling.low_freq_factor,
            high_freq_factor=scaling.high_freq_factor,
            original_max_position_embeddings=scaling.original_max_seq_len,
        )
    return {
        "rope_theta": spec.rope_theta,
        "rope_scaling": dict(values),
        "rope_parameters": {"rope_theta": spec.rope_theta, **values},
    }
