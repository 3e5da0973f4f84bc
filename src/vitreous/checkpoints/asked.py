"""What the user settles where a file does not tell: `heads=6`, `preprocess.mean=[0.5, 0.5, 0.5]`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Reading
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig

WEIGHTS = "weights"
PREPROCESS = "preprocess."
_PAIRS = {"image_size", "patch_size", "preprocess.image_size"}


@dataclass(frozen=True)
class Asked:
    """Settings that win over everything that a file says.

    Attributes:
        architecture: fields of `ViTConfig`.
        preprocess: fields of `Preprocess`.
        weights: which of several sets of weights in one file, by the name they lie under, such as "student".
        strict: whether weights that are not finite are refused, not just named.
    """

    architecture: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    strict: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any], *, strict: bool = False) -> Asked:
        """Settings by name: a field of `ViTConfig`, one of `Preprocess` behind "preprocess.", or "weights".

        Raises:
            ConfigError: if there is no such setting.
        """
        ours = {entry.name for entry in fields(ViTConfig)}
        images = {PREPROCESS + entry.name for entry in fields(Preprocess)}
        for name in settings:
            if name not in ours | images | {WEIGHTS}:
                close = difflib.get_close_matches(name, ours | images | {WEIGHTS}, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are weights, {', '.join(sorted(ours))}"
                raise ConfigError(f"a checkpoint has no setting {name!r}; {hint}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        for name in _PAIRS & values.keys():
            values[name] = (values[name], values[name]) if isinstance(values[name], int) else values[name]
            if not isinstance(values[name], tuple) or [type(side) for side in values[name]] != [int, int]:
                raise ConfigError(f"{name} is {settings[name]!r}; it is a number of pixels, or (height, width)")
        return cls(
            {name: value for name, value in values.items() if name in ours},
            {name.removeprefix(PREPROCESS): value for name, value in values.items() if name in images},
            None if settings.get(WEIGHTS) is None else str(settings[WEIGHTS]),
            strict,
        )

    def settle(self, reading: Reading) -> Reading:
        """The reading with all that was asked for in it, and among its decisions.

        Raises:
            ConfigError: if a value cannot be.
        """
        decided = {decision.setting: decision for decision in reading.decisions}
        for name, value in (*self.architecture.items(), *self.preprocess.items()):
            plain = list(value) if isinstance(value, tuple) else value
            decided[name] = Decision(name, plain, "as asked")
        try:
            config = replace(reading.config, **self.architecture)
            preprocess = replace(reading.preprocess, **self.preprocess)
        except TypeError as cause:
            raise ConfigError(f"what was asked for cannot be: {cause}") from cause
        return replace(reading, config=config, preprocess=preprocess, decisions=tuple(decided.values()))


def settings_from_words(words: Sequence[str]) -> dict[str, Any]:
    """Settings as a command line spells them: `heads=6`, `activation=quick-gelu`, `image_size=[384,384]`.

    Raises:
        ConfigError: if a word has no "=".
    """
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is no setting; write NAME=VALUE, such as heads=6")
        try:
            settings[name] = json.loads(value)
        except (ValueError, RecursionError):
            settings[name] = value
    return settings
