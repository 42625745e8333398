"""Turn the option parser's many-line errors into one line that names the key and what would be right."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module

from jsonargparse import ArgumentParser

UNKNOWN_KEY = re.compile(r"(?:[Oo]ption '|unrecognized arguments: -*)([^\s'=]+)")
WRONG_TYPE = re.compile(r"Expected an? (.+?)\. Got value: (.+)")
UNION = re.compile(r"Subtypes: \[(.+?)\]\n.*Given value: (.+)", re.DOTALL)
WRONG_CLASS = re.compile(
    r"Expected a dot import path string: (\S+)|Import path (\S+) does not corr|Expected a path but (\S+)"
)
NO_MODULE = re.compile(r"No module named '(\S+)'")
DENIED = re.compile(r"Importing '(\S+)' is not allowed")


def explain(message: str, options: Iterable[str]) -> str:
    """Return one line for the error ``message`` of a jsonargparse parser.

    Args:
        message: The parser's message, of any number of lines.
        options: Dotted names of the options that the parser accepts.
    """
    key = ".".join(re.findall(r'[Pp]arser key "([^"]+)"', message)) or "config"
    if found := DENIED.search(message):
        return f"{key}: no class '{found[1]}' of the right kind; a configuration may not name it"
    if found := NO_MODULE.search(message):
        return f"{key}: no module named '{found[1]}'; callbacks.* and eval.* are found only from the checkout's folder"
    if found := UNKNOWN_KEY.search(message):
        return _unknown_key(message[: found.start()], found[1], options)
    if found := WRONG_TYPE.search(message):
        return f"{key}: expected {_readable(found[1])}, got '{found[2].strip()}'"
    if "Expected a dot import path string: None" in message:
        return f"{key}: no null on the command line for what has keys of its own; write it into a file for --config"
    if found := WRONG_CLASS.search(message):
        return _unknown_class(message, key, next(filter(None, found.groups())))
    if found := UNION.search(message):
        return f"{key}: expected {_readable(found[1])}, got '{found[2].strip()}'"
    return " ".join(re.sub(r'^\s*Parser key "([^"]+)":', r"\1:", message).split())


def _unknown_key(before: str, key: str, options: Iterable[str]) -> str:
    """Name the nearest valid key, which for a class is one of its arguments; ``before`` says whose the key is."""
    if owners := re.findall(r"given class_path '([^']+)'", before):
        outer = ".".join(re.findall(r'[Pp]arser key "([^"]+)"', before))
        options = [f"{outer}.{argument}" for argument in class_arguments(owners[-1])]
        key = f"{outer}.{key}"
    matches = get_close_matches(key.replace(".init_args.", "."), options, n=1, cutoff=0.5)
    return f"unknown key '{key}'" + (f"; did you mean '{matches[0]}'?" if matches else "; see --help")


def _unknown_class(message: str, key: str, name: str) -> str:
    """Name the nearest class of the expected kind."""
    bases = re.findall(r"<class '([\w.]+\.\w+)'>", message)
    known = {child.__name__ for base in bases for child in _subclasses(_imported(base))}
    names = sorted(name for name in known if not name.startswith("_"))
    matches = get_close_matches(name.rsplit(".", 1)[-1], names, n=1, cutoff=0.5)
    hint = f"did you mean '{matches[0]}'?" if matches else f"expected one of {', '.join(names)}"
    return f"{key}: no class '{name}' of the right kind; {hint}"


def option_names(parser: ArgumentParser) -> list[str]:
    """Return the dotted names of all options of a parser and of its sub-commands."""
    names = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
    commands = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return names + [name for choices in commands for child in choices.values() for name in option_names(child)]


def class_arguments(class_path: str) -> list[str]:
    """Return the dotted names of all arguments that a class takes, those of nested dataclasses included."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(_imported(class_path), fail_untyped=False)
    return option_names(parser)


def _imported(path: str) -> type:
    module, name = path.rsplit(".", 1)
    found: type = getattr(import_module(module), name)
    return found


def _subclasses(base: type) -> set[type]:
    children: set[type] = set(base.__subclasses__())
    return children | {grandchild for child in children for grandchild in _subclasses(child)}


def _readable(types: str) -> str:
    """Return "int or None" for "<class 'int'>, <class 'NoneType'>"."""
    names = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", types).replace("typing.", "").replace("NoneType", "None")
    return names if "[" in names else names.replace(", ", " or ")
