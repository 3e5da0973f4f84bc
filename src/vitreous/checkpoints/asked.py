"""What the user settles where a file does not tell: `heads=6`, `preprocess.mean=[0.5, 0.5, 0.5]`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Reading
from vitreous.checkpoints.record import SAVED_BY_US
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig

WEIGHTS = "weights"
PREPROCESS = "preprocess."
_ASKED = "as asked"
_PAIRS = {"image_size", "patch_size", "preprocess.image_size"}


@dataclass(frozen=True)
class Asked:
    """Settings that win over everything that a file says.

    Attributes:
        architecture: fields of `ViTConfig`.
        preprocess: fields of `Preprocess`.
        weights: which of several sets of weights in one file, by the name they lie under, such as "student".
        strict: whether weights that are not finite are refused, not just named.
        recorded: fields of `ViTConfig` that vitreous put beside the weights; what the user asks for wins over them.
    """

    architecture: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    strict: bool = False
    recorded: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any], *, strict: bool = False) -> Asked:
        """Settings by name: a field of `ViTConfig`, one of `Preprocess` behind "preprocess.", or "weights".

        Raises:
            ConfigError: if there is no such setting, or its value cannot be.
        """
        ours = {entry.name for entry in fields(ViTConfig)}
        images = {PREPROCESS + entry.name for entry in fields(Preprocess)}
        for name in settings:
            if name not in ours | images | {WEIGHTS}:
                close = difflib.get_close_matches(name, ours | images | {WEIGHTS}, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are weights, {', '.join(sorted(ours))}"
                raise ConfigError(f"a checkpoint has no setting {name[:60]!r}; {hint}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        for name in _PAIRS & values.keys():
            values[name] = (values[name], values[name]) if isinstance(values[name], int) else values[name]
            if not isinstance(values[name], tuple) or [type(side) for side in values[name]] != [int, int]:
                raise ConfigError(f"{name} is {settings[name]!r}; it is a number of pixels, or (height, width)")
        asked = cls(
            {name: value for name, value in values.items() if name in ours},
            {name.removeprefix(PREPROCESS): value for name, value in values.items() if name in images},
            None if settings.get(WEIGHTS) is None else str(settings[WEIGHTS]),
            strict,
        )
        asked._check_alone()
        return asked

    @property
    def settled(self) -> dict[str, Any]:
        """Fields of `ViTConfig` that are not to be guessed."""
        return {**self.recorded, **self.architecture}

    @property
    def words(self) -> str:
        """The settings as they were asked for, for a message."""
        return ", ".join(f"{name}={str(value)[:60]}" for name, value in self.architecture.items())

    def _guesses_answered(self) -> set[str]:
        """Decisions about images that what is asked for stands in the place of."""
        names = set(self.preprocess)
        also = {"resize"} if "crop_fraction" in names else set()
        both = {"mean and std"} if {"mean", "std"} <= names else set()
        return (names - {"image_size"}) | also | both

    def _check_alone(self) -> None:
        """Raises ConfigError for a value that cannot be in any model, before a file is blamed for it."""
        for name, value in self.architecture.items():
            try:
                ViTConfig(**{name: value})
            except ConfigError as cause:
                if str(cause).startswith(f"{name} is"):
                    raise

    def settle(self, reading: Reading) -> Reading:
        """The reading with all that was asked for in it, and among its decisions.

        Raises:
            ConfigError: if a value cannot be.
        """
        decided = {decision.setting: decision for decision in reading.decisions}
        reasons = dict.fromkeys(self.recorded.keys() - self.architecture.keys(), SAVED_BY_US)
        for guess in self._guesses_answered():
            decided.pop(guess, None)
        images = {PREPROCESS + name: value for name, value in self.preprocess.items()}
        for name, value in (*self.settled.items(), *images.items()):
            plain = list(value) if isinstance(value, tuple) else value
            decided[name] = Decision(name, plain, reasons.get(name, _ASKED))
        settings = self.settled
        if "pooling" in settings:  # the last norm stays where the file has it
            settings = {"norm_after_pooling": reading.config.has_norm_after_pooling, **settings}
        try:
            config = replace(reading.config, **settings)
            preprocess = replace(reading.preprocess, **self.preprocess)
        except TypeError as cause:
            raise ConfigError(f"what was asked for cannot be: {cause}") from cause
        if "image_size" in self.preprocess and any(
            image % patch for image, patch in zip(preprocess.image_size, config.patch_size, strict=True)
        ):
            raise ConfigError(
                f"preprocess.image_size is {preprocess.image_size}, which patches of {config.patch_size} pixels do not "
                "divide; use multiples of these"
            )
        return replace(reading, config=config, preprocess=preprocess, decisions=tuple(decided.values()))


def settings_from_words(words: Sequence[str]) -> dict[str, Any]:
    """Settings as a command line spells them: `heads=6`, `activation=quick-gelu`, `image_size=[384,384]`.

    Raises:
        ConfigError: if a word has no "=", or there is no such setting, or a value cannot be.
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
    Asked.of(settings)  # before they become arguments of a function
    return settings
