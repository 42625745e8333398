"""What the fault suite shares: one way to run a command and look at how it ends, and tiny data."""

import sys
import time

import pytest

from lightning_mav.__main__ import main
from tests.commands.conftest import pipeline_folder  # noqa: F401 - fixtures
from tests.stages.conftest import fit_command, narrow_clip  # noqa: F401

CONFIG_SECONDS = 2.0  # of the processor's time, after everything is imported


@pytest.fixture
def refused(capsys):
    """Return a function that runs a command line, which must end in a code and one line that says certain things."""

    def run(words, code, *said):
        capsys.readouterr()
        began = time.process_time()
        assert main([str(word) for word in words]) == code
        seconds, shown = time.process_time() - began, capsys.readouterr().err
        lines = [line for line in shown.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and shown.rstrip().endswith(lines[0]) and "Traceback" not in shown, shown
        assert not [part for part in said if part not in lines[0]], lines[0]
        assert code != 2 or seconds < CONFIG_SECONDS
        return lines[0]

    return run


@pytest.fixture
def refused_evaluation(capsys, monkeypatch):
    """Return such a function for ``python -m eval``."""
    from eval.__main__ import main as evaluate

    def run(words, code, *said):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["eval", *map(str, words)])
        assert evaluate() == code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        assert not [part for part in said if part not in lines[0]], lines[0]

    return run
