"""YAML from elsewhere: a few lines of it can stand for more values than memory holds, so they are counted first."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from lightning_mav.errors import ConfigError

MAX_VALUES = 100_000
MAX_DEPTH = 50


@dataclass
class _Collection:
    """A mapping or sequence: its anchor, and how many values it holds so far."""

    anchor: str | None
    size: int = 1


def count_values(text: str, name: str) -> int:
    """Return how many values YAML holds when its aliases are written out; nothing is built.

    Args:
        text: The YAML.
        name: What errors call it.

    Raises:
        ConfigError: More than ``MAX_VALUES``, or nested more than ``MAX_DEPTH`` deep.
        yaml.YAMLError: It is no YAML.
    """
    sizes: dict[str, int] = {}
    begun = [_Collection(None, 0)]
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            begun.append(_Collection(event.anchor))
        elif done := _ended(event, begun, sizes):
            begun[-1].size += done.size
            if done.anchor:
                sizes[done.anchor] = done.size
        if len(begun) > MAX_DEPTH or begun[-1].size > MAX_VALUES:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ConfigError(
                f"{name}, line {line}: nested more than {MAX_DEPTH} deep, or aliases that stand for more than "
                f"{MAX_VALUES:,} values; write it out plainly"
            )
    return begun[0].size


def _ended(event: yaml.Event, begun: list[_Collection], sizes: dict[str, int]) -> _Collection | None:
    """Return the value that an event completes, if it does."""
    if isinstance(event, yaml.CollectionEndEvent):
        return begun.pop()
    if isinstance(event, yaml.AliasEvent):
        return _Collection(None, sizes.get(str(event.anchor), MAX_VALUES))  # unknown as yet is what holds itself
    return _Collection(event.anchor) if isinstance(event, yaml.ScalarEvent) else None


def check_yaml(path: str | Path) -> None:
    """Require a file of plain YAML of moderate size.

    Raises:
        ConfigError: It is not; the message names file, line and problem.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        count_values(text, str(path))
        yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML; {' '.join(str(error).split())}") from error
