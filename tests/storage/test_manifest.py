from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llm_training.errors import IntegrityError
from llm_training.storage.directories import new_directory, remove_leftovers
from llm_training.storage.durable import write_bytes
from llm_training.storage.manifest import MANIFEST_NAME, Manifest, locate, read_listed, read_manifest, verify, verify_file, write_manifest


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    with new_directory(tmp_path / "artefact") as builder:
        builder.write_bytes("one.bin", b"first")
        builder.write_bytes("inner/two.bin", b"second")
        builder.seal({"step": 3})
        builder.publish()
    return tmp_path / "artefact"


def rewrite(artefact: Path, change: Any, *, sealed: bool = True) -> None:
    """Change the manifest as a forger would who knows how the digest is made."""
    path = artefact / MANIFEST_NAME
    content = json.loads(path.read_bytes())
    change(content)
    if sealed:
        content.pop("digest", None)
        body = (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()
        content["digest"] = hashlib.sha256(body).hexdigest()
    path.write_bytes((json.dumps(content, sort_keys=True, indent=1) + "\n").encode())


def test_a_whole_artefact_verifies(artefact: Path) -> None:
    manifest = verify(artefact)
    assert set(manifest.files) == {"one.bin", "inner/two.bin"}
    assert manifest.extra == {"step": 3} and manifest.num_bytes == 11 and manifest.version == 1
    assert read_listed(artefact, manifest, "inner/two.bin") == b"second"
    assert [entry.name for entry in artefact.parent.iterdir()] == ["artefact"]


def test_files_that_are_not_listed_do_not_matter(artefact: Path) -> None:
    (artefact / "README").write_text("mine")
    verify(artefact)


def test_without_a_manifest_it_is_unfinished(artefact: Path) -> None:
    (artefact / MANIFEST_NAME).unlink()
    with pytest.raises(IntegrityError, match="manifest is missing") as caught:
        verify(artefact)
    assert caught.value.exit_code == 4 and caught.value.remedy


@pytest.mark.parametrize("name", ["one.bin", "inner/two.bin"])
@pytest.mark.parametrize("size", [0, 1, 4, 7, 100])
def test_another_size_is_seen_without_hashing(artefact: Path, name: str, size: int) -> None:
    (artefact / name).write_bytes(bytes(size))
    with pytest.raises(IntegrityError, match=rf"size is {size} bytes, the manifest says") as caught:
        verify(artefact, hashes=False)
    assert caught.value.where == str(artefact / name)


def test_other_content_of_the_same_size_is_seen_with_both_hashes_named(artefact: Path) -> None:
    (artefact / "one.bin").write_bytes(b"FIRST")
    verify(artefact, hashes=False)
    with pytest.raises(IntegrityError, match=r"sha256 is [0-9a-f]{64}, the manifest says [0-9a-f]{64}"):
        verify(artefact)
    with pytest.raises(IntegrityError, match="sha256 is"):
        read_listed(artefact, read_manifest(artefact), "one.bin")


def test_swapped_files_are_seen(artefact: Path) -> None:
    write_bytes(artefact / "three", b"FIRST")
    manifest = read_manifest(artefact)
    write_manifest(artefact, {"one.bin": manifest.files["one.bin"], "three": write_bytes(artefact / "three", b"third")})
    one, three = (artefact / "one.bin").read_bytes(), (artefact / "three").read_bytes()
    (artefact / "one.bin").write_bytes(three)
    (artefact / "three").write_bytes(one)
    with pytest.raises(IntegrityError, match="sha256 is"):
        verify(artefact)


def test_a_missing_file_a_directory_and_a_link_are_refused(artefact: Path, tmp_path: Path) -> None:
    (artefact / "one.bin").rename(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="is missing"):
        verify(artefact)
    (artefact / "one.bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="not a regular file inside"):
        verify(artefact)
    (artefact / "one.bin").unlink()
    (artefact / "one.bin").mkdir()
    with pytest.raises(IntegrityError, match="not a regular file inside"):
        verify(artefact)


def test_a_linked_directory_on_the_way_is_refused(artefact: Path, tmp_path: Path) -> None:
    (artefact / "inner").rename(tmp_path / "elsewhere")
    (artefact / "inner").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="not a regular file inside"):
        verify(artefact)


def test_every_flipped_bit_and_every_truncation_of_the_manifest_is_seen(artefact: Path) -> None:
    path = artefact / MANIFEST_NAME
    content = path.read_bytes()
    damaged = [content[:length] for length in range(len(content))]
    for offset, byte in enumerate(content):
        damaged += [content[:offset] + bytes([byte ^ 1 << bit]) + content[offset + 1 :] for bit in range(8)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(IntegrityError):
            read_manifest(artefact)
    path.write_bytes(content)
    read_manifest(artefact)


BAD_NAMES = ["../x", "/etc/passwd", "a/../../x", "", ".", "..", "a//b", "a\\b", "a\0b", "C:x", "a\nb", "x" * 300, "a/"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_directory_are_refused_both_ways(artefact: Path, name: str) -> None:
    record = read_manifest(artefact).files["one.bin"]
    with pytest.raises(IntegrityError, match="not a plain relative path"):
        write_manifest(artefact, {name: record})
    with pytest.raises(IntegrityError, match="not a plain relative path"):
        locate(artefact, name)
    rewrite(artefact, lambda content: content["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(IntegrityError, match="not a plain relative path"):
        verify(artefact)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["files"]["one.bin"].pop("sha256"), "no known hash for one.bin"),
        (lambda c: c["files"]["one.bin"].update(sha256=""), "no usable size or hash"),
        (lambda c: c["files"]["one.bin"].update(sha256=None), "no usable size or hash"),
        (lambda c: c["files"]["one.bin"].update(bytes=-1), "no usable size or hash"),
        (lambda c: c["files"]["one.bin"].update(bytes=True), "no usable size or hash"),
        (lambda c: c["files"]["one.bin"].pop("bytes"), "wrong shape"),
        (lambda c: c.update(files=[]), "wrong shape"),
        (lambda c: c.update(version=2), "written in format 2, this program reads formats 1 to 1"),
        (lambda c: c.update(version="1"), "wrong shape"),
        (lambda c: c.update(format="other"), "of another format"),
        (lambda c: c.pop("extra"), "wrong shape"),
        (lambda c: c.update(surprise=1), "does not match its own digest"),
    ],
)
def test_a_manifest_of_a_wrong_shape_fails_closed(artefact: Path, change: Any, words: str) -> None:
    rewrite(artefact, change)
    with pytest.raises(IntegrityError, match=words):
        verify(artefact)


def test_a_change_without_the_digest_is_seen(artefact: Path) -> None:
    rewrite(artefact, lambda content: content["extra"].update(step=4), sealed=False)
    with pytest.raises(IntegrityError, match="does not match its own digest"):
        verify(artefact)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"NaN", b"\x80\x04N.", b'"x"', b"[" * 50_000, b'{"format": 1}'])
