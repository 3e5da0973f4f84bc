"""Files of a model on the Hugging Face Hub, through huggingface_hub and its cache.

hf:ORG/NAME -> names of its files -> config, preprocessor, weights in the safest container -> a folder
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from vitreous.checkpoints.optional import first_line, import_optional
from vitreous.checkpoints.words import CONFIG, PROCESSOR, WEIGHTS
from vitreous.data.images import shown
from vitreous.errors import CheckpointError, ConfigError
from vitreous.progress import progress_bar

_SETTINGS = (CONFIG, PROCESSOR)
_INDEX = "model.safetensors.index.json"
_OTHER_WEIGHTS = (  # in this order; config.json, where there is one, belongs to pytorch_model.bin
    "*.safetensors", "pytorch_model.bin", "open_clip_*.bin", "*.bin", "*.npz", "*.pth", "*.pt",
)  # fmt: skip
_OTHERS = re.compile(r"optimizer|scheduler|scaler|training_args|rng_state|tokenizer|adapter")  # files beside weights
_PART = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors", re.ASCII)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"\w[\w./-]{0,199}", re.ASCII)
_TIMM = re.compile(r"[a-z]\w*\.\w+", re.ASCII)
_OTHER_OWNERS = {"robbyant": "belfner"}  # of timm's tags of plain ViTs; all others are timm's own
_SHOWN = 80  # letters of a name that is refused


def fetch_files(repository: str, revision: str | None = None) -> Path:
    """A folder with a model's config.json, preprocessor_config.json and weights, as far as the repository has them.

    Of several weights model.safetensors is taken, else its parts, else another container that is read without running
    code: .bin and .pth files are unpickled by nobody but our own reader. Only what the cache lacks is fetched, with one
    bar on standard error. Without a connection the cache alone is used.

    Args:
        repository: ORG/NAME.
        revision: a branch, tag or commit; the main branch if None.

    Returns:
        The folder in huggingface_hub's cache; other files may be there, put by other programs.

    Raises:
        ConfigError: if huggingface_hub is missing or too old, or a name is malformed.
        CheckpointError: if the files cannot be fetched and are not in the cache, or there are no weights to read.
    """
    _check_names(repository, revision)
    hub = _import_hub()
    before = hub.logging.get_verbosity()
    hub.logging.set_verbosity_error()  # it advises on tokens
    # HfHubHTTPError is an OSError and an error of the HTTP library, which changed its name between versions.
    failures = (*hub.errors.HfHubHTTPError.__bases__, RuntimeError, ValueError)
    try:
        return _fetch(hub, repository, revision)
    except failures as cause:
        folder = _cached(hub, repository, revision)
        if folder is not None and _is_whole(_names(folder)):
            return folder
        raise _refusal(hub, repository, revision, folder, cause) from cause
    finally:
        hub.logging.set_verbosity(before)


def files_of(names: Iterable[str]) -> list[str]:
    """Of all names in a repository those that make the model: settings, then weights; no weights if there are none.

    Folders inside the repository are left alone: they hold other models.
    """
    top = sorted(name for name in names if "/" not in name)
    settings = [name for name in _SETTINGS if name in top]
    parts = [name for name in top if _PART.fullmatch(name)]
    if WEIGHTS in top:
        return [*settings, WEIGHTS]
    if _INDEX in top and parts:
        return [*settings, _INDEX, *parts]
    for pattern in _OTHER_WEIGHTS:
        found = [name for name in top if Path(name).match(pattern) and name not in parts and not _OTHERS.match(name)]
        if len(found) == 1:
            return [*settings, *found]
    return settings


def timm_repository(name: str) -> str:
    """ORG/NAME of what timm calls `vit_base_patch16_224.augreg_in21k`, or `hf-hub:ORG/NAME`.

    A quick-GELU model of timm shares the repository of its twin with the exact GELU, and the files do not tell: whoever
    opens them has to go by `quickgelu` in the name.

    Raises:
        ConfigError: if the name has no tag, which only timm can complete, or is malformed.

    Source: `hf_hub_id` in timm 1.0.31's default_cfgs.
    """
    if name.startswith("hf-hub:"):
        repository = name.removeprefix("hf-hub:")
        _check_names(repository, None)
        return repository
    if not _TIMM.fullmatch(name):
        raise ConfigError(
            f"timm:{_cut(name)} does not name its weights; give the whole name, "
            "such as vit_base_patch16_224.augreg_in21k, or install timm, which knows each model's usual weights"
        )
    owner = _OTHER_OWNERS.get(name.rpartition(".")[2], "timm")
    return f"{owner}/{name.replace('_clip_quickgelu_', '_clip_')}"


def _check_names(repository: str, revision: str | None) -> None:
    """Nothing that could lead out of the cache's folder, or to another host."""
    name = repository.partition("/")[2]
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository or name.endswith((".", "-")):
        raise ConfigError(
            f"'{_cut(repository)}' is no repository's name; give ORG/NAME, such as google/vit-base-patch16-224"
        )
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise ConfigError(f"revision '{_cut(revision)}' is no branch, tag or commit; leave it out for the main branch")


def _import_hub() -> ModuleType:
    if find_spec("huggingface_hub") is None:
        raise ConfigError(
            'models from the Hugging Face Hub need huggingface_hub: pip install "vitreous[hub]"\n'
            "or fetch the files by other means, and give their folder"
        )
    hub = import_optional("huggingface_hub")
    import_optional("huggingface_hub.errors")
    if "tqdm_class" not in inspect.signature(hub.hf_hub_download).parameters:
        raise ConfigError(f'huggingface_hub {hub.__version__} is too old: pip install "huggingface_hub>=1.1"')
    return hub


