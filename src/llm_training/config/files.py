"""Configuration files: finding them by path or name, reading them with bounds, and flattening them into settings."""

from __future__ import annotations

import codecs
import stat
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from llm_training.config.fields import section_names
from llm_training.config.given import Given, Origin, shown
from llm_training.config.json_text import read_json, read_toml
from llm_training.config.names import spelled
from llm_training.config.yaml_text import Setting, read_yaml
from llm_training.errors import ConfigError

MAX_FILE_BYTES: Final = 1_048_576
PRESET_DIRECTORY: Final = Path(__file__).parent / "presets"
CONFIG_DIRECTORY: Final = Path("config")
DEFAULT_FILE: Final = CONFIG_DIRECTORY / "default.yaml"

_READERS: Final[Mapping[str, Callable[[str, str], list[Setting]]]] = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".json": read_json,
    ".toml": read_toml,
}


def preset_names() -> list[str]:
    """Names that ``--config`` accepts without any file of the user's."""
    return sorted(path.stem for path in PRESET_DIRECTORY.glob("*.yaml"))


def find_config(name: str) -> Path:
    """The file that ``--config NAME`` means: a path, a name in ``config/``, or a shipped preset, in this order.

    Raises :class:`ConfigError` naming the nearest known name.
    """
    if "\0" in name:
        raise ConfigError(f"--config {shown(name)} is not a path")
    if name.endswith(tuple(_READERS)) or "/" in name or "\\" in name:
        if _exists(Path(name)):
            return Path(name)
    else:
        for suffix in _READERS:
            if _exists(CONFIG_DIRECTORY / (name + suffix)):
                return CONFIG_DIRECTORY / (name + suffix)
        if name in preset_names():
            return PRESET_DIRECTORY / f"{name}.yaml"
        if _exists(Path(name)):
            return Path(name)
    known = [*preset_names(), *(path.stem for path in CONFIG_DIRECTORY.glob("*") if path.suffix in _READERS)]
    nearest = get_close_matches(Path(name).stem[:100], known, n=1, cutoff=0.6)
    remedy = f"did you mean --config {nearest[0]}?" if nearest else f"shipped presets: {', '.join(preset_names())}"
    raise ConfigError(f"no configuration {shown(name)}: neither a file, nor a name in config/, nor a preset", remedy=remedy)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the file system, or a folder that may not be searched
        return False


def source_name(path: Path) -> str:
    """How origins show a file: a preset by its name, anything else by its path."""
    return f"preset {path.stem}" if path.parent == PRESET_DIRECTORY else str(path)


def read_file(path: Path) -> list[Given]:
    """The settings of one file. Raises :class:`ConfigError` when it cannot be read or is not a configuration."""
    source = source_name(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{shown(path.name)} is of no known type", where=source, remedy=f"use one of {', '.join(_READERS)}")
    return flatten(reader(_decode(_read_bytes(path, source), source), source), source)


def _read_bytes(path: Path, source: str) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError("not a regular file", where=source)
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration ({error.strerror or error})", where=source) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"the file is {path.stat().st_size:,} bytes, a configuration at most {MAX_FILE_BYTES:,}", where=source)
    return data


def _decode(data: bytes, source: str) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start})"
        raise ConfigError(what, where=f"{source}:{line}", remedy="save the file as UTF-8") from None


def flatten(settings: Sequence[Setting], source: str) -> list[Given]:
    """Sectioned and flat keys as one list with dotted names."""
    given: list[Given] = []
    for setting in settings:
        is_section = spelled(setting.key) in section_names()
        if is_section and setting.inner is not None:
            given += [Given(f"{setting.key}.{inner.key}", inner.value, Origin(source, inner.line)) for inner in setting.inner]
        elif not is_section or setting.value is not None:  # an empty section says nothing
            given.append(Given(setting.key, setting.value, Origin(source, setting.line)))
    return given
