"""Power loss, simulated: record what a writer asks of the file system, then build every state a crash may leave.

The model is the weak one of ALICE and of SQLite's tests. Content of a file is certain only after its fsync; before, it may
be missing, zero-filled or torn at a 512-byte sector. Entries of a directory (create, rename, unlink, link) are certain only
after an fsync of that directory; before, any subset of them may have reached the disk, so a rename may arrive before the
one issued earlier. Nothing else is promised, in particular not that fsync of a new file keeps its name.

One simplification: when more than eight entries are pending, the subsets are the telling ones (all, none, each one alone,
each one missing, every prefix) rather than all 2^n.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_training.storage.filesystem import FileSystem

SECTOR_BYTES = 512
_MAX_FULL_SUBSETS = 8


@dataclass(eq=False)
class Node:
    """A file, a directory or a link, whatever its names are."""

    kind: str
    text: str = ""  # of a link
    durable: bytes = b""
    current: bytes = b""
    entries: dict[str, Node] = field(default_factory=dict)  # durable entries of a directory
    pending: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Operation:
    """One call; ``node`` is what it is about, ``directory`` where a name changes."""

    kind: str
    node: Node
    directory: Node | None = None
    names: tuple[str, ...] = ()
    offset: int = 0
    data: bytes = b""


class Recorder(FileSystem):
    """The real calls, written down. Every path must lie under ``root``, whose present content counts as durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self.marks: dict[str, int] = {}
        self._start = _import_tree(root)
        self._live: dict[Node, dict[str, Node]] = {}
        self._index(self._start)
        self._open: dict[int, tuple[Node, int, bool]] = {}

    def mark(self, name: str) -> None:
        """Remember that this point was reached; states of later prefixes know it."""
        self.marks[name] = len(self.operations)

    def _index(self, node: Node) -> None:
        if node.kind == "directory":
            self._live[node] = dict(node.entries)
            for child in node.entries.values():
                self._index(child)

    def _find(self, path: Path) -> Node:
        node = self._start
        for part in path.relative_to(self.root).parts:
            node = self._live[node][part]
        return node

    def _entry(self, kind: str, path: Path, node: Node, *names: str) -> None:
        directory = self._find(path.parent)
        self.operations.append(Operation(kind, node, directory, names))

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        existed = os.path.lexists(path)
        descriptor = super().open(path, flags, mode)
        if not existed:
            node = Node("file")
            self._entry("link", path, node, path.name)
            self._live[self._find(path.parent)][path.name] = node
        self._open[descriptor] = (self._find(path), 0, bool(flags & os.O_APPEND))
        return descriptor

    def open_directory(self, path: Path) -> int:
        descriptor = super().open_directory(path)
        self._open[descriptor] = (self._find(path), 0, False)
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        node, _, is_append = self._open[descriptor]
        offset = os.fstat(descriptor).st_size if is_append else os.lseek(descriptor, 0, os.SEEK_CUR)
        count = super().write(descriptor, data)
        self.operations.append(Operation("write", node, offset=offset, data=bytes(data)[:count]))
        return count

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        self.operations.append(Operation("sync", self._open[descriptor][0]))

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        self.operations.append(Operation("truncate", self._open[descriptor][0], offset=size))

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._open.pop(descriptor, None)

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self._renamed(source, target)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._renamed(source, target)

    def _renamed(self, source: Path, target: Path) -> None:
        assert source.parent == target.parent, "the protocols rename within one directory only"
        entries = self._live[self._find(source.parent)]
        node = entries.pop(source.name)
        entries[target.name] = node
        self._entry("rename", source, node, source.name, target.name)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._removed(path)

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self._removed(path)

    def _removed(self, path: Path) -> None:
        node = self._live[self._find(path.parent)].pop(path.name)
        self._entry("unlink", path, node, path.name)

    def mkdir(self, path: Path, mode: int = 0o700) -> None:
        super().mkdir(path, mode)
        self._linked(path, Node("directory"))

    def symlink(self, target: str, path: Path) -> None:
        super().symlink(target, path)
        self._linked(path, Node("link", text=target))

    def _linked(self, path: Path, node: Node) -> None:
        self._live[self._find(path.parent)][path.name] = node
        self._live.setdefault(node, {})
        self._entry("link", path, node, path.name)

    def states(self) -> Iterator[CrashState]:
        """Every distinct state, each with the marks that its prefix had reached."""
        seen: set[tuple[Any, ...]] = set()
        for length in range(len(self.operations) + 1):
            reached = frozenset(name for name, position in self.marks.items() if position <= length)
            nodes = _replay(self._start, self.operations[:length])
            for tree in _trees(self._start, nodes):
                key = (reached, _signature(tree))
                if key not in seen:
                    seen.add(key)
                    yield CrashState(tree, reached, length)


Tree = dict[str, Any]  # name -> bytes (file), str (link text) or Tree (directory)


