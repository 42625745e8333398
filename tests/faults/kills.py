"""Where a process dies: in a step, in the writing of a checkpoint. Called in a forked child, before its command.

The process kills itself by SIGKILL, which nothing can catch or delay; the configuration of its run knows nothing of it.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from threading import Timer
from typing import Any

from lightning_mav.checkpoint.ema import Ema
from lightning_mav.checkpoint.saving import RunCheckpoint
from lightning_mav.stages.base import Stage

MOMENTS = {
    "forward": (Stage, "backward"),  # there is a loss, but no gradient
    "backward": (Stage, "on_after_backward"),  # there are gradients, but nothing has moved
    "update": (Ema, "update"),  # the weights have moved, their averages have not
    "end": (RunCheckpoint, "on_train_batch_end"),  # both have
}


def die() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: type, name: str, action: Callable[..., object]) -> None:
    """Let ``action`` come before every call of a method, with the same arguments."""
    method = getattr(owner, name)

    @wraps(method)
    def both(*args: Any, **kwargs: Any) -> Any:
        action(*args)
        return method(*args, **kwargs)

    setattr(owner, name, both)


def in_step(step: int, moment: str) -> None:
    """Die in the optimiser step after ``step`` whole ones, at one of ``MOMENTS``."""
    done = step + (moment == "end")
    before(*MOMENTS[moment], lambda *args: die() if updates(args) == done else None)


def within(step: int, seconds: float) -> None:
    """Die a random time after that step began, wherever the process is then, at the end of the step at the latest."""
    before(Stage, "training_step", lambda *args: Timer(seconds, die).start() if updates(args) == step else None)
    in_step(step, "end")


def updates(args: tuple[Any, ...]) -> int:
    """Return the steps that are wholly done, from the arguments of any method in ``MOMENTS``."""
    ema = next(ema for one in args if (ema := one if isinstance(one, Ema) else getattr(one, "ema", None)))
    return int(ema.num_updates)


def keep_all() -> None:
    """Let every checkpoint stay, to compare with."""
    before(RunCheckpoint, "_save", lambda callback, trainer: setattr(callback, "keep", 10**6))


def in_save(step: int, call: int) -> None:
    """Die at the ``call``-th call, of Python or C, in the saving after ``step`` steps, or when that is over."""

    def count() -> Callable[[str], None]:
        left = call

        def on_call(name: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                die()

        return on_call

    around_save(step, count(), die)


def trace_save(step: int, path: str) -> None:
    """Write the names of all calls in the saving after ``step`` steps to a file."""
    names: list[str] = []
    around_save(step, names.append, lambda: Path(path).write_text(json.dumps(names)))


def around_save(step: int, on_call: Callable[[str], None], at_end: Callable[[], object]) -> None:
    """Tell ``on_call`` the name of every function that is called while the checkpoint of ``step`` is written."""
    save = RunCheckpoint._save

    def hear(frame: Any, event: str, function: Any) -> None:
        if event in ("call", "c_call"):
            on_call(frame.f_code.co_name if event == "call" else function.__name__)

    def heard(self: RunCheckpoint, trainer: Any) -> None:
        if trainer.global_step != step:
            return save(self, trainer)
        sys.setprofile(hear)
        try:
            save(self, trainer)
        finally:
            sys.setprofile(None)
            at_end()

    RunCheckpoint._save = heard  # type: ignore[method-assign]


def order_of_writing(path: str) -> None:
    """Write a line for every fsync that is done, and every rename and removal that begins."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, *names: Any) -> None:
        os.write(file, (json.dumps([event, *map(str, names)]) + "\n").encode())

    def synced(descriptor: int) -> None:
        sync(descriptor)
        note("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))

    sync, os.fsync = os.fsync, synced
    sys.addaudithook(lambda event, args: note(event, *args[:2]) if event in ("os.rename", "os.remove") else None)
