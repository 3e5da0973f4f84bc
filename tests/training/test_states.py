from __future__ import annotations

import copy
import errno
import hashlib
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vitreous.errors import CheckpointError, InputError, OutputError
from vitreous.training import states
from vitreous.training.states import NAME, check_same_run, has_states, newest_state, read_state, write_state

KINDS = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {f"model.{kind}": (9 * torch.rand(3, 5, generator=generator)).to(kind) for kind in KINDS}
    turned = torch.rand(4, 3, generator=generator).T
    return made | {"turned": turned, "empty": torch.zeros(0, 4), "number": torch.tensor(7), "zz": turned.bool()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    meta = {"config": {"seed": 1}, "unread": [[3, "cut \u202e off"]], "losses": 0.1 + 0.2}
    write_state(tmp_path / "states", 12, tensors(), meta)
    state = newest_state(tmp_path / "states")
    assert state is not None and (state.step, state.meta, state.remarks) == (12, meta, ())
    assert state.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert state.tensors[name].dtype == tensor.dtype and torch.equal(state.tensors[name], tensor), name


def test_any_reader_of_the_format_opens_a_state(tmp_path: Path) -> None:
    write_state(tmp_path, 1, tensors(), {})
    read = load_file(tmp_path / NAME.format(1))
    assert {"about", "sha256"} | tensors().keys() == read.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors().items())


def test_a_run_without_states_has_none(tmp_path: Path) -> None:
    assert newest_state(tmp_path / "missing") is None
    (tmp_path / "step-notes.safetensors").write_text("mine")
    assert newest_state(tmp_path) is None


def test_the_last_few_states_are_kept_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (1, 2, 10, 999_999_999, 1_000_000_000):
        write_state(tmp_path, step, tensors(), {}, keep=3)
    assert names(tmp_path) == sorted(NAME.format(step) for step in (10, 999_999_999, 1_000_000_000))
    state = newest_state(tmp_path)
    assert state is not None and state.step == 1_000_000_000


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".step-000000001.safetensors.abcd_123.tmp", ".mine.tmp", "step-of-mine.safetensors"):
        (tmp_path / name).write_text("")
    write_state(tmp_path, 2, tensors(), {})
    assert names(tmp_path) == [".mine.tmp", NAME.format(2), "step-of-mine.safetensors"]


def test_every_damaged_bit_is_found_and_the_state_before_is_taken(tmp_path: Path) -> None:
    for step in (1, 2):
        write_state(tmp_path, step, tensors(step), {})
    path = tmp_path / NAME.format(2)
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 61), *range(len(whole) - 40, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        state = newest_state(tmp_path)
        assert state is not None and state.step == 1 and torch.equal(state.tensors["turned"], tensors(1)["turned"])
        (remark,) = state.remarks
        assert remark == f"{path}: its checksum is wrong: it is damaged or cut"


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 500, -1])
def test_a_state_that_was_cut_or_has_more_is_passed_over(tmp_path: Path, size: int) -> None:
    for step in (1, 2):
        write_state(tmp_path, step, tensors(), {})
    path = tmp_path / NAME.format(2)
    whole = path.read_bytes()
    for damaged in (whole[:size], bytes(len(whole)), whole + b"0"):
        path.write_bytes(damaged)
        state = newest_state(tmp_path)
        assert state is not None and state.step == 1 and NAME.format(2) in state.remarks[0]


