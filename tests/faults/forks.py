"""Real processes at the price of a fork: a server imports everything once and forks a child for every command.

    ended = server().run([Case(["fit", ...]), Case(["fit", ...], inject=["kills:in_step", 7, "backward"])])

Each child has one thread, a folder for temporary files of its own, a deadline, and dies with the server.
"""

import atexit
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Case:
    """One command and the circumstances in which it runs.

    Attributes:
        words: Of the command line, without the name of the program.
        inject: "module:function" and its arguments; called in the child before the command.
        temporary: The child's TMPDIR; None for a new one.
        seconds: After which SIGALRM ends it.
    """

    words: list[str]
    inject: list[Any] = field(default_factory=list)
    temporary: str | None = None
    seconds: int = 240


@dataclass(frozen=True)
class Ended:
    """How a case ended.

    Attributes:
        status: The exit code; negative for a signal.
        out: What was printed.
        err: What was said on stderr.
    """

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """What it ended with: the line of an error, and those of a traceback if there is one."""
        return [line for line in self.err.splitlines() if line.startswith(("error: ", "Traceback", "  "))]


class Server:
    """A process that has imported the command line and waits for cases."""

    def __init__(self) -> None:
        settings: dict[str, Any] = {"cwd": ROOT, "env": environment(), "text": True}
        command = [sys.executable, __file__]  # so that this folder is on its path
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **settings)
        atexit.register(self._process.communicate)  # closes its stdin, and waits

    def run(self, cases: list[Case], jobs: int | None = None) -> list[Ended]:
        """Run cases, as many at a time as there are cores unless told otherwise, and say how each ended."""
        assert self._process.stdin and self._process.stdout
        request = [jobs or len(os.sched_getaffinity(0)), [asdict(case) for case in cases]]
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return [Ended(*one) for one in json.loads(self._process.stdout.readline())]


def environment() -> dict[str, str]:
    """Return the variables for a process that has one thread and finds the packages beside this folder and in it."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "faults")))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@cache
def server() -> Server:
    """Return the one server of this session; it ends with it."""
    return Server()


def main() -> None:
    """Serve until stdin ends."""
    die_with_parent()
    import torch

    import lightning_mav.cli
    import lightning_mav.stages  # noqa: F401

    torch.set_num_threads(1)
    warm_up()
    for line in sys.stdin:
        jobs, cases = json.loads(line)
        answer = json.dumps(run_all([Case(**case) for case in cases], jobs))
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def warm_up() -> None:
    """Let the option parser read the sources that it takes its help from, which each child would do again."""
    from lightning_mav.__main__ import main as command

    with redirect_stdout(StringIO()):
        command(["fit", "--help"])


def run_all(cases: list[Case], jobs: int) -> list[tuple[int, str, str]]:
    """Run the cases, ``jobs`` at a time."""
    waiting, running = list(range(len(cases)))[::-1], {}
    ended: dict[int, tuple[int, str, str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        while waiting or running:
            while waiting and len(running) < jobs:
                number = waiting.pop()
                folder = Path(scratch, str(number))
                running[start(cases[number], folder)] = number, folder
            pid, status = os.wait()
            number, folder = running.pop(pid)
            said = [(folder / name).read_text(errors="replace") for name in ("out", "err")]
            ended[number] = (os.waitstatus_to_exitcode(status), *said)
            shutil.rmtree(folder)
    return [ended[number] for number in range(len(cases))]


def start(case: Case, folder: Path) -> int:
    """Fork a child that runs the case, and return its process id."""
    (folder / "tmp").mkdir(parents=True)
    if pid := os.fork():
        return pid
    try:
        die_with_parent()
        signal.alarm(case.seconds)  # nobody handles it, so it kills
        redirect(folder)
        tempfile.tempdir = os.environ["TMPDIR"] = case.temporary or str(folder / "tmp")
        inject(case.inject)
        from lightning_mav.__main__ import main as command

        status = command(case.words)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def redirect(folder: Path) -> None:
    """Give a child nothing to read, and files to write to."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)


def inject(what: list[Any]) -> None:
    """Call "module:function" with the arguments that follow it."""
    if what:
        module, _, name = what[0].partition(":")
        getattr(import_module(module), name)(*what[1:])


if __name__ == "__main__":
    main()
