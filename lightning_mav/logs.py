"""Loggers that may fail: a full log disk or a lost server costs the log, never the training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

WRITING = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize")
_told: set[str] = set()


@contextmanager
def forgiven(what: str) -> Iterator[None]:
    """Turn an OSError inside the ``with`` block into a warning, one for each ``what``."""
    try:
        yield
    except OSError as error:
        if what not in _told:
            rank_zero_warn(f"{what}: cannot write the log ({error}); training goes on without it")
        _told.add(what)


def forgive(logger: Logger) -> None:
    """Let what ``logger`` writes from now on fail with a warning."""
    for name in WRITING:
        setattr(logger, name, _forgiven(getattr(logger, name), type(logger).__name__))


def _forgiven(write: Callable[..., Any], what: str) -> Callable[..., None]:
    @wraps(write)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with forgiven(what):
            write(*args, **kwargs)

    return wrapped
