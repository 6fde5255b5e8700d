"""Conversion between frozen dataclasses and YAML, with every key and value checked."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from mmattn.errors import InputError, did_you_mean
from mmattn.files import write_text

__all__ = ["dump_config", "from_mapping", "load_config", "read_yaml", "set_dotted_key", "to_mapping"]

Config = TypeVar("Config")
_EXPONENT = re.compile(r"[+-]?\d+[eE][+-]?\d+")


def load_config(
    config_type: type[Config], path: str | Path, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Read a YAML file into the dataclass `config_type`.

    Args:
        config_type: a (frozen) dataclass; fields may be dataclasses, mappings, tuples, literals, optionals.
        path: the YAML file.
        overrides: dotted key -> value that replaces the value of the file ("training.epochs": 3); None for
            none.

    Raises:
        InputError: an invalid file, key or value; the message gives the file, the key and what was expected.
    """
    mapping = read_yaml(path)
    for key, value in (overrides or {}).items():
        set_dotted_key(mapping, key, value)
    return from_mapping(config_type, mapping, location=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that contains a mapping.

    Args:
        path: the YAML file.

    Raises:
        InputError: the file cannot be read, is not YAML, or does not contain a mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not valid YAML: {reason}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: got {type(content).__name__}, expected keys and values")
    return content


def dump_config(config: Any, path: str | Path) -> None:
    """Write a dataclass to a YAML file, atomically.

    Args:
        config: a dataclass.
        path: the file.
    """
    write_text(path, yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True))


def set_dotted_key(mapping: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a nested mapping in place; missing levels are created.

    Args:
        mapping: nested mapping, modified in place.
        key: for example "training.epochs".
        value: the new value.

    Raises:
        InputError: a level above the last exists and is not a mapping.

    Example:
        >>> settings = {"training": {"epochs": 9}}
        >>> set_dotted_key(settings, "training.epochs", 3)
        >>> settings
        {'training': {'epochs': 3}}
    """
    *parents, last = key.split(".")
    for parent in parents:
        level = mapping.setdefault(parent, {})
        if not isinstance(level, dict):
            raise InputError(f"--{key}: {parent!r} holds {level!r}, expected keys below it")
        mapping = level
    mapping[last] = value


def from_mapping(config_type: type[Config], mapping: Mapping[str, Any], location: str) -> Config:
    """Build a dataclass from a mapping, checking every key and value.

    Args:
        config_type: a (frozen) dataclass, see `load_config`.
        mapping: field name -> plain value.
        location: prefix of error messages, for example the file name.

    Raises:
        InputError: an unknown or missing key, or a value of another type.

    Example:
        >>> import dataclasses
        >>> @dataclasses.dataclass(frozen=True)
        ... class Training:
        ...     epochs: int = 10
        >>> from_mapping(Training, {"epochs": 3}, "fit.yaml")
        Training(epochs=3)
        >>> from_mapping(Training, {"epoch": 3}, "fit.yaml")
        Traceback (most recent call last):
        mmattn.errors.InputError: fit.yaml: unknown key 'epoch'. Did you mean 'epochs'?
    """
    if not isinstance(mapping, Mapping):
        raise InputError(f"{location}: got {mapping!r}, expected keys and values")
    hints = get_type_hints(config_type)
    fields = {field.name: field for field in dataclasses.fields(config_type) if field.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise InputError(f"{location}: unknown key {key!r}.{did_you_mean(str(key), fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in mapping:
            raise InputError(f"{location}: key {name!r} is missing ({_type_name(hints[name])})")
    values = {
        key: _convert(hints[key], value, _child_location(location, key)) for key, value in mapping.items()
    }
    try:
        return config_type(**values)
    except InputError as error:
        raise InputError(f"{location}: {error}") from error


def to_mapping(config: Any) -> Any:
    """Convert a dataclass to plain values (dict, list, str, number, bool, None) for YAML or JSON.

    Args:
        config: a dataclass, mapping, sequence or plain value.

    Example:
        >>> import dataclasses
        >>> @dataclasses.dataclass(frozen=True)
        ... class Training:
        ...     parts: tuple[str, ...] = ("train", "test")
        >>> to_mapping(Training())
        {'parts': ['train', 'test']}
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_mapping(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_mapping(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_mapping(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def _child_location(location: str, key: Any) -> str:
    return f"{location}: {key}" if ": " not in location else f"{location}.{key}"


def _convert(type_hint: Any, value: Any, location: str) -> Any:
    """`value` converted to the type `type_hint`; the error message names both."""
    origin, arguments = get_origin(type_hint), get_args(type_hint)
    if type_hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, location, type_hint)
    if origin is Literal:
        if value in arguments:
            return value
        names = [str(argument) for argument in arguments]
        guess = did_you_mean(str(value), names).replace(f" Known: {', '.join(sorted(names))}.", "")
        raise InputError(
            f"{location}: got {value!r}, expected one of {', '.join(names)}{guess and f'.{guess}'}"
        )
    if dataclasses.is_dataclass(type_hint):
        return from_mapping(typing.cast("type[Any]", type_hint), value, location)
    if origin in (tuple, list, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InputError(f"{location}: got {value!r}, expected a list")
        items = (_convert(arguments[0], item, f"{location}[{index}]") for index, item in enumerate(value))
        return list(items) if origin is list else tuple(items)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{location}: got {value!r}, expected keys and values")
        return {
            key: _convert(arguments[1], item, _child_location(location, key)) for key, item in value.items()
        }
    if type_hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type_hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)  # YAML 1.1 takes 1e-3, without a point, for text
    if type_hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if isinstance(value, type_hint) and not (type_hint is int and isinstance(value, bool)):
        return value
    raise InputError(f"{location}: got {value!r} ({type(value).__name__}), expected {_type_name(type_hint)}")


def _convert_union(choices: tuple[Any, ...], value: Any, location: str, type_hint: Any) -> Any:
    if value is None and type(None) in choices:
        return None
    problems = []
    for choice in choices:
        if choice is not type(None):
            try:
                return _convert(choice, value, location)
            except InputError as error:
                problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    raise InputError(f"{location}: got {value!r} ({type(value).__name__}), expected {_type_name(type_hint)}")


def _type_name(type_hint: Any) -> str:
    plain = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if type_hint in plain:
        return plain[type_hint]
    if get_origin(type_hint) in (Union, types.UnionType):
        return " or ".join(_type_name(choice) for choice in get_args(type_hint))
    if type_hint is type(None):
        return "nothing"
    return getattr(type_hint, "__name__", str(type_hint))
