"""Which files of a folder belong to which part of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from vitreous.data.images import shown
from vitreous.data.labelled import Split
from vitreous.errors import InputError

WORDS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
"""What a part is called; of several the first that is there."""

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})")


def part_of(path: Path, split: Split) -> tuple[Path, ...]:
    """Where a part lies: one folder of class folders, or parquet files, or tars; for the test, if need be, all.

    In a folder, a part is a folder, a file or several files with the part's name: `train/`, `train.parquet`,
    `train-00000-of-00002.parquet`, `photos-train-000.tar`; files may also lie in a folder `data`.

    Raises:
        InputError: if there is none, or a shard is missing.
    """
    for word in WORDS[split] if path.is_dir() else ():
        if (path / word).is_dir():
            return _files(path / word) or (path / word,)
        for folder in (path, path / "data"):
            if found := _files(folder, word):
                return found
    if split == "train":
        raise InputError(
            f"{shown(path)}: no part to train with; expected folders train and test in it, "
            "or files train.parquet and test.parquet, or shards such as train-00000-of-00002.parquet or train-000.tar"
        )
    if not path.is_dir():
        return (path,)
    if [entry.name for entry in path.iterdir() if entry.is_dir()] == ["train"] or _files(path, "train"):
        raise InputError(f"{shown(path)}: has a part train, but none to test with; expected test, validation or val")
    return _files(path) or (path,)


def has_files(folder: Path) -> bool:
    """Whether it holds parquet files or tars that could be tested on.

    Raises:
        InputError: if a shard is missing.
    """
    named = (
        _files(*place)
        for word in WORDS["test"]
        for place in ((folder / word,), (folder, word), (folder / "data", word))
    )
    return any(named) or bool(_files(folder))


def check_shards(files: Iterable[Path]) -> None:
    """Nothing, if every file that says it is one of several has all of them beside it.

    Raises:
        InputError: if one is missing.
    """
    seen: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if form := _SHARD.fullmatch(file.stem):
            seen.setdefault((form[1], int(form[3])), set()).add(int(form[2]))
    for (name, total), numbers in seen.items():
        if len(numbers) < total:
            missing = next(n for n in range(total) if n not in numbers)
            raise InputError(
                f"{shown(name)}: {len(numbers)} of {total} shards are there, number {missing} is not; fetch it again"
            )


def _files(folder: Path, word: str = "") -> tuple[Path, ...]:
    """The parquet files, or else the tars, of a folder that have a word in their name, sorted."""
    if not folder.is_dir():
        return ()
    for suffix in (".parquet", ".tar"):
        found = [file for file in folder.glob(f"*{suffix}") if not file.name.startswith(".")]
        found = [file for file in found if not word or word in re.split(r"[-_.]", file.stem)]
        if found:
            check_shards(found)
            return tuple(sorted(found))
    return ()
