"""Data sets of any length: worker processes, broken images, interrupted runs, several processes, constant memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from vitreous.cli import main
from vitreous.data.gather import Pictures, gather_pictures
from vitreous.data.loading import load_batches, workers_for
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, InputError, NumericError, VitreousError, WorkerError
from vitreous.inspecting import inspector
from vitreous.inspecting import partial as partial_module
from vitreous.inspecting.inspector import inspect_model
from vitreous.inspecting.ranks import joined_ranks
from vitreous.inspection import Inspection
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

PREPROCESS = Preprocess((16, 16), "squash", 1.0)


def small_model() -> VisionTransformer:
    config = ViTConfig(image_size=(16, 16), patch_size=(8, 8), width=16, depth=2, heads=2, classes=3)
    return VisionTransformer(config, generator=torch.Generator().manual_seed(0)).eval()


def draw(folder: Path, count: int) -> Path:
    """A folder of noise: every image is another."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (count, 12, 10, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{index:05}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 images, two of them broken, one of these among the first eight."""
    folder = draw(tmp_path_factory.mktemp("photos") / "set", 23)
    (folder / "00003.png").write_bytes((folder / "00003.png").read_bytes()[:60])
    (folder / "00013.png").write_text("<html>\tnot an\nimage")
    return folder


def look(photos: Any, **options: Any) -> Inspection:
    return inspect_model(small_model(), photos, **{"preprocess": PREPROCESS, "batch_size": 4, "shown": 6} | options)


def the_same(one: Inspection, other: Inspection) -> None:
    """Bit for bit."""
    for item in fields(Inspection):
        a, b = getattr(one, item.name), getattr(other, item.name)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, item.name


# --- loading ---------------------------------------------------------------------------------------------------------


def test_the_numbers_do_not_depend_on_the_workers(photos: Path) -> None:
    alone = look(photos, workers=0)
    for workers in (1, 2):
        the_same(alone, look(photos, workers=workers))


def test_pictures_of_every_kind_go_to_other_processes(tmp_path: Path, photos: Path) -> None:
    for source in ("digits", photos, parquet_file(tmp_path / "test.parquet", 40, 7)):
        pictures = gather_pictures(source).spread(20)
        sent = pickle.loads(pickle.dumps(pictures))
        assert sent == pictures or sent.names == pictures.names
        assert sent.read(11).tobytes() == pictures.read(11).tobytes()


def test_a_lost_worker_is_said_and_nothing_hangs(photos: Path) -> None:
    deadly = Pictures(tuple("abcdefgh"), _die_at_five)
    with pytest.raises(WorkerError, match=r"images was lost: .*worker") as lost:
        look(deadly, workers=1)
    assert lost.value.exit_code == 7


def _die_at_five(index: int) -> Image.Image:
    if index == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return Image.new("RGB", (9, 9))


def test_workers_end_with_the_block(photos: Path) -> None:
    before = children()
    with load_batches(gather_pictures(photos), PREPROCESS, [range(4), range(4, 8), range(8, 12)], 2) as batches:
        assert next(batches).indices == (0, 1, 2)
        workers = children() - before
    assert len(workers) >= 2 and wait_until(lambda: not workers & children())


