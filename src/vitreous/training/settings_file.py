"""A TrainConfig as a YAML file and back; a wrong setting is named with its path."""

from __future__ import annotations

import difflib
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from vitreous.checking import check_choice
from vitreous.errors import ConfigError
from vitreous.training.config import TrainConfig


def to_yaml(config: TrainConfig) -> str:
    """The whole config, defaults too, in the order of its fields."""
    text: str = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
    return text


def plain(config: TrainConfig) -> dict[str, Any]:
    """The whole config as plain data, ready for YAML and JSON."""
    return {name: _plain(value) for name, value in asdict(config).items()}


def from_yaml(text: str, name: str = "config") -> TrainConfig:
    """What `to_yaml` made, or a part of it: settings left out get their default.

    Args:
        text: the file's content.
        name: of the file, for messages.

    Raises:
        ConfigError: if a setting is unknown, there twice, of a wrong type or not allowed.
    """
    try:
        settings = yaml.load(text, _Loader)
        config: TrainConfig = _build(TrainConfig, {} if settings is None else settings, "")
        return config
    except yaml.YAMLError as error:
        cause = " ".join(str(error).split())
        raise ConfigError(f"{name}: is not YAML ({cause})") from error
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def read_config(path: Path) -> TrainConfig:
    """The config in a YAML file.

    Raises:
        ConfigError: if the file cannot be read or a setting is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a config ({error.args[-1]}); check the path") from error
    return from_yaml(text, str(path))


def choices(kind: Any = TrainConfig, path: str = "") -> dict[str, tuple[str, ...]]:
    """The words that a setting may be, for each that is one of a few, by its path."""
    found: dict[str, tuple[str, ...]] = {}
    for name, of in get_type_hints(kind).items():
        if is_dataclass(of):
            found |= choices(of, _join(path, name))
        elif get_origin(of) is Literal:
            found[_join(path, name)] = get_args(of)
    return found


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML libraries silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                line = node.value[place][0].start_mark.line + 1
                raise ConfigError(f"line {line} sets {key!r} a second time; keep one of the two")
        return super().construct_mapping(node, deep)


def _build(kind: Any, settings: Any, path: str) -> Any:
    """A dataclass from a mapping, its fields in turn from theirs."""
    if not isinstance(settings, dict):
        raise ConfigError(f"{path or 'the file'} is {settings!r}; expected settings, as name: value")
    kinds = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {_join(path, close[0])}?" if close else f"there are {', '.join(known)}"
            raise ConfigError(f"unknown setting {_join(path, name)}; {hint}")
    values = {name: _convert(kinds[name], value, _join(path, name)) for name, value in settings.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}" if path else str(error)) from None


def _convert(kind: Any, value: Any, path: str) -> Any:
    """A YAML value as a field's type."""
    origin, parts = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _build(kind, value, path)
    if origin in (Union, UnionType):  # "something or None" is the only union in use
        if value is None:
            return None
        return _convert(next(part for part in parts if part is not NoneType), value, path)
    if origin is Literal:
        check_choice(path, value, parts)
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            length = "" if Ellipsis in parts else f" of {len(parts)}"
            raise ConfigError(f"{path} is {value!r}; expected a list{length}")
        if Ellipsis in parts:  # of any length
            parts = parts[:1] * len(value)
        if len(value) != len(parts):
            raise ConfigError(f"{path} is {value!r}; expected a list of {len(parts)}")
        pairs = enumerate(zip(parts, value, strict=True))
        return tuple(_convert(part, item, f"{path}[{n}]") for n, (part, item) in pairs)
    return _convert_plain(kind, value, path)


def _convert_plain(kind: Any, value: Any, path: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-3 as text: it wants 1.0e-3
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path} is {value!r}; expected {_KINDS[kind]}")
    return value


_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
