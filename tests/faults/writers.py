"""Everything that the package writes, each with an old content, a new one, and a reader."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from vitreous.atomic import folder_written_atomically, write_atomically
from vitreous.checkpoints.saving import save
from vitreous.figures.files import write_each
from vitreous.inspecting.partial import Partial
from vitreous.inspecting.seen import Seen
from vitreous.inspection import Inspection
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.pages.page import write_page
from vitreous.tokens import TokenLayout
from vitreous.training.config import TrainConfig
from vitreous.training.runs import append_metrics, go_on, read_metrics, start_run
from vitreous.training.settings_file import read_config
from vitreous.training.states import newest_state, write_state

TINY = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, heads=2, classes=3, activation="gelu-tanh")


def model(seed: int) -> VisionTransformer:
    return VisionTransformer(TINY, generator=torch.Generator().manual_seed(seed))


def writers(writer: Any) -> dict[str, Any]:
    """By name; `writer` is the class that holds one."""
    return {
        "text": writer(_text("old"), _text("new"), lambda f: {"text": (f / "a.txt").read_text()}),
        "text in a new folder": writer(_nothing, _text("new", "deep/er/a.txt"), _text_or_nothing),
        "folder": writer(_folder("old"), _folder("new"), _read_folder),
        "new folder": writer(_nothing, _folder("new"), _folder_or_nothing),
        "model": writer(_save("timm", 0), _save("timm", 1), _weights),
        "model for transformers": writer(_save("transformers", 0), _save("transformers", 1), _weights),
        "model for Google": writer(_save("google", 0, "m.npz"), _save("google", 1, "m.npz"), _google_weights),
        "state": writer(_states(1, 2), _states(3), _newest, cleans=True),
        "first state": writer(_nothing, _states(3), _newest, cleans=True),
        "state after a damaged one": writer(_damaged_states, _states(3), _newest, cleans=True),
        "metrics": writer(_metrics(1), _append, _read_metrics),
        "run": writer(_old_run, lambda f: start_run(f, TrainConfig(seed=1)), _run),
        "run that goes on": writer(_old_run, lambda f: go_on(f, TrainConfig(), 1), _metrics_alone, cleans=True),
        "inspection": writer(_inspection(1), _inspection(2), lambda f: {"images": Inspection.load(f / "i").images}),
        "interrupted inspection": writer(_partial(1), _partial(2), lambda f: {"seen": _partial_of(f).read().batches}),
        "report": writer(_page("old"), _page("new"), lambda f: {"page": (f / "r.html").read_text()}),
        "figures": writer(_figures(b"old"), _figures(b"new"), _read_figures),
    }  # fmt: skip


def _nothing(folder: Path) -> None:
    pass


def _text(content: str, name: str = "a.txt") -> Any:
    return lambda folder: write_atomically(folder / name, content * 100)


def _text_or_nothing(folder: Path) -> dict[str, Any]:
    path = folder / "deep" / "er" / "a.txt"
    return {"text": path.read_text() if path.exists() else None}


def _folder(content: str) -> Any:
    def write(folder: Path) -> None:
        with folder_written_atomically(folder / "model") as filling:
            for name in ("a", "b"):
                (filling / name).write_text(content)

    return write


def _read_folder(folder: Path) -> dict[str, Any]:
    return {"folder": {path.name: path.read_text() for path in (folder / "model").iterdir()}}


def _folder_or_nothing(folder: Path) -> dict[str, Any]:
    return _read_folder(folder) if (folder / "model").exists() else {"folder": None}


def _save(to: str, seed: int, name: str = "m") -> Any:
    made = model(seed)
    return lambda folder: save(made, folder / name, to=to, class_names=("a", "b", "c"))


def _weights(folder: Path) -> dict[str, Any]:
    return {"model": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "m").iterdir()}}


def _google_weights(folder: Path) -> dict[str, Any]:
    return {"model": hashlib.sha256((folder / "m.npz").read_bytes()).hexdigest()}


def _states(*steps: int) -> Any:
    def write(folder: Path) -> None:
        for step in steps:
            write_state(folder / "states", step, {"weight": torch.full((50,), float(step))}, {"epoch": step})

    return write


def _damaged_states(folder: Path) -> None:
    _states(1, 2, 9)(folder)
    path = folder / "states" / "step-000000009.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def _newest(folder: Path) -> dict[str, Any]:
    state = newest_state(folder / "states")
    return {"state": state and (state.step, state.meta, state.tensors["weight"].tolist())}


def _metrics(epochs: int) -> Any:
    def write(folder: Path) -> None:
        (folder / "metrics.jsonl").touch()
        for epoch in range(1, epochs + 1):
            append_metrics(folder, {"epoch": epoch, "step": epoch})

    return write


def _append(folder: Path) -> None:
    """One line more, as a run does it that goes on: what was torn or is there already is taken back first."""
    if len(read_metrics(folder)) > 1 or not (folder / "metrics.jsonl").read_bytes().endswith(b"\n"):
        go_on(folder, TrainConfig(), 1)
    append_metrics(folder, {"epoch": 2, "step": 2})


def _read_metrics(folder: Path) -> dict[str, Any]:
    return {"metrics": read_metrics(folder)}


def _old_run(folder: Path) -> None:
    start_run(folder, TrainConfig(seed=0))
    _metrics(3)(folder)


def _run(folder: Path) -> dict[str, Any]:
    return {"config": read_config(folder / "config.yaml"), **_read_metrics(folder)}


_metrics_alone = _read_metrics


def _inspection(images: int) -> Any:
    heads = torch.ones(1, 2)
    measures = ("attention_distance", "attention_entropy", "prefix_mass")
    made = Inspection(
        layout=TokenLayout(0, 2, 2, 4, 4),
        images=images,
        **{name: heads.clone() for name in [*measures, "attention_distance_renormalized"]},
        **{f"{name}_{kind}": heads.clone() for name in measures for kind in ("spread", "histogram")},
        rollout_mean=torch.ones(2, 2),
        rollout=torch.ones(1, 2, 2),
        class_attention=torch.ones(1, 1, 2, 2, 2),
        thumbnails=torch.zeros(1, 8, 8, 3, dtype=torch.uint8),
        image_names=("a",),
    )
    return lambda folder: made.save(folder / "i")


def _partial_of(folder: Path) -> Partial:
    return Partial(folder / "p", lambda: {"model": "a"})


def _partial(batches: int) -> Any:
    return lambda folder: _partial_of(folder).write(Seen(batches=batches))


def _page(content: str) -> Any:
    return lambda folder: write_page(content * 100, folder / "r.html")


def _figures(content: bytes) -> Any:
    def savefig(file: Any, **_: Any) -> None:
        file.write(content * 100)

    return lambda folder: write_each([(name, SimpleNamespace(savefig=savefig)) for name in "ab"], folder / "figures")


def _read_figures(folder: Path) -> dict[str, Any]:
    return {path.name: path.read_bytes() for path in (folder / "figures").glob("?.*")}
