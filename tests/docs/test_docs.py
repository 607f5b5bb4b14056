"""The guides against the program: commands, flags, links, tables and named tests. Nothing is trained here."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_training import errors
from llm_training.cli import door
from llm_training.cli.commands import COMMANDS
from llm_training.cli.fields import split_fields
from llm_training.config.aliases import FIXED, RENAMES, TRANSLATIONS
from llm_training.config.files import preset_names
from llm_training.config.given import Value
from llm_training.config.load import load_config
from llm_training.config.names import UnknownNameError, resolve, spelled

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))
BY_NAME = {str(page.relative_to(ROOT)): page for page in PAGES}

# Rows of the faults of the data side by letter; E-6 is one more.
RELIABILITY_ROWS = {"P": 10, "T": 7, "C": 12}
# Rows of the checklist by section: how many each has; section 18 is one row.
CHECKLIST_ROWS = (22, 4, 11, 17, 18, 7, 7, 8, 11, 12, 6, 7, 11, 14, 6, 5, 4)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(
    r"(?:^|\| )(?:llm-(?P<word>[a-z-]+)|(?P<launcher>python|torchrun)\b.*?-m llm_training(?P<main>\.main)?)(?P<rest> .*|$)"
)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@functools.cache
def text_of(page: str) -> str:
    return BY_NAME[page].read_text(encoding="utf-8")


@dataclass(frozen=True)
class Written:
    """A command as a page has it."""

    page: str
    line: str

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def shell_lines() -> Iterator[Written]:
    for page in BY_NAME:
        for language, block in _FENCE.findall(text_of(page)):
            if language in ("bash", "sh", "console", "shell"):
                for line in block.replace("\\\n", " ").splitlines():
                    yield Written(page, line.removeprefix("$ ").strip())


def commands_of(written: Written) -> list[tuple[str, list[str]]]:
    """(command word, its words) of a shell line; empty for a line of another program."""
    words = " ".join(shlex.quote(word) for word in shlex.split(written.line, comments=True))
    found = _COMMAND.search(words)
    if not found:
        return []
    rest = shlex.split(found["rest"] or "")
    if found["word"]:
        return [(found["word"], rest)]
    return [("train", rest)] if found["main"] else [(rest[0].removeprefix("llm-"), rest[1:])]


COMMAND_LINES = [written for written in shell_lines() if commands_of(written)]


def test_there_are_commands_to_check() -> None:
    assert len(COMMAND_LINES) > 50
    assert {word for written in COMMAND_LINES for word, _ in commands_of(written)} == set(COMMANDS)


@pytest.mark.parametrize("written", COMMAND_LINES, ids=str)
def test_commands_of_the_guides_parse(written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for word, words in commands_of(written):
        assert word in COMMANDS, f"{written}: there is no llm-{word}"
        command = getattr(importlib.import_module(COMMANDS[word].module), word.replace("-", "_"))
        words = [given for given in words if given != "--debug"]
        if word not in ("train", "build-cache", "prepare-data"):
            door.parse_words(command, words)
            continue
        split = split_fields(command, words)
        values: list[tuple[str, Value]] = list(split.values)
        bound = door.parse_words(functools.partial(command, values), split.rest)
        assert callable(bound)
        files = [value for flag, value in zip(split.rest, split.rest[1:], strict=False) if flag == "--config"]
        load_config(files, {}, values)  # names, values and presets


@pytest.mark.parametrize("page", BY_NAME)
def test_commands_named_in_running_text_exist(page: str) -> None:
    for line in statements(text_of(page)):
        for span in _SPAN.findall(line):
            found = re.match(r"llm-([a-z]+(?:-[a-z]+)*)(?= |$)", span)
            if found and found[1] not in COMMANDS and found[0] != "llm-training":
                assert "not yet" in line, f"{page}: {span} does not exist, and the line does not say so"


def statements(text: str) -> list[str]:
    """Rows of tables, items of lists and paragraphs, each in one line; blocks of code left out."""
    return re.sub(r"\n(?![\n|-])", " ", _FENCE.sub("", text)).splitlines()


def is_flag(flag: str, own: set[str]) -> bool:
    """True for a flag of some command and for any spelling of a configuration field."""
    if flag.replace("_", "-") in own:
        return True
    try:
        return bool(resolve(spelled(flag[2:]).removeprefix("no_")))
    except UnknownNameError:
        return False


@pytest.mark.parametrize("page", BY_NAME)
def test_flags_named_in_running_text_exist(page: str) -> None:
    """Every flag is ours, another program's (whose name is in the span or the line), or said not to be there yet."""
    own = {flag for word in COMMANDS for flag in re.findall(r"--[a-z][a-z0-9-]*", door.help_text(word))} | {"--NAME", "--no-NAME"}
    for line in statements(text_of(page)):
        if re.search(r"torchrun|tensorboard|not yet| yet\)", line):
            continue
        for flag in re.findall(r"(?<!\S)--[A-Za-z][\w.-]*", " ".join(_SPAN.findall(line))):
            assert is_flag(flag, own), f"{page}: unknown flag {flag}"


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", BY_NAME)
def test_internal_links_resolve(page: str) -> None:
    for target in _LINK.findall(_FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (BY_NAME[page].parent / path).resolve() if path else BY_NAME[page]
        assert place.exists(), f"{page}: {target} leads nowhere"
        assert not anchor or anchor in slugs(place), f"{page}: {target} names no heading"


def test_every_page_is_reached_from_the_index() -> None:
    linked = set(_LINK.findall(text_of("docs/index.md")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert set(re.findall(r": ([\w-]+\.md)$", navigation, re.MULTILINE)) == {page.name for page in (ROOT / "docs").glob("*.md")}


def checklist() -> dict[str, str]:
    rows = re.findall(r"^\| (\d+(?:\.\d+)?) \| (.+) \|$", text_of("docs/checklist.md"), re.MULTILINE)
    assert len({number for number, _ in rows}) == len(rows), "a row number comes twice"
    return dict(rows)


def test_the_checklist_has_every_row() -> None:
    expected = {f"{section}.{row}" for section, count in enumerate(CHECKLIST_ROWS, 1) for row in range(1, count + 1)} | {"18"}
    assert set(checklist()) == expected


def test_every_row_names_a_test_or_says_not_yet() -> None:
    for number, text in checklist().items():
        shown = text.rpartition(" | ")[2]
        is_honest = shown.startswith(("not yet", "in part: ")) or _TEST.match(shown)
        assert is_honest, f"row {number}: {shown}"
        if not shown.startswith("not yet") and "yet" not in shown:
            assert _TEST.search(shown) or "benchmarks/" in shown, f"row {number} names no test"


def test_every_fault_has_its_row_and_its_test() -> None:
    rows = dict(re.findall(r"^\| ([A-Z]-\d+) \| (.+) \|$", text_of("docs/reliability.md"), re.MULTILINE))
    assert set(rows) == {f"{letter}-{row}" for letter, count in RELIABILITY_ROWS.items() for row in range(1, count + 1)} | {"E-6"}
    for number, text in rows.items():
        _, does, shown = text.split(" | ")
        assert does and _TEST.match(shown.removeprefix("in part: ")), f"row {number}: {shown}"
        assert not shown.startswith("in part: ") or shown.endswith(")"), f"row {number} does not say what is missing"


@pytest.mark.parametrize("page", BY_NAME)
def test_named_tests_and_files_exist(page: str) -> None:
    for path, name in _TEST.findall(text_of(page)):
        file = ROOT / path
        assert file.is_file(), f"{page}: there is no {path}"
        assert re.search(rf"^\s*def {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE), f"{page}: no {name} in {path}"
    for path in re.findall(r"`((?:benchmarks|scripts|tests|docs|src)/[\w/.-]+\.(?:py|md|yaml|txt))`", text_of(page)):
        assert (ROOT / path).is_file(), f"{page}: there is no {path}"


def test_files_of_the_architecture_exist() -> None:
    page = text_of("docs/architecture.md")
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", page) + re.findall(r"`((?:\w+/)+)`", page):
        if path not in ("api/", "components/"):
            assert (ROOT / "src" / "llm_training" / path).exists() or (ROOT / path).exists(), path
    rooms = {path.name for path in (ROOT / "src" / "llm_training").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    drawn = set(re.findall(r"^  (\w+)/ ", page, re.MULTILINE))
    assert drawn == rooms


def test_layers_of_the_architecture_are_those_that_are_checked() -> None:
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    checked = [set(re.findall(r"llm_training\.(\w+)", layer)) - {"__main__"} for layer in layers]
    cells = re.findall(
        r"^\| (?:doors|application|engines|domain|platform|ground) \| (.+) \|$", text_of("docs/architecture.md"), re.MULTILINE
    )
    drawn = [set(re.findall(r"\w+", cell)) - {"then"} for cell in cells]
    assert set().union(*drawn) == set().union(*checked)
    assert all(any(layer <= row for row in drawn) for layer in checked)


def test_exit_codes_are_those_of_the_errors() -> None:
    table = text_of("docs/training.md").partition("## Exit codes")[2]
    documented = [int(code) for code in re.findall(r"^\| (\d+) \| ", table, re.MULTILINE)]
    known = {error.exit_code for error in vars(errors).values() if isinstance(error, type) and issubclass(error, errors.LlmTrainingError)}
    assert documented == sorted(known | {0})
    codes = {f"E{code:02d}" for code in known}
    assert set(re.findall(r"^\| `error\[(E\d+)\]`", text_of("docs/troubleshooting.md"), re.MULTILINE)) == codes


def test_old_names_are_those_of_the_program() -> None:
    rows = re.findall(r"^\| `([a-z]+\.\w+)` \| (.+) \|$", text_of("docs/old-names.md").partition("## Words")[0], re.MULTILINE)
    assert {field: tuple(_SPAN.findall(others)) for field, others in rows} == dict(RENAMES)
    spans = set(_SPAN.findall(text_of("docs/old-names.md")))
    others = {name.rpartition(".")[2] for name in (*TRANSLATIONS, *FIXED)} - {"size", "resume"}
    assert others <= spans, f"not explained: {sorted(others - spans)}"


def test_presets_are_all_described() -> None:
    cells = re.findall(r"^\| (`.+?) \| ", text_of("docs/presets.md"), re.MULTILINE)
    assert sorted(name for cell in cells for name in _SPAN.findall(cell)) == preset_names()


def test_records_of_the_metrics_are_documented() -> None:
    import dataclasses

    from llm_training.monitoring.jsonl import _FIELD_NAMES, KINDS

    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", text_of("docs/monitoring.md"), re.MULTILINE))
    for event, kind in KINDS.items():
        fields = {_FIELD_NAMES.get(field.name, field.name) for field in dataclasses.fields(event)}
        assert set(_SPAN.findall(rows.pop(kind))) == fields, kind
    assert not rows


def test_schedules_and_lengths_are_documented() -> None:
    from llm_training.training.schedules import SCHEDULES

    page = text_of("docs/training.md")
    assert set(
        re.findall(r"^\| `(\w+)`(?: \(default\))? \| [^|]+ \|$", page.partition("| shape |")[2].partition("\n\n")[0], re.MULTILINE)
    ) == set(SCHEDULES)


def test_defaults_of_the_optimizers_are_the_documented() -> None:
    from llm_training.jobs import rates

    page = text_of("docs/training.md")
    assert f"| `muon_learning_rate` | {rates.MUON_RATE} | |" in page
    assert f"| `learning_rate` | {rates.MUON_ADAMW_RATE} | {rates.ADAMW_RATE} x min(1, {rates.ADAMW_RATE_WIDTH} / width) |" in page
    assert f"| `embedding_learning_rate` | {rates.EMBEDDING_RATE_RATIO:.0f} x `learning_rate`; tied, or gpt2: `learning_rate` |" in page
    assert f"| {rates.MUON_BETA1}, 0.95, 1e-8 | {rates.ADAMW_BETA1}, 0.95, 1e-8 |" in page
    assert f"| `weight_decay` | 0 | {rates.ADAMW_WEIGHT_DECAY} |" in page


def test_commands_page_has_each_command() -> None:
    assert re.findall(r"^## llm-([\w-]+)$", text_of("docs/commands.md"), re.MULTILINE) == list(COMMANDS)
    rows = dict(re.findall(r"^\| `llm-([\w-]+)` \| (.+) \|$", text_of("README.md"), re.MULTILINE))
    assert rows == {word: fact.summary for word, fact in COMMANDS.items()}


@pytest.mark.parametrize("page", BY_NAME)
def test_configurations_in_the_guides_load(page: str, tmp_path: Path) -> None:
    for language, block in _FENCE.findall(text_of(page)):
        if language in ("yaml", "toml"):
            path = tmp_path / f"given.{language}"
            path.write_text(block, encoding="utf-8")
            load_config([str(path)])


@pytest.mark.parametrize("page", BY_NAME)
def test_no_page_names_a_machine(page: str) -> None:
    found = re.findall(r"(?:^|[\s`\"'(=])(/(?:home|root|work|tmp|Users|mnt|opt|var|usr|etc)/\S*|[A-Z]:\\\S*)", text_of(page), re.MULTILINE)
    assert not found, f"{page}: {found}"
