from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitreous.checkpoints.containers.tensor_file import open_tensors
from vitreous.errors import CheckpointError


def test_the_content_decides_and_not_the_ending(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "1.npz")
    np.savez(tmp_path / "2.npz", a=np.ones(2, "f4"))
    (tmp_path / "2.npz").rename(tmp_path / "2.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "3.safetensors")
    torch.save({"a": torch.ones(2)}, tmp_path / "4", _use_new_zipfile_serialization=False)
    found = []
    for name in ("1.npz", "2.pth", "3.safetensors", "4"):
        with open_tensors(tmp_path / name) as file:
            assert file.path == tmp_path / name and torch.equal(file.read("a"), torch.ones(2))
            found.append(file.container)
    assert found == ["safetensors", "npz", "torch", "torch"]


def test_a_refusal_says_what_a_file_is_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError) as refusal, open_tensors(tmp_path / "model.safetensors"):
        pass
    assert str(refusal.value).splitlines() == [
        f"{tmp_path}/model.safetensors: it is a Git LFS pointer: the file itself was not fetched; "
        "readable are safetensors, npz, and what torch.save writes",
        "run git lfs pull",
    ]


def test_an_unknown_name_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    with open_tensors(tmp_path / "w.safetensors") as file, pytest.raises(KeyError):
        file.read("b")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is set from Linux's own count")
def test_all_tensors_take_hardly_more_memory_than_the_file(tmp_path: Path) -> None:
    weights = {f"blocks.{block}.w": torch.full((1000, 1000), float(block)) for block in range(16)}  # 64 MB
    save_file(weights, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **{name: tensor.numpy() for name, tensor in weights.items()})
    torch.save(weights, tmp_path / "w.pth")
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    script = """
import re, resource, sys
from pathlib import Path
import torch
from vitreous.checkpoints.containers.tensor_file import open_tensors
torch.set_num_threads(1)
torch.ones(10).sum()
for path in map(Path, sys.argv[1:]):
    kept = None
    used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + int(1.3 * path.stat().st_size), resource.RLIM_INFINITY))
    with open_tensors(path) as file:
        kept = {name: file.read(name) for name in file.shapes}
    assert len(kept) == 16
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(path.name)
"""
    names = ("w.safetensors", "w.npz", "w.pth", "old.pth")
    arguments = [sys.executable, "-c", script, *(tmp_path / name for name in names)]
    run = subprocess.run(arguments, capture_output=True, text=True)
    assert run.stdout.split() == list(names), run.stderr
