"""What a configuration may not do, whoever wrote it: name code that is no part of a model, or fill the memory."""

import sys
from contextlib import suppress
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings

from lightning_mav.yaml_text import count_values

# Importing a module runs it, and what a configuration names is imported.
DENIED = [
    *sys.stdlib_module_names,
    "torch.load",
    "torch.hub",
    "torch.jit",
    "torch.package",
    "torch.utils.cpp_extension",
]
_load = get_loader("yaml")


def bound_configurations() -> None:
    """Let a configuration name nothing of the standard library, and build nothing where any type is accepted."""
    set_parsing_settings(instantiate_subclass_spec_in_any=False, import_path_denylist=DENIED)
    set_loader("yaml", load_moderate, (yaml.YAMLError,))


def load_moderate(text: str) -> Any:
    """Load YAML of a file, of one that it names, or of the command line.

    Raises:
        ConfigError: It stands for too many values.
        yaml.YAMLError: It is no YAML.
    """
    with suppress(yaml.YAMLError):  # the loader tells it better
        count_values(text, "configuration")
    return _load(text)