def _fetch(hub: ModuleType, repository: str, revision: str | None) -> Path:
    """The folder, after what it lacks was fetched."""
    seconds = hub.constants.HF_HUB_ETAG_TIMEOUT
    listed = hub.HfApi().model_info(repository, revision=revision, timeout=seconds, files_metadata=True)
    sizes = {entry.rfilename: entry.size or 0 for entry in listed.siblings or ()}
    names = files_of(sizes)
    if not _is_whole(names):
        raise _no_weights(repository, sizes)
    missing = [n for n in names if not isinstance(hub.try_to_load_from_cache(repository, n, revision=listed.sha), str)]
    total = sum(sizes[name] for name in missing)
    folders = set()
    with progress_bar(f"fetching {repository}", _megabytes(total), shown=bool(missing), unit="MB") as advance:
        bar = _bar_class(advance)
        for name in names:  # by the revision's name, so that the cache knows it without a connection, too
            folders.add(Path(hub.hf_hub_download(repository, name, revision=revision, tqdm_class=bar)).parent)
    if len(folders) > 1:
        raise CheckpointError(f"{repository} changed while it was fetched; fetch it again")
    return folders.pop()


def _cached(hub: ModuleType, repository: str, revision: str | None) -> Path | None:
    """The folder of the revision that was fetched last, whatever of it there is."""
    try:
        return Path(hub.snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=[]))
    except OSError:
        return None


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.is_file()]  # a link whose file is gone is none


def _is_whole(names: list[str]) -> bool:
    """Whether there are weights, and all parts of them."""
    found = files_of(names)
    return len(found) > sum(name in _SETTINGS for name in found) and not _missing_parts(found)


def _missing_parts(names: list[str]) -> list[str]:
    """Weights in parts that are not there, as far as the names of those that are tell."""
    matches = [match for name in names if (match := _PART.fullmatch(name))]
    if _INDEX not in names or not matches:
        return []
    total = matches[0][2]
    if int(total) > 9999:
        return [f"model-*-of-{total}.safetensors"]
    expected = [f"model-{part:05}-of-{total}.safetensors" for part in range(1, int(total) + 1)]
    return [name for name in expected if name not in names]


def _bar_class(advance: Callable[[int, str], None]) -> type:
    """What huggingface_hub takes for tqdm: each file's bytes go to our one bar, as whole megabytes."""
    done = 0

    class Bar:
        def __init__(self, *_: Any, initial: float = 0, total: float | None = None, **__: Any) -> None:
            self.n, self.total = 0.0, total
            self.update(initial)

        def update(self, more: float | None = 1) -> None:
            nonlocal done
            before = _megabytes(done)
            self.n += more or 0
            done += int(more or 0)
            advance(_megabytes(done) - before, "")

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def ignore(self, *_: Any, **__: Any) -> None:
            pass

        update_transfer = set_postfix_str = set_transfer_postfix_str = set_description = refresh = close = ignore

    return Bar


def _megabytes(count: int) -> int:
    return round(count / 1e6)


def _no_weights(repository: str, names: Iterable[str]) -> CheckpointError:
    top = sorted(name for name in names if "/" not in name)
    listed = ", ".join(map(_cut, top[:5])) + (f" and {len(top) - 5} more" if len(top) > 5 else "")
    return CheckpointError(
        f"{repository} has no weights that vitreous reads, or several; it has {listed or 'no files'}\n"
        "it reads model.safetensors or its parts, or one .safetensors, .bin, .npz or .pth file: fetch one, and name it"
    )


def _refusal(
    hub: ModuleType, repository: str, revision: str | None, folder: Path | None, cause: BaseException
) -> CheckpointError:
    """What to fetch and where to put it; for a wrong name what to check."""
    errors = hub.errors
    if isinstance(cause, errors.RevisionNotFoundError):
        return CheckpointError(f"{repository} has no revision {revision}; give a branch, a tag or a commit, or none")
    if isinstance(cause, errors.RepositoryNotFoundError) and not isinstance(cause, errors.GatedRepoError):
        return CheckpointError(
            f"{repository} is not on the Hugging Face Hub, or is private; check the spelling, or run `hf auth login`\n"
            "a folder with its files can be given in its place"
        )
    what = repository if revision is None else f"{repository} at {revision}"
    cache = Path(hub.constants.HF_HUB_CACHE).expanduser()
    return CheckpointError(
        f"{what} cannot be fetched, and the cache has not all of it: {_reason(errors, cause)}\n"
        f"where there is a connection, fetch {_lacking(folder)} (`hf download {repository}`); then copy\n"
        f"models--{repository.replace('/', '--')} into {cache}, or put the files into any folder and give that FOLDER"
    )


def _lacking(folder: Path | None) -> str:
    """The files that are not in a folder, as far as is known without the list of the repository."""
    have = [] if folder is None else _names(folder)
    if _INDEX in have:
        return " and ".join(_missing_parts(have)[:3]) or f"the files that {_INDEX} lists"
    return " and ".join(name for name in (CONFIG, WEIGHTS) if name not in have)


def _reason(errors: Any, cause: BaseException) -> str:
    if isinstance(cause, errors.GatedRepoError):
        return "it is gated; accept its terms on its page, then run `hf auth login`"
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    return _cut(first_line(cause))


def _cut(text: str) -> str:
    return shown(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