@dataclass(frozen=True)
class CrashState:
    """A tree that a crash after ``length`` operations may leave."""

    tree: Tree
    reached: frozenset[str]
    length: int

    def build(self, place: Path) -> None:
        """Write the tree to an empty or missing directory."""
        _build(self.tree, place)


def _build(tree: Tree, place: Path) -> None:
    place.mkdir(exist_ok=True)
    for name, value in tree.items():
        path = place / name
        if isinstance(value, dict):
            _build(value, path)
        elif isinstance(value, str):
            path.symlink_to(value)
        else:
            path.write_bytes(value)


def _import_tree(path: Path) -> Node:
    if path.is_symlink():
        return Node("link", text=os.readlink(path))
    if path.is_dir():
        return Node("directory", entries={entry.name: _import_tree(entry) for entry in path.iterdir()})
    content = path.read_bytes()
    return Node("file", durable=content, current=content)


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.entries.values():
        yield from _walk(child)


@dataclass
class _Content:
    """What is known of a node after a prefix: certain and possible content, certain entries and pending changes."""

    durable: bytes
    current: bytes
    entries: dict[str, Node]
    pending: list[Operation]


def _replay(start: Node, operations: list[Operation]) -> dict[Node, _Content]:
    nodes = {node: _Content(node.durable, node.current, dict(node.entries), []) for node in _walk(start)}
    for operation in operations:
        content = nodes.setdefault(operation.node, _Content(b"", b"", {}, []))
        if operation.kind == "write":
            padded = content.current.ljust(operation.offset, b"\0")
            content.current = padded[: operation.offset] + operation.data + padded[operation.offset + len(operation.data) :]
        elif operation.kind == "truncate":
            content.current = content.current[: operation.offset].ljust(operation.offset, b"\0")
        elif operation.kind == "sync":
            content.durable = content.current
            content.entries = _applied(content.entries, content.pending)
            content.pending = []
        else:
            assert operation.directory is not None
            nodes[operation.directory].pending.append(operation)
    return nodes


def _applied(entries: dict[str, Node], operations: list[Operation]) -> dict[str, Node]:
    result = dict(entries)
    for operation in operations:
        if operation.kind == "link":
            result[operation.names[0]] = operation.node
        elif operation.kind == "unlink":
            result.pop(operation.names[0], None)
        else:
            source, target = operation.names
            if result.get(source) is operation.node:
                del result[source]
            result[target] = operation.node
    return result


def _content_variants(content: _Content) -> list[bytes]:
    """Whole, missing, zero-filled, torn at a sector and torn anywhere."""
    old, new = content.durable, content.current
    if old == new:
        return [new]
    same = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    sector = len(new) // SECTOR_BYTES * SECTOR_BYTES
    middle = (same + len(new)) // 2
    variants = [new, old, new[:same] + bytes(len(new) - same)]
    variants += [new[:cut] + old[cut:] for cut in (sector, middle) if same < cut < len(new)]
    variants += [new[:middle] + bytes(len(new) - middle)]
    return list(dict.fromkeys(variants))


def _subsets(operations: list[Operation]) -> list[list[Operation]]:
    count = len(operations)
    if count <= _MAX_FULL_SUBSETS:
        return [
            [op for op, taken in zip(operations, choice, strict=True) if taken] for choice in itertools.product((True, False), repeat=count)
        ]
    choices = [operations, []]
    choices += [[operation] for operation in operations]
    choices += [[other for other in operations if other is not operation] for operation in operations]
    choices += [operations[:length] for length in range(1, count)]
    return choices


def _trees(start: Node, nodes: dict[Node, _Content]) -> Iterator[Tree]:
    """Every combination of pending entries, with the unsynced contents varied together and one by one."""
    directories = [node for node, content in nodes.items() if content.pending]
    dirty = {node: variants for node, content in nodes.items() if len(variants := _content_variants(content)) > 1}
    data_choices: list[dict[Node, bytes]] = [{}]
    data_choices += [{node: variants[min(index, len(variants) - 1)] for node, variants in dirty.items()} for index in range(1, 6)]
    data_choices += [{node: variant} for node, variants in dirty.items() for variant in variants[1:]]
    for choice in itertools.product(*(_subsets(nodes[directory].pending) for directory in directories)):
        taken = dict(zip(directories, choice, strict=True))
        for data in data_choices if dirty else [{}]:
            yield _tree(start, nodes, taken, data)


def _tree(node: Node, nodes: dict[Node, _Content], taken: dict[Node, list[Operation]], data: dict[Node, bytes]) -> Tree:
    content = nodes[node]
    tree: Tree = {}
    for name, child in _applied(content.entries, taken.get(node, [])).items():
        if child.kind == "directory":
            tree[name] = _tree(child, nodes, taken, data)
        elif child.kind == "link":
            tree[name] = child.text
        else:
            tree[name] = data.get(child, nodes[child].current)
    return tree


def _signature(tree: Tree) -> tuple[Any, ...]:
    return tuple((name, _signature(value) if isinstance(value, dict) else value) for name, value in sorted(tree.items()))
