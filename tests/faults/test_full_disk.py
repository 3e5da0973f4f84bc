"""Disks that are full or read-only, for real: small file systems in memory, where this machine may make them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from vitreous.atomic import write_atomically
from vitreous.checkpoints.saving import save
from vitreous.errors import OutputError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.config import TrainConfig
from vitreous.training.lock import locked_run
from vitreous.training.loop import train
from vitreous.training.runs import append_metrics, check_run
from vitreous.training.states import newest_state, write_state

SIZE = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, f"size={SIZE}"):
        yield place


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    mount = shutil.which("mount")
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
    if not made or made.returncode:
        pytest.skip("this machine lets nobody mount a file system here")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True, capture_output=True)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def model(seed: int) -> VisionTransformer:
    config = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=96, depth=1, heads=2, classes=3)  # 0.46 MiB
    return VisionTransformer(config, generator=torch.Generator().manual_seed(seed))


def test_every_writer_leaves_the_old_content_on_a_full_disk_and_says_what_is_free(small_disk: Path) -> None:
    save(model(0), small_disk / "model")
    write_atomically(small_disk / "text.txt", "old")
    write_state(small_disk / "states", 1, {"a": torch.ones(1000)}, {})
    before = names(small_disk)
    for write in (
        lambda: save(model(1), small_disk / "model"),
        lambda: save(model(1), small_disk / "another"),
        lambda: write_atomically(small_disk / "text.txt", "new" * SIZE),
        lambda: write_state(small_disk / "states", 2, {"a": torch.ones(SIZE)}, {}),
    ):
        (small_disk / "filler").write_bytes(b"0" * (SIZE // 4))
        with pytest.raises(OutputError, match=r"No space left on device \([\d,]+ bytes are free\); choose another"):
            write()
        (small_disk / "filler").unlink()
        assert names(small_disk) == before
    assert (small_disk / "text.txt").read_text() == "old"
    state = newest_state(small_disk / "states")
    assert state is not None and state.step == 1 and not state.remarks


def test_a_line_of_metrics_is_written_whole_or_not_at_all(small_disk: Path) -> None:
    append_metrics(small_disk, {"epoch": 1})
    (small_disk / "filler").write_bytes(b"0" * (SIZE - 2 * 4096))
    with pytest.raises(OutputError, match=r"metrics\.jsonl cannot be written: No space left"):
        append_metrics(small_disk, {"epoch": 2, "long": "0" * 20_000})
    assert (small_disk / "metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_a_run_that_does_not_fit_is_refused_before_its_first_step(small_disk: Path) -> None:
    with pytest.raises(OutputError, match=r"needs [\d.,]+ MiB for this run's model and states, [\d.]+ MiB are free"):
        train(TrainConfig(data="digits", epochs=1), small_disk / "run", progress=False)
    assert not list(small_disk.rglob("step-*"))


def test_a_read_only_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    with mounted(tmp_path, "ro"):
        for attempt in (
            lambda: check_run(tmp_path / "run", TrainConfig()),
            lambda: write_atomically(tmp_path / "a.txt", ""),
            lambda: save(model(0), tmp_path / "model"),
        ):
            with pytest.raises(OutputError, match="cannot be written: Read-only file system"):
                attempt()
        with pytest.raises(OutputError, match="Read-only"), locked_run(tmp_path / "run"):
            pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_folder_that_belongs_to_somebody_else_is_refused_in_one_line() -> None:
    code = (
        "import os, sys; from pathlib import Path; from vitreous.training.config import TrainConfig\n"
        "from vitreous.training.runs import check_run; os.setuid(65534)\n"
        "try: check_run(Path(sys.argv[1]), TrainConfig())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, "/run-of-nobody"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OutputError") and "Permission denied" in done.stdout, done.stderr