def children() -> set[str]:
    """Process ids of this process's living children."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    if not listed.exists():
        pytest.skip("needs Linux")
    alive = {pid for pid in listed.read_text().split() if Path(f"/proc/{pid}/stat").exists()}
    return {pid for pid in alive if ") Z" not in Path(f"/proc/{pid}/stat").read_text()}


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_as_many_workers_as_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12), raising=False)
    assert workers_for(100, gpu) == 0 and workers_for(10_000, gpu) == 8 and workers_for(10_000, gpu, processes=4) == 3
    assert workers_for(10_000, cpu) == 3 and workers_for(10_000, cpu, processes=4) == 0


# --- broken images ---------------------------------------------------------------------------------------------------


def test_broken_images_are_left_out_and_listed(photos: Path) -> None:
    found = look(photos)
    good = [path for path in sorted(photos.iterdir()) if path.stem not in ("00003", "00013")]
    assert found.images == 21 and found.provenance["skipped"] == 2
    assert [name for name, _ in found.skipped] == [str(photos / "00003.png"), str(photos / "00013.png")]
    assert all("\n" not in cause and "00003" not in cause for _, cause in found.skipped)
    assert found.image_names == ("00000.png", "00001.png", "00002.png", "00004.png", "00005.png", "00006.png")
    assert any(note == "images: 2 of 23 cannot be read and are left out" for note in found.provenance["notes"])
    without = look(good, batch_size=21)
    torch.testing.assert_close(found.attention_distance, without.attention_distance, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.rollout, without.rollout, rtol=1e-5, atol=1e-7)
    assert torch.equal(found.thumbnails, without.thumbnails)


def test_strict_stops_at_the_first_broken_image(photos: Path) -> None:
    with pytest.raises(InputError, match=r"00003\.png"):
        look(photos, strict=True)


def test_nothing_but_broken_images_is_an_error_with_the_first_cause(photos: Path) -> None:
    with pytest.raises(InputError, match=r"00003\.png: cannot be decoded") as one:
        look(photos / "00003.png")
    assert "none of" not in str(one.value)
    with pytest.raises(InputError, match=r"none of the 2 images can be read, the first:\n.*00003\.png"):
        look([photos / "00003.png", photos / "00013.png"], batch_size=1)


def test_nan_is_named_with_layer_and_image() -> None:
    images = torch.randn(7, 3, 16, 16)
    images[5] = float("nan")
    with pytest.raises(NumericError, match="layer 0, the sixth: ") as caught:
        inspect_model(small_model(), images, batch_size=4, names=["a", "b", "c", "d", "e", "the sixth", "g"])
    assert caught.value.exit_code == 6 and caught.value.image == 5


# --- interrupted runs ------------------------------------------------------------------------------------------------


class Interrupting(nn.Module):
    """A model during whose n-th pass somebody presses Ctrl-C."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.model, self.left = small_model(), passes
        self.num_classes = 3

    def forward(self, images: Tensor) -> Tensor:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return self.model(images)


@pytest.mark.parametrize("passes", [1, 2, 4, 6])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_ends_with_the_same_bits(photos: Path, tmp_path: Path, passes: int, workers: int) -> None:
    def run(passes: int, resume: Path | None = None) -> Inspection:
        return inspect_model(Interrupting(passes).eval(), photos, preprocess=PREPROCESS, batch_size=4, shown=6,
                             resume=resume, workers=workers)  # fmt: skip

    kept = tmp_path / "run.partial"
    with pytest.raises(KeyboardInterrupt) as stop:
        run(passes, kept)
    assert kept.exists() == (passes > 1)
    if passes > 1:
        how_far = f"interrupted after {4 * passes - 4} of 23 images"
        assert str(stop.value) == f"{how_far}; run the same command again to go on"
    the_same(run(99, kept), run(99))


