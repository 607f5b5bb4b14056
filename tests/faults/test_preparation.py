"""P-1 to P-10: text that is wrong, endless, unreadable or hostile, and preparations that are killed or meet a full disk."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_training.__main__ import main
from llm_training.corpus import CorpusSettings, SliceReader, make_plan, open_corpus
from llm_training.errors import DataError
from llm_training.storage.manifest import verify
from llm_training.tokenizer import load_tokenizer
from tests.end_to_end.tiny import write_corpus
from tests.faults.commands import as_nobody, in_a_process, kill_again_and_again, small_disk
from tests.jobs.test_cleaning import write_corpus as write_noisy

RAW = ("--cleaning", "none")
BLOCK = 7
# Bytes and the offset of the first wrong one.
BAD_BYTES = {
    "lone ff": (b"abc\xffdef", 3),
    "two bytes cut at the end": ("abcé".encode()[:-1], 3),
    "three bytes cut at the end": ("ab€".encode()[:-1], 2),
    "four bytes cut at the end": ("a😀".encode()[:-1], 1),
    "cut where a block ends": (b"abcdef\xe2xyz", 6),
    "overlong in two bytes": (b"ok\xc0\x80", 2),
    "overlong in three bytes": (b"ok\xe0\x80\xaf", 2),
    "utf-16, little end first": ("text".encode("utf-16-le").join([b"\xff\xfe", b""]), 0),
    "utf-16, big end first": ("text".encode("utf-16-be").join([b"\xfe\xff", b""]), 0),
    "surrogates as in cesu-8": (b"a\xed\xa0\xbd\xed\xb8\x80", 1),
    "lone continuation": (b"\x80", 0),
    "beyond the last code point": (b"x\xf4\x90\x80\x80", 1),
}


def read_with(uris: list[Path], **settings: object) -> tuple[list[str], SliceReader]:
    corpus = open_corpus([str(uri) for uri in uris], CorpusSettings(slice_bytes=BLOCK, **settings))  # pyright: ignore[reportArgumentType]
    reader = SliceReader(corpus, make_plan(corpus))
    try:
        return [document.text for document in reader.documents()], reader
    finally:
        reader.close()


def test_there_are_twelve() -> None:
    assert len(BAD_BYTES) == 12


@pytest.mark.parametrize("form", ["text", "jsonl"])
@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_bytes_are_named_or_counted_and_never_passed_over(tmp_path: Path, name: str, form: str) -> None:
    """P-1, with blocks of 7 bytes."""
    wrong, offset = BAD_BYTES[name]
    good = "good € 😀 text\n"
    bad = [tmp_path / f"bad{number}.{'txt' if form == 'text' else 'jsonl'}" for number in range(5)]
    before = b"line\n" if form == "text" else b'{"text": "line"}\n{"text": "'
    for path in bad:
        path.write_bytes(before + wrong + (b"" if form == "text" else b'"}\n'))
    (tmp_path / "good.txt").write_text(good)
    place = rf"bad0\.\w+, line 2, byte offset {len(before) + offset}\b"
    with pytest.raises(DataError, match=rf"^undecodable .*{place}") as caught:
        read_with([bad[0]])
    assert caught.value.exit_code == 3
    texts, reader = read_with([tmp_path / "good.txt", bad[0]], skip_bad=True)
    assert reader.report.dropped["undecodable"] == reader.report.num_bad >= 1
    assert good in "".join(texts), "what is good stays"
    readable = good + (before + wrong).decode(errors="replace")
    assert all(text in readable for text in texts), "nothing is made up"
    with pytest.raises(DataError, match=r"documents are bad, more than the 1\.0% allowed \(first: undecodable at "):
        read_with([tmp_path / "good.txt", *bad], skip_bad=True)
    if form == "jsonl" and b"\0" in wrong:  # no matter of bytes only: JSON may not hold what is left
        with pytest.raises(DataError, match=rf"^invalid json \(Invalid control character .*{bad[0].name}, line 2"):
            read_with(bad, replace_bad_bytes=True)
        return
    texts, reader = read_with([tmp_path / "good.txt", *bad], replace_bad_bytes=True)
    replaced = wrong.decode(errors="replace")
    assert "".join(texts) == good + (f"line\n{replaced}" if form == "text" else f"line{replaced}") * 5, "and nothing else is changed"
    assert reader.report.num_replaced >= 5 and not reader.report.num_bad and not reader.report.dropped
    assert reader.report.first_replaced == (bad[0].name, len(before) + offset)
    texts, reader = read_with([tmp_path / "good.txt"], replace_bad_bytes=True)
    assert "".join(texts) == good and reader.report.num_replaced == 0


def test_half_of_a_surrogate_pair_is_bad_text_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P-2: also in an id, a field or the name of a field, which are written again."""
    records = [b'{"text": "\\ud800"}', b'{"text": "x", "id": "\\udc00"}', b'{"text": "x", "n": "\\ud800"}', b'{"text": "x", "\\ud800": 1}']
    for number, record in enumerate(records):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(b'{"text": "one"}\n' * 20 + record + b"\n")
        words = ["prepare-data", str(path), "--output", str(tmp_path / f"out{number}"), "--vocab-size", "257", *RAW, "--allow-leaks"]
        assert main(words) == 3
        assert (
            f"error[E03]: lone surrogate (the text or a field holds half of a surrogate pair); at {path}, line 21"
            in capsys.readouterr().err
        )
        assert main([*words, "--skip-bad"]) == 0
        assert "lone surrogate" in capsys.readouterr().out


