"""The option parser's many-line errors as one line."""

from dataclasses import dataclass, field
from typing import Literal

import pytest
from jsonargparse import ArgumentParser

from lightning_mav.messages import class_arguments, explain, option_names


class Shape:
    def __init__(self, size: int = 1):
        self.size = size


class Ring(Shape):
    def __init__(self, size: int = 1, width: float = 0.5, kind: Literal["thin", "thick"] = "thin"):
        super().__init__(size)


@dataclass
class Stripes:
    num: int = 3


@dataclass
class Look:
    stripes: Stripes | None = field(default_factory=Stripes)


class Square(Shape):
    def __init__(self, look: Look):
        super().__init__()
        self.look = look


def make_parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--num.steps", type=int)
    parser.add_subclass_arguments(Shape, "shape", required=False)
    return parser


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--num.stepz", "1"], "unknown key 'num.stepz'; did you mean 'num.steps'?"),
        (["--zzzzzzzz", "1"], "unknown key 'zzzzzzzz'; see --help"),
        (["--num.steps", "one"], "num.steps: expected int, got 'one'"),
        (["--shape", "Rin"], "shape: no class 'Rin' of the right kind; did you mean 'Ring'?"),
        (["--shape", "Ring", "--shape.widht", "1"], "unknown key 'shape.widht'; did you mean 'shape.width'?"),
        (["--shape", "Ring", "--shape.width", "wide"], "shape.width: expected float, got 'wide'"),
        (["--shape", "Ring", "--shape.kind", "fat"], "shape.kind: expected Literal['thin', 'thick'], got 'fat'"),
        (
            ["--shape", "Square", "--shape.look.stripes", "null"],
            "shape.look.stripes: no null on the command line for what has keys of its own; write it into a file for"
            " --config",
        ),
    ],
)
def test_a_parser_error_becomes_one_plain_line(arguments, line):
    parser = make_parser()
    with pytest.raises(Exception) as failure:
        parser.parse_args(arguments)
    assert explain(str(failure.value), option_names(parser)) == line


def test_other_messages_are_only_folded():
    assert explain('Parser key "config": File\n  does not exist', []) == "config: File does not exist"


def test_arguments_of_a_class():
    assert {"size", "width", "kind"} <= set(class_arguments(f"{Ring.__module__}.Ring"))
