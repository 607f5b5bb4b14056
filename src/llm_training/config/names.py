"""From a name as written to the field it means: flat or dotted, canonical or alias, with the nearest known name otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache

from llm_training.config.aliases import ELSEWHERE, FIXED, FLAT_OWNERS, RENAMES, SECTION_ONLY, TRANSLATIONS, Meaning, Translate
from llm_training.config.fields import all_fields, section_names
from llm_training.config.given import Value, shown

MAX_NAME_CHARACTERS = 100


class UnknownNameError(Exception):
    """No field has this name. The text says so and names the nearest; ``nearest`` is that name or empty."""

    def __init__(self, what: str, nearest: str = "") -> None:
        super().__init__(what)
        self.nearest = nearest


def spelled(name: str) -> str:
    """Dashes are underscores, as on the command line."""
    return name.strip().replace("-", "_")


@cache
def dotted_spellings() -> Mapping[str, Translate]:
    """Every accepted ``section.name`` with what it does to its value."""
    found: dict[str, Translate] = {name: _keep(target) for name, target in _renames().items()}
    found.update(FIXED)
    found.update(TRANSLATIONS)
    return found


@cache
def flat_spellings() -> Mapping[str, tuple[str, ...]]:
    """Every flat name with the dotted spellings it could mean; one means it is unambiguous."""
    found: dict[str, list[str]] = {}
    elsewhere = {f"{section}.{key}" for section, targets in ELSEWHERE.items() for target in targets for key in _keys(target)}
    for dotted in dotted_spellings():
        if dotted not in elsewhere:
            found.setdefault(dotted.partition(".")[2], []).append(dotted)
    for flat in list(found):
        found[flat] = _distinct(found[flat])
    found.update({flat: [owner] for flat, owner in FLAT_OWNERS.items()})
    return {flat: tuple(dotted) for flat, dotted in found.items()}


def resolve(name: str) -> str:
    """The dotted spelling that ``name`` means. Raises :class:`UnknownNameError` for an unknown or ambiguous one."""
    key = spelled(name)
    if "." in key:
        if key in dotted_spellings():
            return key
        raise _unknown(key)
    if key in section_names():
        raise UnknownNameError(f"{key} is a section, not a value; write {key}.NAME")
    candidates = flat_spellings().get(key, ())
    if key in SECTION_ONLY or len(candidates) > 1:
        raise UnknownNameError(f"{key} could mean {' or '.join(candidates)}; write the section too")
    if not candidates:
        raise _unknown(key)
    return candidates[0]


def meaning(dotted: str, value: Value) -> Meaning:
    """What the spelling sets. Raises :class:`llm_training.config.aliases.RefusedError` for a value it cannot honour."""
    return dotted_spellings()[dotted](value)


@cache
def _renames() -> Mapping[str, str]:
    """Every dotted spelling that only renames, with the field it means."""
    found: dict[str, str] = {name: name for name in all_fields()}
    for target, others in RENAMES.items():
        found.update({f"{target.partition('.')[0]}.{other}": target for other in others})
    for section, targets in ELSEWHERE.items():
        found.update({f"{section}.{key}": target for target in targets for key in _keys(target) if key not in SECTION_ONLY})
    return found


def renamed(dotted: str) -> str:
    """The field that takes the value of this spelling unchanged, or an empty text when the value is translated or fixed."""
    return _renames().get(dotted, "")


def _keep(target: str) -> Translate:
    return lambda value: Meaning(target, value)


def _keys(target: str) -> tuple[str, ...]:
    return (target.partition(".")[2], *RENAMES.get(target, ()))


def _distinct(dotted: list[str]) -> list[str]:
    """One spelling for each thing meant: ``training.`` and ``model.use_flash_attention`` are one translation, twice placed."""
    placed_twice = all(name in TRANSLATIONS or name in FIXED for name in dotted)
    return dotted[:1] if placed_twice else dotted


def _unknown(key: str) -> UnknownNameError:
    section, dot, leaf = key.partition(".")
    if dot and section in section_names():
        owner = flat_spellings().get(leaf, ())
        if len(owner) == 1 and leaf not in SECTION_ONLY:
            return UnknownNameError(f"unknown field {shown(key, quote=False)}; did you mean {owner[0]}?", owner[0])
    nearest = nearest_name(key)
    hint = f"; did you mean {nearest}?" if nearest else ""
    return UnknownNameError(f"unknown field {shown(key, quote=False)}{hint}", nearest)


def nearest_name(key: str) -> str:
    """The known dotted name nearest to ``key`` (flat or dotted; its own section first), or an empty text."""
    if len(key) > MAX_NAME_CHARACTERS:
        return ""
    section, dot, leaf = key.lower().rpartition(".")
    own = {name.partition(".")[2]: name for name in dotted_spellings() if dot and name.startswith(f"{section}.")}
    everywhere = {name.partition(".")[2]: name for name in reversed([*dotted_spellings()])}
    for known in (own, everywhere):
        best = get_close_matches(leaf, known, n=1, cutoff=0.7)
        if best:
            return known[best[0]]
    return ""
