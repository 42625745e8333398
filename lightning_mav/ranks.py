"""The processes of one run: when one dies, all end within seconds, with its exit code and one line."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.distributed import DistError
from torch.distributed.constants import default_pg_timeout

from lightning_mav.errors import MachineError, MavError

GO_ON = "the last checkpoint is whole and the same command goes on from it"
POLL = 0.5  # seconds between two looks at the other processes
PATIENCE = 5.0  # seconds that a process which has lost its connection gives the one that knows why
GRACE = 15.0  # seconds until a process that waits for a dead one is ended


class LostRank(MavError):
    """Another process of the run has ended; the exit code is its own."""

    def __init__(self, message: str, exit_code: int = MachineError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Launcher(_SubprocessScriptLauncher):
    """Starts one process per device, unless torchrun or SLURM did, and watches them."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes and call ``function``.

        Raises:
            LostRank: Another process has ended while this one was computing with it.
        """
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=self._watch, daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            raise self._explanation() from error

    def _explanation(self) -> LostRank:
        """Wait for the process that has died; where it is not ours to see, it has time to speak for itself."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if lost := self._dead():
                return lost
            time.sleep(POLL)
        return LostRank(f"lost the connection to another process of this run, which says why; {GO_ON}")

    def _watch(self) -> None:
        """End this process if another has died and the main thread, waiting for it, does not notice."""
        while not (lost := self._dead()):
            if all(process.poll() == 0 for process in self.procs):
                return
            time.sleep(POLL)
        time.sleep(GRACE)
        sys.stderr.write(f"error: {lost}\n")
        sys.stderr.flush()
        os._exit(lost.exit_code)  # the others die with it

    def _dead(self) -> LostRank | None:
        for rank, process in enumerate(self.procs, start=1):
            if process.poll():
                return _lost(rank, process)
        return None


def _lost(rank: int, process: subprocess.Popen[Any]) -> LostRank:
    code, who = process.returncode, f"rank {rank} (process {process.pid})"
    if code > 0:
        return LostRank(f"{who} ended with exit code {code} and says why; {GO_ON}", code)
    return LostRank(f"{who} was killed by {signal.Signals(-code).name}; {GO_ON}")


def is_lost_connection(error: RuntimeError) -> bool:
    """Tell whether an error says no more than that another process is gone."""
    words = r"gloo|connection (was )?(closed|reset|refused)|broken pipe|recvvalue failed"
    return isinstance(error, DistError) or bool(re.search(words, str(error), re.IGNORECASE))


def watch_ranks(trainer: Trainer, longest_wait: float) -> None:
    """Make the processes of a run end together.

    Args:
        trainer: Has not started yet.
        longest_wait: Seconds that a process which works may let the others wait, as it does for data.
    """
    strategy: Any = trainer.strategy
    if isinstance(launcher := strategy.launcher, _SubprocessScriptLauncher):
        strategy._launcher = Launcher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
    if getattr(strategy, "_timeout", None) == default_pg_timeout:  # nobody has chosen another
        strategy._timeout = timedelta(seconds=longest_wait + 60)
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False  # it would save beside our checkpoints, and go on
