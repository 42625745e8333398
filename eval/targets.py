"""What a command line may have built: the functions and classes that a file in configs/eval names, all our own."""

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_mav.errors import ConfigError

PACKAGES = ("eval.", "lightning_mav.")
OPTIONS = (
    *("-m", "--multirun", "-r", "--run", "-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info"),
    *("--resolve", "-p", "--package", "-sc", "--shell-completion"),
)  # the others read configurations, or pickles, from elsewhere
HYDRA = ("hydra/launcher", "hydra/sweeper", "hydra.launcher.", "hydra.sweeper.", "hydra.sweep.", "hydra.run.")
TARGET = re.compile(r"_target_: *([\w.]+)")


def check_words(words: Sequence[str]) -> None:
    """Refuse what makes Hydra itself build something, before it does.

    Raises:
        ConfigError: Another option, or a setting of Hydra that names code: callbacks, logging.
    """
    for word in words:
        key = word.partition("=")[0]
        if word.startswith("-") and key not in OPTIONS:
            raise ConfigError(f"{key}: is not taken here; put configurations into configs/eval")
        if "hydra" in key and (not key.lstrip("+~ ").startswith(HYDRA) or "_target_" in word):
            raise ConfigError(f"{key}: may name code to run; of Hydra only launcher, sweeper, run and sweep are set")


def check_targets(config: Any, folder: Path, key: str = "config") -> None:
    """Require that everything a configuration has built is named by a file in ``folder``, and is our own.

    Args:
        config: Plain values, interpolations resolved.
        folder: Configurations that are as good as code.
        key: Where in the configuration it stands.

    Raises:
        ConfigError: Another target, which is not imported.
    """
    for place, target in _targets(config, key):
        if not isinstance(target, str) or not _is_ours(target, folder):
            raise ConfigError(f"{place}: '{target}' is not built; name what a file in {folder.name} names")


def _targets(config: Any, key: str) -> list[tuple[str, Any]]:
    """Return keys and values of all targets."""
    if isinstance(config, dict):
        own = [(f"{key}._target_", config["_target_"])] if "_target_" in config else []
        return own + [found for name, value in config.items() for found in _targets(value, f"{key}.{name}")]
    items = config if isinstance(config, list) else []
    return [found for number, value in enumerate(items) for found in _targets(value, f"{key}[{number}]")]


@cache
def _named(folder: Path) -> set[str]:
    """Return all targets that the files of a folder name."""
    return {name for path in folder.rglob("*.yaml") for name in TARGET.findall(path.read_text(encoding="utf-8"))}


def _is_ours(target: str, folder: Path) -> bool:
    """Tell whether a target is named in ``folder`` and defined in the module by which it is named."""
    if target not in _named(folder) or not target.startswith(PACKAGES):
        return False
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return getattr(found, "__module__", None) == module
