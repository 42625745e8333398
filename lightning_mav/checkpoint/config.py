"""Frozen dataclass configurations to and from plain containers, for json files and checkpoints."""

from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from lightning_mav.errors import CheckpointError

T = TypeVar("T")


def to_plain(config: Any) -> dict[str, Any]:
    """Return a dataclass as nested dictionaries of numbers, strings, lists and None."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def from_plain(config_class: type[T], plain: dict[str, Any]) -> T:
    """Rebuild a dataclass from ``to_plain``'s result.

    Raises:
        CheckpointError: A key that the dataclass does not have, from another version of it.
    """
    assert is_dataclass(config_class)
    hints = get_type_hints(config_class)
    unknown = set(plain) - {f.name for f in fields(config_class)}
    if unknown:
        raise CheckpointError(f"{config_class.__name__} has no {sorted(unknown)}; the file is from another version")
    return config_class(**{name: _typed(hints[name], value) for name, value in plain.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _typed(hint: Any, value: Any) -> Any:
    """Give ``value`` the dataclass or tuple that ``hint`` names."""
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        return None if value is None else _typed(next(a for a in get_args(hint) if a is not NoneType), value)
    if is_dataclass(hint) and isinstance(value, dict):
        return from_plain(hint, value)  # type: ignore[arg-type]
    return tuple(value) if get_origin(hint) is tuple else value
