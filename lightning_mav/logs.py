"""Loggers that may fail: a full log disk or a lost server costs the log, never the training."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning_utilities.core.rank_zero import rank_zero_warn

WRITING = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize")
_told: set[str] = set()


@contextmanager
def forgiven(what: str) -> Iterator[None]:
    """Turn an OSError inside the ``with`` block into a warning, one for each ``what``."""
    try:
        yield
    except Exception as error:
        fault = error.__cause__ or error  # TensorBoard's logger calls any error one of the value
        if not isinstance(fault, OSError):
            raise
        if what not in _told:
            rank_zero_warn(f"{what}: cannot write the log ({fault}); training goes on without it")
        _told.add(what)


def forgive(logger: Logger) -> None:
    """Let what ``logger`` writes from now on fail with a warning."""
    threading.excepthook = _unless_told_again
    for name in WRITING:
        setattr(logger, name, _forgiven(getattr(logger, name), type(logger).__name__))


def _forgiven(write: Callable[..., Any], what: str) -> Callable[..., None]:
    @wraps(write)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with forgiven(what):
            write(*args, **kwargs)

    return wrapped


def _unless_told_again(ended: threading.ExceptHookArgs) -> None:
    """Print why a thread ended; TensorBoard's writer raises it again at the next write."""
    if not (isinstance(ended.exc_value, OSError) and "tensorboard" in type(ended.thread).__module__):
        threading.__excepthook__(ended)
