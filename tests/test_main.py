"""Dispatch on the first word, help in well under a second, and exit codes by kind of error."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mav import __main__ as command
from lightning_mav.errors import CheckpointError, ConfigError, DataError, MachineError, NumericError

ROOT = Path(__file__).parents[1]


def loaded(*argv):
    """Return the top-level packages that a command line has imported when it ends."""
    code = f"import sys; sys.argv[1:] = {list(argv)!r}; from lightning_mav.__main__ import main; main();"
    code += "sys.stderr.write(' '.join(m for m in sys.modules if '.' not in m))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout, set(run.stderr.split())


def test_help_names_every_command_and_imports_nothing_slow():
    text, modules = loaded("--help")
    assert all(f"  {name} " in text for name in (*command.TRAINING, *command.VERBS))
    assert not modules & {"torch", "lightning", "jsonargparse"}


@pytest.mark.parametrize("verb", command.VERBS)
def test_help_of_a_verb_does_not_import_torch(verb):
    text, modules = loaded(verb, "--help")
    assert f"python -m lightning_mav {verb}" in text
    assert not modules & {"torch", "lightning"}


def test_an_unknown_command_names_the_nearest(capsys):
    assert command.main(["fti"]) == 2
    assert "unknown command 'fti', did you mean 'fit'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["data", "moving_shapes", "--outt", "x"], "unknown key 'outt'; did you mean 'out'?"),
        (["data", "moving_shapes", "--out", "x", "--size", "big"], "size: expected int, got 'big'"),
        (["data", "moving_shapes", "--out", "x", "--size", "15"], "size: 15 is odd"),
        (["data", "moving_shapes", "--out", "x", "--size", "0"], "size: expected at least 1, got 0"),
    ],
)
def test_bad_arguments_of_a_verb_are_one_line(argv, message, capsys):
    assert command.main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_several_words_after_an_option_that_takes_a_list_are_one_list():
    def verb(source: list[str], out: str) -> None: ...

    argv = ["--source", "a b", "c", "--out", "d", "e"]
    assert command.with_lists(argv, verb) == ["--source", '["a b", "c"]', "--out", "d", "e"]


@pytest.mark.parametrize("words", [["[a.pt, b c.th]"], ['["a.pt", "b c.th"]'], ["a.pt", "b c.th"]])
def test_a_list_may_be_written_in_each_of_its_ways(words, monkeypatch):
    given = []
    monkeypatch.setattr("lightning_mav.checkpoint.convert.convert_sources", lambda source: given.extend(source) or [])
    assert command.main(["convert", "--source", *words, "--out", "unused"]) == 0
    assert given == ["a.pt", "b c.th"]


def wrapped(error):
    outer = ValueError("many\nlines")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (DataError("x"), 3),
        (CheckpointError("x"), 4),
        (MachineError("x"), 5),
        (NumericError("x"), 6),
        (wrapped(DataError("x")), 3),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), 5),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 5),
        (SystemExit(143), 143),
    ],
)
def test_exit_code_by_kind(error, code, monkeypatch, capsys):
    def fail(argv):
        raise error

    monkeypatch.setattr(command, "dispatch", fail)
    assert command.main([]) == code
    assert capsys.readouterr().err.count("\n") == (not isinstance(error, SystemExit))


def test_an_error_in_a_data_worker_is_one_line_too():
    from torch._utils import ExceptionWrapper

    try:
        raise DataError("a.mp4: 5 frames: too few; remove the file")
    except DataError:
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(DataError) as failure:
        wrapper.reraise()
    assert command.one_line(failure.value) == "a.mp4: 5 frames: too few; remove the file"


def test_an_error_of_the_file_system_names_the_file_and_what_to_look_at():
    error = PermissionError(errno.EACCES, "Permission denied", "/out")
    assert command.one_line(error) == "/out: Permission denied; check the path, its permissions and the free space"


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr(command, "dispatch", lambda argv: [][1])
    with pytest.raises(IndexError):
        command.main([])


def test_doctor_finds_a_working_reader(capsys):
    assert command.main(["doctor"]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert rows["pyav reader"].strip() == "works"
    assert rows["temporary files"].strip() == "works"