# P-3: writes a file of some megabytes, then reads or prepares it with a bound on the address space, and prints what it took.
LONG_PROGRAM = """
import contextlib, io, json, resource, sys
from pathlib import Path
from llm_training.__main__ import main
from llm_training.corpus import CorpusSettings, SliceReader, make_plan, open_corpus
from llm_training.errors import DataError
from tests.faults.source_memory import peak_bytes
verb, path, megabytes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
before, filling, after = map(str.encode, sys.argv[4:7])
with path.open("wb") as file:
    file.write(before)
    for _ in range(megabytes):
        file.write(filling * (1_000_000 // len(filling)))
    file.write(after)
resource.setrlimit(resource.RLIMIT_AS, (4_000_000_000, resource.getrlimit(resource.RLIMIT_AS)[1]))
said, longest = "", 0
WORDS = {
    "prepare": ["prepare-data", "--output", str(path.parent / "out"), "--cleaning", "none", "--tokenizer", "bytes"],
    "pack": ["build-cache", "--cache-dir", str(path.parent / "cache"), "--tokenizer.path", "bytes", "--sequence-length", "256"],
}
if verb in WORDS:
    with contextlib.redirect_stdout(io.StringIO()):
        said = str(main([*WORDS[verb], str(path)]))
else:
    corpus = open_corpus([str(path)], CorpusSettings())
    try:
        for document in SliceReader(corpus, make_plan(corpus)).documents():
            longest = max(longest, len(document.text))
    except DataError as error:
        said = str(error)
print(json.dumps({"peak": peak_bytes() / 1e6, "said": said, "longest": longest}))
"""
# Name of the file, its megabytes, what it begins with, is made of and ends with, the length of its longest document, what is said.
LONG = {
    "at the limit": ("x.jsonl", 31, '{"text": "', "x", '"}\n{"text": "short"}\n', 31_000_000, ""),
    "over the limit": ("x.jsonl", 100, '{"text": "', "x", '"}\n', 0, "longer than data.max_document_bytes (100,000,013 bytes"),
    "brackets": ("x.jsonl", 31, "", "[[[", '\n{"text": "short"}\n', 0, "invalid json"),
    "more brackets": ("x.jsonl", 100, "", "[[[", '\n{"text": "short"}\n', 0, "longer than data.max_document_bytes (99,999,901 bytes"),
    "no line end": ("x.jsonl", 31, "", "x", "", 0, "there are no documents"),
    "never a line end": ("x.jsonl", 100, "", "x", "", 0, "longer than data.max_document_bytes (100,000,000 bytes"),
    "text": ("x.txt", 100, "", "x", "", 8 * 1024 * 1024 - 1, ""),
    "array": ("x.json", 100, "", "[", "", 0, "JSON is nested deeper than 1,000 levels"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_line_of_a_hundred_megabytes_takes_bounded_memory(tmp_path: Path, name: str) -> None:
    """P-3: the line, its text and two copies on the way, with everything imported."""
    file, megabytes, before, filling, after, longest, said = LONG[name]
    found = in_a_process(LONG_PROGRAM, "read", tmp_path / file, megabytes, before, filling, after)
    assert found["peak"] < 400, found
    assert found["longest"] == longest, found
    assert said in found["said"] and bool(said) == bool(found["said"]), found


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["prepare", "pack"])
def test_the_longest_document_is_prepared_and_packed_in_bounded_memory(tmp_path: Path, verb: str) -> None:
    """P-3: tokens of four bytes each, and the text, once or twice; the limit on a document bounds it."""
    others = "".join(f'{{"text": "short {number}"}}\n' for number in range(40))
    found = in_a_process(LONG_PROGRAM, verb, tmp_path / "x.jsonl", 31, others + '{"text": "', "words ", '"}\n')
    assert found["said"] == "0" and found["peak"] < 1_000, found


BAD_LINES = {
    "truncated": b'{"text": "cut',
    "no text": b'{"body": "x"}',
    "null": b'{"text": null}',
    "number": b'{"text": 123}',
    "list": b'{"text": []}',
    "long number": b'{"text": "x", "n": ' + b"9" * 5_000 + b"}",
    "deep": b'{"text": "x", "n": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}
ODD_LINES = [b"", b'{"text": "carriage return"}\r', b'{"text": "first", "text": "last"}', b'{"text": "nan", "n": NaN}']


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines_stop_the_command_or_are_counted_up_to_a_share(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """P-4, as a person meets it."""
    path, output = tmp_path / "r.jsonl", tmp_path / "out"
    good = [b'{"text": "good %d"}' % number for number in range(40)]
    path.write_bytes(b"\n".join([*good[:20], BAD_LINES[name], *ODD_LINES, *good[20:], b'{"text": "torn']))
    words = ["prepare-data", str(path), "--output", str(output), "--vocab-size", "257", *RAW]
    assert main(words) == 3
    assert f"{path}, line 21, byte offset" in capsys.readouterr().err and not (output / "train.json").exists()
    assert main([*words, "--skip-bad"]) == 0
    shown = capsys.readouterr().out
    assert "the last line of r.jsonl is not whole: left out until it is" in shown and "r.jsonl, line 21" in shown
    texts = [json.loads(line)["text"] for split in ("train", "validation") for line in (output / f"{split}.json").read_bytes().splitlines()]
    assert sorted(texts) == sorted([f"good {number}" for number in range(40)] + ["carriage return", "last", "nan"])
    path.write_bytes(b"\n".join([*good, *[BAD_LINES[name]] * 4, b""]))
    assert main([*words, "--skip-bad"]) == 3
    assert "4 of 44 documents are bad, more than the 1.0% allowed" in capsys.readouterr().err


COMMANDS = {
    "prepare-data": (*RAW, "--output"),
    "train-tokenizer": ("--output",),
    "build-cache": ("--sequence-length", "16", "--cache-dir"),
}
EMPTY = {"empty file": b"", "white space": b" \n\t\r\n ", "nothing": None, "no record": b"\n\n"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", EMPTY)
def test_without_documents_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, name: str) -> None:
    """P-5: said at once, and no empty artefact is left for a later command to fail on."""
    folder = tmp_path / "texts"
    folder.mkdir()
    content = EMPTY[name]
    if content is not None:
        (folder / ("a.jsonl" if name == "no record" else "a.txt")).write_bytes(content)
    assert main([command, str(folder), *COMMANDS[command], str(tmp_path / "out")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "no documents" in line
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and not path.name.startswith(".")]


def test_filters_that_leave_nothing_make_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P-5."""
    (tmp_path / "a.jsonl").write_text('{"text": "too short to stay"}\n' * 5)
    assert main(["prepare-data", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out"), "--min-length", "1000"]) == 3
    assert "cleaning left none of 5 documents" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def make_fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")


def link_endless(folder: Path) -> None:
    (folder / "zero.txt").symlink_to("/dev/zero")


def link_in_a_loop(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / "itself.txt").symlink_to(folder / "itself.txt")


def name_archive_text(folder: Path) -> None:
    (folder / "archive.txt").write_bytes(gzip.compress(b"text " * 1000))


STRANGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "fifo": (make_fifo, "pipe.txt"),
    "/dev/zero": (link_endless, "zero.txt"),
    "loop": (link_in_a_loop, "itself.txt"),
    "archive named text": (name_archive_text, "archive.txt"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_text_file_is_refused_in_five_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """P-6: alone, and among good files."""
    make, file = STRANGE[name]
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "good.txt").write_text("good text\n" * 9)
    make(folder)
    for source in (folder / file, folder):
        began = time.monotonic()
        assert main(["prepare-data", str(source), "--output", str(tmp_path / "out"), "--vocab-size", "257", *RAW]) in (3, 5)
        assert time.monotonic() - began < 5
        assert file in capsys.readouterr().err
    assert main(["prepare-data", str(folder), "--output", str(tmp_path / "out"), "--vocab-size", "257", "--skip-bad", *RAW]) == 0


def test_a_file_without_permission(memory_path: Path) -> None:
    """P-6: as a user whom the system does refuse."""
    memory_path.chmod(0o755)
    (memory_path / "out").mkdir()
    (memory_path / "out").chmod(0o777)
    secret = memory_path / "secret.txt"
    secret.write_text("not for everyone\n" * 9)
    words = ["prepare-data", str(secret), "--output", str(memory_path / "out"), "--vocab-size", "257", *RAW]
    assert main([*words[:2], "--output", str(memory_path / "first"), *words[4:]]) == 0, "so that everything is imported"
    secret.chmod(0)
    assert as_nobody(words, memory_path / "said") == 5
    said = (memory_path / "said").read_text()
    assert "error[E05]" in said and "permission denied" in said and "secret.txt" in said
    (memory_path / "out").chmod(0o555)
    secret.chmod(0o644)
    assert as_nobody(words, memory_path / "said") == 5
    assert "permission denied" in (memory_path / "said").read_text()


def test_a_folder_without_permission(memory_path: Path) -> None:
    """P-6: its texts are not lost without a word, wherever it is in the source; without rights to a folder its names are unknown."""
    memory_path.chmod(0o755)
    (memory_path / "texts" / "inner" / "secret").mkdir(parents=True)
    for folder in ("texts", "texts/inner", "texts/inner/secret"):
        (memory_path / folder / "a.txt").write_text(f"some words of {folder}\n" * 9)
    (memory_path / "out").mkdir(mode=0o777)
    (memory_path / "out").chmod(0o777)
    words = ["prepare-data", str(memory_path / "texts"), "--vocab-size", "257", *RAW, "--output"]
    assert main([*words, str(memory_path / "first")]) == 0, "so that everything is imported"
    for mode in (0, 0o111):
        (memory_path / "texts/inner/secret").chmod(mode)
        assert as_nobody([*words, str(memory_path / "out")], memory_path / "said") == 5
        said = (memory_path / "said").read_text()
        assert "error[E05]: cannot read a folder of the source (permission denied)" in said and "texts/inner/secret;" in said
    lenient = [*words, str(memory_path / "out"), "--skip-bad", "--json"]
    assert as_nobody(lenient, memory_path / "said") == 0
    read = json.loads((memory_path / "out" / "stats.json").read_text())
    assert read["dropped"] == {"read: cannot read a folder of the source (permission denied)": 1} and read["num_documents_read"] == 2
    (memory_path / "texts/inner/secret").chmod(0o444)
    assert as_nobody([*words, str(memory_path / "out")], memory_path / "said") == 3
    assert "cannot read the source (Permission denied)" in (memory_path / "said").read_text()
    (memory_path / "texts").chmod(0)
    assert as_nobody(lenient, memory_path / "said") == 5
    (memory_path / "texts").chmod(0o755)


def test_a_file_that_is_deleted_while_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P-6: the second slice is gone once the first is done; restored, the command goes on."""
    monkeypatch.setattr("llm_training.jobs.prepare._SLICE_BYTES", 20_000)
    monkeypatch.setenv("LLM_TRAINING_FAULT", "prepare.after_slice:sleep=1@1")
    folder, output = tmp_path / "texts", tmp_path / "out"
    folder.mkdir()
    for number in range(2):
        write_noisy(folder / f"{number}.jsonl", seed=number, count=60)
    content = (folder / "1.jsonl").read_bytes()

    def delete() -> None:
        while not list((output / ".cleaning").glob("slice-*.account.json")):
            time.sleep(0.01)
        (folder / "1.jsonl").unlink()

    thread = threading.Thread(target=delete)
    thread.start()
    words = ["prepare-data", str(folder), "--output", str(output), "--vocab-size", "300", "--skip-bad", "--workers", "1"]
    words += ["--max-bad-fraction", "0.1"]
    assert main(words) == 5
    thread.join()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error[" in line]
    assert "1.jsonl" in line and "no such file" in line
    assert not (output / "train.json").exists()
    monkeypatch.delenv("LLM_TRAINING_FAULT")
    (folder / "1.jsonl").write_bytes(content)
    assert main(words) == 0


HOSTILE = [
    "nul \x00 in the middle",
    "bell \x07 and \x1b[31mred\x1b]0;title\x07 and \x9b2J",
    "bidi \u202e reversed \u2066 isolated \u2069 and \u200f mark",
    "line \r\n and \u2028 and \x85 separators",
    "x" * 1_000_000,
]


def raw_controls(text: str) -> set[str]:
    """Characters that a terminal would obey."""
    return {c for c in text if c not in "\n\t\r" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}


def test_hostile_text_is_kept_byte_for_byte_and_never_shown_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P-7: through the preparation, the tokens and back; what a terminal would obey is shown by its escape."""
    monkeypatch.chdir(tmp_path)
    source = Path("bad \x1b[2J\u202e name.jsonl")
    records = [{"id": f"{number} \x1b[31m\u202e", "text": text, "title": text[:50]} for number, text in enumerate(HOSTILE)]
    records += [{"id": f"plain-{number}\x07", "text": f"plain text {number} " * 40} for number in range(60)]
    lines = [json.dumps(record) for record in records]
    source.write_text("\n".join([*lines, '{"\\u001b[31m": 1}', "not \x1b json", ""]))
    words = ["prepare-data", str(source), "--output", "out", *RAW, "--allow-leaks"]
    assert main([*words, "--vocab-size", "280"]) == 3
    assert main([*words, "--vocab-size", "280", "--skip-bad"]) == 0
    assert main([*words[:3], "ids", *RAW, "--allow-leaks", "--skip-bad", "--tokenizer", "out", "--keep-dropped", "dropped"]) == 0
    tokenizer = load_tokenizer(Path("ids"))
    found = []
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in Path("ids", f"{split}.json").read_bytes().split(b"\n")[:-1]]
        for row, ids in zip(rows, Path("ids", f"{split}.ids").read_text().splitlines(), strict=True):
            assert tokenizer.decode([int(number) for number in ids.split()][:-1]) == row["text"]
            found.append(row["text"])
    assert sorted(found) == sorted(str(record["text"]) for record in records)
    main(["analyze-data", "out", "--output", "page.html"])
    main(["validate-data", "out"])
    fields = "--hidden-size 16 --num-layers 1 --num-attention-heads 2 --seq-len 32 --max-steps 2 --batch-size 2 --threads 1 --no-plots"
    run = "--precision fp32 --output-dir run --evaluation.max-tokens 64 --evaluation.final-max-tokens 64 --evaluation.sample-tokens 20"
    assert main(["train", str(source), "--tokenizer.path", "out", "--max-bad-fraction", "0.5", *fields.split(), *run.split()]) == 0
    assert main(["logs", "run"]) == 0
    assert main(["logs", "run", "--data", "1"]) == 0
    shown = capsys.readouterr()
    assert "plain-" in shown.out and "\\x07" in shown.out and "not whole" not in shown.out
    assert raw_controls(shown.out) == set() and raw_controls(shown.err) == set()


@pytest.mark.parametrize(
    "kills", [pytest.param(12, id="twelve"), pytest.param(200, marks=[pytest.mark.nightly, pytest.mark.timeout(3_000)])]
)
def test_killed_at_random_moments_the_files_are_those_of_a_run_left_alone(memory_path: Path, kills: int) -> None:
    """P-8."""
    source = memory_path / "texts"
    source.mkdir()
    for number in range(2):
        write_noisy(source / f"{number}.jsonl", seed=number, count=60)
    seed = int.from_bytes(os.urandom(4))
    words = ("prepare-data", source, "--output", "out", "--vocab-size", 300, "--skip-bad", "--workers", 1, "--max-bad-fraction", 0.1)
    found = kill_again_and_again(memory_path, kills, seed, *words)
    print(found)
    assert found["wrong"] == [] and found["kills"] >= kills and found["found_begun"] > 0, (seed, found)


def fill(path: Path, leave: int = 0) -> None:
    """Use up the file system but for so many bytes."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    os.truncate(path, max(0, path.stat().st_size - leave))


@pytest.mark.parametrize("leave", [0, 60_000, 400_000])
def test_a_full_disk_names_both_numbers_and_later_the_preparation_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], leave: int
) -> None:
    """P-9: full at once, while cleaned slices are written, and while the output is."""
    place = tmp_path / "disk"
    place.mkdir()
    source = write_noisy(tmp_path / "noisy.jsonl", count=250)
    words = ["prepare-data", str(source), "--skip-bad", "--vocab-size", "300", "--workers", "1", "--output"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    with small_disk(place, 4_000_000) as is_mounted:
        output = place / "out"
        if is_mounted:
            fill(place / "filler", leave)
        else:  # the nearest thing: no file may grow beyond a limit
            resource.setrlimit(resource.RLIMIT_FSIZE, (leave // 8, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            capsys.readouterr()
            assert main([*words, str(output)]) == 5
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error[" in line]
        assert "error[E05]" in line
        if is_mounted:
            assert "disk full" in line and "free" in line and ("needed" in line or not leave), line
            (place / "filler").unlink()
        left = [path for path in output.rglob("*") if path.is_file()] if output.exists() else []
        assert not [path for path in left if path.name.startswith(".tmp") or (path.parent == output and path.name[0] != ".")], left
        assert main([*words, str(output)]) == 0
        assert set(verify(output).files) == set(verify(tmp_path / "whole").files)
        for name in verify(output).files:
            assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_documents_in_both_splits_are_counted_and_need_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P-10, as a person meets it; the same text within one split is no leak."""
    folder = write_corpus(tmp_path / "texts", documents=12)
    rng = random.Random(3)
    texts = [" ".join(rng.choices("one two three four five six".split(), k=30)) for _ in range(30)]  # noqa: SIM905
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, *texts[20:]]))
    (folder / "validation.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts[:4], "held out only"]))
    words = ["prepare-data", str(folder), "--vocab-size", "300", *RAW, "--output", str(tmp_path / "out")]
    assert main(words) == 3
    assert "4 training documents stand in held-out documents too" in capsys.readouterr().err
    assert not (tmp_path / "out" / "train.json").exists()
    assert main([*words, "--allow-leaks"]) == 0
    assert "4 training documents stand in another split too" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["num_leaks"] == 4
    assert main([*words, "--deduplicate"]) == 0
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["num_leaks"] == 0