def test_after_a_damaged_state_the_run_writes_its_own_again(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write_state(tmp_path, step, tensors(), {})
    (tmp_path / NAME.format(30)).write_bytes(b"damaged")
    write_state(tmp_path, 25, tensors(), {})
    assert names(tmp_path) == [NAME.format(20), NAME.format(25)]


def test_if_all_states_are_damaged_nothing_starts_anew_in_silence(tmp_path: Path) -> None:
    write_state(tmp_path, 1, tensors(), {})
    (tmp_path / NAME.format(1)).write_bytes(b"damaged")
    with pytest.raises(
        CheckpointError, match=r"no state of the run can be read: .*step-000000001.*\ndelete the folder"
    ):
        newest_state(tmp_path)


def test_a_whole_file_of_somebody_else_is_no_state(tmp_path: Path) -> None:
    write_state(tmp_path, 1, {}, {})
    path = tmp_path / NAME.format(1)
    body = path.read_bytes()[:-32].replace(b'"step"', b'"stop"')
    path.write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(CheckpointError, match="is no state of a run"):
        read_state(path)
    with pytest.raises(InputError, match="does not exist"):
        read_state(tmp_path / "missing")


def test_a_disk_that_is_full_keeps_the_state_before(tmp_path: Path) -> None:
    write_state(tmp_path, 1, tensors(), {})
    before = (tmp_path / NAME.format(1)).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does when it starts: a long write ends short
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match=r"step-000000002\.safetensors cannot .* File too large.*\n.*`ulimit -f`"):
            write_state(tmp_path, 2, {"large": torch.zeros(5000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, heard)
    assert names(tmp_path) == [NAME.format(1)] and (tmp_path / NAME.format(1)).read_bytes() == before


META: dict[str, Any] = {
    "config": {
        "data": "digits",
        "model": {"width": 192, "patch_size": [4, 4]},
        "optimizer": {"learning_rate": 0.001},
        "seed": 0,
        "threads": 1,
        "workers": 0,
        "keep": {"states": 2},
        "device": "auto",
    },
    "data": {"train": "a" * 64, "test": "b" * 64},
    "class_names": ["cat", "dog"],
    "versions": {"torch": "2.13.0"},
    "threads": 1,
    "world": 1,
    "device": "cpu",
}


def changed(path: str, value: Any) -> dict[str, Any]:
    meta = copy.deepcopy(META)
    *folders, name = path.split(".")
    place = meta
    for folder in folders:
        place = place[folder]
    place[name] = value
    return meta


def test_the_same_run_goes_on_without_a_word() -> None:
    assert check_same_run(META, copy.deepcopy(META)) == []


@pytest.mark.parametrize("path, value", [("config.workers", 4), ("config.keep.states", 9), ("config.keep", {})])
def test_settings_that_change_no_bit_may_be_others(path: str, value: Any) -> None:
    assert check_same_run(META, changed(path, value)) == []


@pytest.mark.parametrize(
    "path, value, remark",
    [
        ("threads", 2, "threads 1 -> 2"),
        ("config.threads", 2, "threads 1 -> 2"),
        ("world", 4, "world 1 -> 4"),
        ("device", "cuda", "device cpu -> cuda"),
        ("versions.torch", "2.14.0", "torch 2.13.0 -> 2.14.0"),
        ("config.device", "cpu", "device auto -> cpu"),
    ],
)
def test_another_machine_is_remarked_on(path: str, value: Any, remark: str) -> None:
    assert check_same_run(META, changed(path, value)) == [remark]


@pytest.mark.parametrize(
    "path, value, shown",
    [
        ("config.data", "cifar10", "data digits -> cifar10"),
        ("config.model.width", 384, "model.width 192 -> 384"),
        ("config.model.patch_size", [4, 8], r"model.patch_size\[1\] 4 -> 8"),
        ("config.model.extra", 1, "model.extra nothing -> 1"),
        ("config.optimizer.learning_rate", 0.01, "optimizer.learning_rate 0.001 -> 0.01"),
        ("config.seed", 1, "seed 0 -> 1"),
        ("data.train", "c" * 64, "train is another one than then"),  # of an earlier version, which kept no more
        ("data.test", None, "the part test is gone"),
        ("class_names", ["cat", "fox"], "classes: only then has dog; only now has fox"),
        ("class_names", ["cat"], "classes: only then has dog\n"),
        ("class_names", ["dog", "cat"], "classes: the names are the same, in another order"),
    ],
)
def test_another_run_is_refused_with_the_difference(path: str, value: Any, shown: str) -> None:
    with pytest.raises(CheckpointError, match=shown) as refusal:
        check_same_run(META, changed(path, value))
    assert len(str(refusal.value).splitlines()) <= 3


def test_many_differences_are_counted() -> None:
    now = changed("data", {})  # both parts
    now["config"] = dict.fromkeys(now["config"], "other")  # four of them are refused
    with pytest.raises(CheckpointError, match=", and 1 more"):
        check_same_run(META, now)


def test_what_a_kill_left_of_the_first_state_is_no_state(tmp_path: Path) -> None:
    (tmp_path / ".step-000000001.safetensors.abcdefgh.tmp").write_bytes(b"cut")
    assert not has_states(tmp_path)
    write_state(tmp_path, 1, {"weight": torch.zeros(2)}, {})
    assert has_states(tmp_path)


def test_a_full_disk_says_what_a_state_takes_and_what_takes_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(states, "write_all", fail)
    with pytest.raises(
        OutputError, match=r"\([\d,]+ bytes are free\).*\na state takes 3\.0 MiB, and there are 5 while"
    ) as full:
        write_state(tmp_path, 1, {"large": torch.zeros(3 * 2**18)}, {}, keep=4)
    assert "lower keep.states" in str(full.value) and len(str(full.value).splitlines()) == 3
    assert names(tmp_path) == []