def test_a_run_whose_results_could_not_be_written_is_not_repeated(photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(partial_module, "INTERVAL", 0.0)
    first = look(photos, resume=tmp_path / "p")
    monkeypatch.setattr(VisionTransformer, "forward", None)  # no pass is needed
    the_same(first, look(photos, resume=tmp_path / "p"))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"batch_size": 5}, "batch size"), ({"shown": 2}, "images shown"), ({"class_names": "abc"}, "class names"),
     ({"preprocess": Preprocess((16, 16))}, "preprocess")],
)  # fmt: skip
def test_what_another_run_left_is_not_used(photos: Path, tmp_path: Path, monkeypatch, change, words: str) -> None:
    monkeypatch.setattr(partial_module, "INTERVAL", 0.0)
    look(photos, resume=tmp_path / "p")
    before = (tmp_path / "p").read_bytes()
    with pytest.raises(ConfigError, match=f"p is of an interrupted run with other settings: {words}\n"):
        look(photos, resume=tmp_path / "p", **change)
    with pytest.raises(ConfigError, match="other settings: images\n"):
        look(photos / "00000.png", resume=tmp_path / "p")
    other = small_model()
    other.head.bias.data += 1
    with pytest.raises(ConfigError, match="other settings: model\n"):
        inspect_model(other, photos, preprocess=PREPROCESS, batch_size=4, shown=6, resume=tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == before


def test_a_damaged_partial_is_refused_at_every_byte(photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(partial_module, "INTERVAL", 0.0)
    whole = tmp_path / "whole"
    expected = look(photos, resume=whole)
    monkeypatch.setattr(partial_module, "INTERVAL", 60.0)
    content = whole.read_bytes()
    settings = json.loads(bytes(from_safetensors(content)["about"].numpy()))["settings"]
    for length in range(0, len(content), 997):
        with pytest.raises(InputError, match="cannot be read as an interrupted run"):
            partial_module.from_bytes(content[:length], settings, "cut")
    header = content.index(b"}}") + 2
    for place in range(0, header, 11):  # a flipped bit in what says where the tensors are
        flipped = bytearray(content)
        flipped[place] ^= 4
        try:
            partial_module.from_bytes(bytes(flipped), settings, "flipped")
        except VitreousError:
            continue
    assert expected.images == 21


SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from vitreous.inspecting import partial
partial.INTERVAL = float(sys.argv[1])
from vitreous.model.vit import VisionTransformer
plain = VisionTransformer.forward
passes = 0
def slow(self, images):
    global passes
    passes += 1
    if passes == 4:
        Path("fourth pass").touch()
    time.sleep(0.15)
    return plain(self, images)
VisionTransformer.forward = slow
from vitreous.cli import main
main(sys.argv[2:])
"""


def command(model: Path, photos: Path, out: Path) -> list[str]:
    return ["inspect", str(model), str(photos), "--all", "--batch-size", "2", "--workers", "2", "--out", str(out),
            "--save", str(out.with_suffix(".safetensors"))]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import vitreous

    folder = tmp_path_factory.mktemp("saved") / "model"
    vitreous.save(small_model(), folder, preprocess=PREPROCESS, class_names=list("abc"))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(photos: Path, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "report.html"
    main(command(saved, photos, out))
    return out.with_suffix(".safetensors")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_command_that_was_stopped_goes_on(
    photos: Path,
    saved: Path,
    uninterrupted: Path,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script, out, kept = tmp_path / "run.py", tmp_path / "report.html", tmp_path / "report.html.partial"
    script.write_text(SCRIPT)
    interval = "0.3" if number == signal.SIGKILL else "60"
    started = subprocess.Popen([sys.executable, str(script), interval, *command(saved, photos, out)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)  # fmt: skip
    listed = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    assert wait_until((kept if number == signal.SIGKILL else tmp_path / "fourth pass").exists, 60)
    workers = [Path(f"/proc/{pid}") for pid in listed.read_text().split()]
    started.send_signal(number)
    _, error = started.communicate(timeout=60)
    assert started.returncode == code and kept.exists() and not out.exists()
    if number != signal.SIGKILL:  # workers that lose their process so may complain
        assert "Traceback" not in error
        assert "of 23 images; run the same command again to go on" in error
    assert wait_until(lambda: not any(worker.exists() for worker in workers)), "workers end with their process"

    main(command(saved, photos, out))
    assert not kept.exists()
    printed = capsys.readouterr().out
    assert f"skipped: 2 images that cannot be read, listed in {tmp_path / 'skipped.tsv'}" in printed
    the_same(Inspection.load(out.with_suffix(".safetensors")), Inspection.load(uninterrupted))


def test_skipped_images_are_a_table_and_strict_gives_3(photos: Path, saved: Path, tmp_path: Path, capsys) -> None:
    main(["inspect", str(saved), str(photos), "--out", str(tmp_path / "r.html")])
    lines = (tmp_path / "skipped.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["image", str(photos / "00003.png"), str(photos / "00013.png")]
    assert all(len(line.split("\t")) == 2 for line in lines)
    main(["inspect", str(saved), str(photos / "00000.png"), "--out", str(tmp_path / "r.html")])
    assert (tmp_path / "skipped.tsv").read_text() == "image\tcause\n"
    (tmp_path / "skipped.tsv").unlink()
    main(["inspect", str(saved), str(photos / "00000.png"), "--out", str(tmp_path / "r.html")])
    assert {path.name for path in tmp_path.iterdir()} == {"r.html"}
    with pytest.raises(SystemExit, match="3"):
        main(["inspect", str(saved), str(photos), "--strict", "--out", str(tmp_path / "strict.html")])
    assert "00003.png" in capsys.readouterr().err and {path.name for path in tmp_path.iterdir()} == {"r.html"}


# --- several processes -----------------------------------------------------------------------------------------------

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_torchrun_gives_what_one_process_gives(photos: Path, saved: Path, tmp_path: Path) -> None:
    arguments = ["inspect", str(saved), str(photos), "--batch-size", "4", "--shown", "6"]
    done = subprocess.run([sys.executable, *TORCHRUN, "-m", "vitreous", *arguments, "--out", str(tmp_path / "r.html"),
                           "--save", str(tmp_path / "two")], capture_output=True, text=True, timeout=120,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1 and "over 21 images" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "two", "skipped.tsv"}
    main([*arguments, "--out", str(tmp_path / "s.html"), "--save", str(tmp_path / "one")])
    one, two = Inspection.load(tmp_path / "one"), Inspection.load(tmp_path / "two")
    for item in fields(Inspection):
        a, b = getattr(one, item.name), getattr(two, item.name)
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0)  # float32, of float64 sums in another order
        else:
            assert a == b, item.name
    assert torch.equal(one.attention_entropy_histogram, two.attention_entropy_histogram)
    assert torch.equal(one.class_attention, two.class_attention) and len(two.skipped) == 2


def in_two_processes(work: Callable[[int], None]) -> list[int]:
    """Exit codes of two processes that each run `work(rank)` inside a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank: int) -> None:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
        os.environ.update(address)
        try:
            with joined_ranks():
                work(rank)
        except VitreousError as error:
            os._exit(error.exit_code)
        os._exit(0)

    context = torch.multiprocessing.get_context("fork")
    processes = [context.Process(target=one, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


@pytest.mark.parametrize("batch_size", [2, 4, 12, 23])  # with 23 the second process has nothing to do
def test_sums_of_two_processes_are_those_of_one(photos: Path, tmp_path: Path, monkeypatch, batch_size: int) -> None:
    see_all = inspector._see_all

    def keeping(run: Any, partial: Any, rank: int, **options: Any) -> Any:
        seen = see_all(run, partial, rank, **options)
        (tmp_path / f"{run.world}.{rank}").write_bytes(partial_module.to_bytes(seen, {}))
        return seen

    monkeypatch.setattr(inspector, "_see_all", keeping)
    assert in_two_processes(lambda rank: look(photos, batch_size=batch_size)) == [0, 0]
    look(photos, batch_size=batch_size)
    one, first, second = (
        partial_module.from_bytes((tmp_path / name).read_bytes(), {}, name) for name in ("1.0", "2.0", "2.1")
    )
    assert first.unread == second.unread == one.unread and first.first.indices == one.first.indices
    for name, moments in one.moments.items():
        for key, value in moments.state().items():
            torch.testing.assert_close(first.moments[name].state()[key], value, rtol=1e-12, atol=1e-14)
            assert torch.equal(first.moments[name].state()[key], second.moments[name].state()[key])


def test_a_process_that_fails_does_not_leave_the_other_waiting(photos: Path) -> None:
    def work(rank: int) -> None:
        look(photos, strict=rank == 1, batch_size=12)  # the second has 00013.png

    started = time.monotonic()
    assert in_two_processes(work) == [7, 3]
    assert time.monotonic() - started < 30


def test_processes_that_see_other_images_are_refused(photos: Path) -> None:
    assert in_two_processes(lambda rank: look(photos if rank else photos / "00000.png")) == [2, 2]


# --- memory ----------------------------------------------------------------------------------------------------------


def parquet_file(file: Path, rows: int, size: int) -> Path:
    """Noise that cannot be compressed, all rows in one row group, of pages with 16 rows each."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    noise = np.random.default_rng(0)
    schema = pyarrow.schema([("image", pyarrow.struct([("bytes", pyarrow.binary())])), ("label", pyarrow.int64())])
    with parquet.ParquetWriter(file, schema, use_dictionary=False, write_batch_size=16, data_page_size=1) as writer:
        content = []
        for _ in range(rows):
            png = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(png, "PNG")
            content.append({"bytes": png.getvalue()})
        writer.write_table(pyarrow.table([content, [0] * rows], schema=schema))
    return file


def of_a_process(work: Callable[[], float]) -> float:
    """What `work` returns in a process of its own, whose memory nobody used before."""
    context = torch.multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(work()))
    process.start()
    assert receiver.poll(120), "the work failed"
    found: float = receiver.recv()
    process.join()
    return found


def peak() -> float:
    """MiB that this process has held at most."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs Linux")
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def test_a_parquet_file_is_never_held_in_memory(tmp_path: Path) -> None:
    file = parquet_file(tmp_path / "test.parquet", 600, 160)
    assert file.stat().st_size > 40 * 2**20
    import pyarrow

    def work() -> float:
        pyarrow.set_memory_pool(pyarrow.system_memory_pool())
        pictures = gather_pictures(file)
        for index in range(len(pictures)):
            pictures.read(index)
        return pyarrow.system_memory_pool().max_memory() / 2**20

    assert of_a_process(work) < 12


def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    folders = {}
    for count in (200, 2000):
        folders[count] = draw(tmp_path / str(count), 1)
        for index in range(1, count):
            (folders[count] / f"{index:05}.png").hardlink_to(folders[count] / "00000.png")

    def work(folder: Path) -> float:
        before = peak()
        look(folder, batch_size=32)
        return peak() - before

    few, many = (of_a_process(partial(work, folder)) for folder in folders.values())
    assert many < few + 4, "1,800 images of this size take 5 MiB as float32 inputs"
