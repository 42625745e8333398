"""``python -m lightning_mav``: dispatch on the first word before torch is imported, and one handler for all errors."""

import json
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from typing import Any

from lightning_mav.allocator import keep_freed_memory
from lightning_mav.errors import ConfigError, MavError, is_out_of_memory, known
from lightning_mav.parent import die_with_parent

TRAINING = ("fit", "validate", "test", "predict")
VERBS = {
    "generate": "lightning_mav.commands.generate:generate",
    "animate": "lightning_mav.commands.animate:animate",
    "convert": "lightning_mav.commands.convert:convert",
    "export": "lightning_mav.commands.export:export",
    "data": "lightning_mav.commands.data:COMMANDS",
    "plan": "lightning_mav.commands.plan:plan",
    "doctor": "lightning_mav.commands.doctor:doctor",
}
HELP = """\
usage: python -m lightning_mav COMMAND [options]

train (LightningCLI, configured by configs/*.yaml):
  fit        train one stage:  fit --config configs/prior.yaml --run runs/prior
  validate   validation losses of a run's newest checkpoint
  test       the stage's own quality measures
  predict    write samples

use (plain functions):
  generate   videos from prompts, by a folder of models
  animate    a picture becomes a video, or two pictures the video between them
  convert    open weights (Karlo, also in diffusers' form, GLIDE, ADM) become models of this project
  export     trained models become folders to share: safetensors, json and a model card; also in diffusers' form
  data       index, check, pack, prepare and embed your own data; write the embedded moving shapes
  plan       parameters, memory and FLOPs of a training step or of generating, counted without a GPU
  doctor     what is installed; which video readers and devices work

Every command answers --help; --debug anywhere shows the traceback of an error.
"""


def dispatch(argv: list[str]) -> None:
    """Run the command that the first word of ``argv`` names."""
    word = argv[0] if argv else "--help"
    if word in TRAINING:
        from lightning_mav.cli import main as train

        train(argv)
    elif word == "plan" and any(one.partition("=")[0] in ("--config", "--run") for one in argv):
        from lightning_mav.commands.plan import plan_training

        plan_training(argv[1:])
    elif word in VERBS:
        run_verb(word, argv[1:])
    elif word in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
    else:
        raise ConfigError(f"unknown command '{word}'{nearest(word)}; see python -m lightning_mav --help")


def run_verb(verb: str, argv: list[str]) -> None:
    """Import a verb's function, or dict of functions, and call it with the parsed arguments."""
    from argparse import ArgumentError

    from jsonargparse import auto_cli, auto_parser

    from lightning_mav.messages import explain, option_names

    module, name = VERBS[verb].split(":")
    components = getattr(import_module(module), name)
    argv = argv if isinstance(components, dict) else with_lists(argv, components)
    settings: dict[str, Any] = {
        "as_positional": False,
        "exit_on_error": False,
        "prog": f"python -m lightning_mav {verb}",
    }
    try:
        auto_cli(components, args=argv, **settings)
    except ArgumentError as error:
        raise ConfigError(explain(str(error), option_names(auto_parser(components, **settings)))) from error


def with_lists(argv: list[str], function: Callable[..., Any]) -> list[str]:
    """Return ``--source a b`` as ``--source '["a", "b"]'``, the form the parser takes and keeps."""
    takes_list = {f"--{name}" for name, one in signature(function).parameters.items() if one.annotation == list[str]}
    words: list[str | list[str]] = []
    for word in argv:
        if words and isinstance(words[-1], list) and not word.startswith("--"):
            words[-1].append(word)
        else:
            words += [word, []] if word in takes_list else [word]
    return [word if isinstance(word, str) else _as_list(word) for word in words]


def _as_list(words: list[str]) -> str:
    written = len(words) == 1 and words[0].startswith("[") and words[0].endswith("]")
    return words[0] if written else json.dumps(words)


def nearest(word: str) -> str:
    """Return a did-you-mean for a mistyped command."""
    matches = get_close_matches(word, [*TRAINING, *VERBS], n=1)
    return f", did you mean '{matches[0]}'?" if matches else ""


def exit_code(error: BaseException) -> int | None:
    """Return the exit code of an error the user can mend, None for a bug of ours."""
    if isinstance(error, MavError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 5 if is_out_of_memory(error) or isinstance(error, OSError) else None


def one_line(error: BaseException) -> str:
    """Return the error's message on one line."""
    text = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}; check the path, its permissions and the free space"
    if "Original Traceback" in text:  # a data worker's error, whose message torch wraps in the worker's traceback
        text = text[text.rindex(f"{type(error).__name__}: ") :].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 2 config, 3 data, 4 checkpoint, 5 machine, 6 numeric, 130/143 signals."""
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    try:
        dispatch([word for word in argv if word != "--debug"])
    except SystemExit as error:
        # Lightning turns the first Ctrl-C into exit code 1.
        return 130 if isinstance(error.__context__, KeyboardInterrupt) else int(error.code or 0)
    except BaseException as error:
        code = exit_code(known(error))
        if debug or code is None:
            raise
        sys.stderr.write(f"error: {one_line(known(error))}\n")
        return code
    return 0


if __name__ == "__main__":
    if "LOCAL_RANK" in os.environ:  # one of the processes that a run or torchrun has started
        die_with_parent()
    keep_freed_memory()
    sys.exit(main())