def test_something_else_in_its_place_is_refused(artefact: Path, content: bytes) -> None:
    (artefact / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(IntegrityError):
        verify(artefact)
    (artefact / MANIFEST_NAME).unlink()
    (artefact / MANIFEST_NAME).mkdir()
    with pytest.raises(IntegrityError, match="not a regular file"):
        verify(artefact)


def test_a_million_names_would_fit_and_order_does_not_matter(artefact: Path) -> None:
    record = read_manifest(artefact).files["one.bin"]
    forward, backward = Manifest({"a": record, "b": record}), Manifest({"b": record, "a": record})
    assert forward.to_bytes() == backward.to_bytes()
    assert len(forward.to_bytes()) < 200 * 3


def test_one_file_can_be_verified_alone(artefact: Path) -> None:
    manifest = read_manifest(artefact)
    assert verify_file(artefact, "one.bin", manifest.files["one.bin"]) == artefact / "one.bin"
    with pytest.raises(IntegrityError, match="has no other"):
        read_listed(artefact, manifest, "other")


def test_a_build_that_fails_or_is_not_published_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_directory(tmp_path / "artefact") as builder:
        builder.write_bytes("inner/one", b"x")
        raise RuntimeError
    with new_directory(tmp_path / "artefact") as builder:
        builder.write_bytes("one", b"x")
        builder.seal({})
    assert not list(tmp_path.iterdir())


def test_leftovers_of_dead_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1234-x" / "deep").mkdir(parents=True)
    write_bytes(tmp_path / "kept", b"x")
    assert remove_leftovers(tmp_path) == [".tmp-1234-x"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]
    assert remove_leftovers(tmp_path / "missing") == []
