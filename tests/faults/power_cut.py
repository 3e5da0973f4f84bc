"""What may be on a disk after the power was cut: everything that was flushed, and of the rest whatever comes.

The calls of a writer are replayed on a model of a file system. A folder keeps its entries in the order in which they
were changed, and may lose all changes since some moment after its last fsync; each folder on its own. A file may have
the content of its last fsync, the latest, or half of the latest. Source: Pillai et al. 2014 (OSDI), section 2.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Tree = dict[str, Any]
"""Of names: bytes of a file, or a Tree."""


@dataclass
class File:
    """What was written, after each call."""

    contents: list[bytes] = field(default_factory=lambda: [b""])
    synced: int = 0


@dataclass
class Folder:
    """Its entries after each call."""

    entries: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    synced: int = 0

    @property
    def now(self) -> dict[str, Any]:
        return self.entries[-1]


def states_after_each_call(folder: Path, old: Path, log: list[tuple[Any, ...]]) -> Iterator[tuple[int, Tree]]:
    """(calls that were made, what may be there) for a power cut after each call; alike ones come again and again.

    Args:
        folder: where the writer worked.
        old: what was there before, all of it flushed.
        log: of the `Disk`.
    """
    root = _folder_on_disk(old)
    yield from ((0, tree) for tree in _may_be(root))
    for number, (call, *given) in enumerate(log, 1):
        paths = [path for path in given if isinstance(path, Path)]  # none of a call on an open file: that is a lock
        if paths and all(_is_below(path, folder) for path in paths):
            _replay(root, folder, call, given)
        yield from ((number, tree) for tree in _may_be(root))


def cut_after_each_call(writer: Any, disk: Any, folder: Path) -> tuple[int, int]:
    """Cuts the power after each call of a writer; whatever is left, a reader finds old or new, and at the end new.

    Args:
        writer: what writes; see `failing_disk.Writer`.
        disk: the class of `failing_disk.Disk`.
        folder: an empty one, or none yet.

    Returns:
        How many states there may be, and how many of these differ.
    """
    old, new, cut = folder / "old", folder / "new", folder / "cut"
    for made in (old, new):
        made.mkdir(parents=True)
        with disk().in_use():
            writer.prepare(made)
    with disk().in_use() as written:
        writer.write(new)
    before, after = writer.read(old), writer.read(new)
    found: dict[Any, dict[str, Any]] = {}
    states = 0
    for calls, tree in states_after_each_call(new, old, written.log):
        states += 1
        key = frozen(tree)
        if key not in found:
            put(tree, cut)
            found[key] = writer.read(cut)
        where = f"after {calls} calls, the last {written.log[calls - 1][:2]}"
        for part, content in found[key].items():
            assert content in (before[part], after[part]), f"{where}: {part} is neither old nor new"
        assert calls < len(written.log) or found[key] == after, f"{where}: what was written may be lost"
    return states, len(found)


def put(tree: Tree, folder: Path) -> None:
    """Makes the folder hold exactly this."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in tree.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            put(content, folder / name)


def frozen(tree: Tree) -> Any:
    """The same as something that can be told apart by its hash."""
    return frozenset((name, item if isinstance(item, bytes) else frozen(item)) for name, item in tree.items())


def _is_below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _folder_on_disk(place: Path) -> Folder:
    def read(path: Path) -> File | Folder:
        return _folder_on_disk(path) if path.is_dir() else File([path.read_bytes()])

    return Folder([{path.name: read(path) for path in place.iterdir()}])


def _replay(root: Folder, top: Path, call: str, given: list[Any]) -> None:
    path = given[0]
    if path == top:
        if call == "fsync":
            root.synced = len(root.entries) - 1
        return
    parent, name = _find(root, top, path.parent), path.name
    before: dict[str, Any] = parent.now
    if call == "create" and name not in before:
        parent.entries.append({**before, name: File()})
    elif call == "mkdir":
        parent.entries.append({**before, name: Folder()})
    elif call == "content":
        before[name].contents.append(given[1])
    elif call == "fsync":
        item = before[name]
        item.synced = len(item.contents if isinstance(item, File) else item.entries) - 1
    elif call in ("unlink", "remove", "rmdir"):
        parent.entries.append({other: item for other, item in before.items() if other != name})
    elif call in ("rename", "replace", "exchange"):
        target = given[1].name
        assert given[1].parent == path.parent, "only within one folder"
        after = {other: item for other, item in before.items() if other not in (name, target)}
        after[target] = before[name]
        parent.entries.append(after | ({name: before[target]} if call == "exchange" else {}))
    else:
        assert call in ("create", "chmod"), call


def _find(root: Folder, top: Path, path: Path) -> Folder:
    found = root
    for part in path.relative_to(top).parts:
        found = found.now[part]
    return found


def _may_be(folder: Folder) -> Iterator[Tree]:
    """Everything that may be in a folder after a power cut."""
    for entries in folder.entries[folder.synced :]:
        choices = [_contents(item) if isinstance(item, File) else list(_may_be(item)) for item in entries.values()]
        for chosen in itertools.product(*choices):
            yield dict(zip(entries, chosen, strict=True))


def _contents(file: File) -> list[bytes]:
    flushed, latest = file.contents[file.synced], file.contents[-1]
    return [flushed] if file.synced == len(file.contents) - 1 else [flushed, latest, latest[: len(latest) // 2]]
