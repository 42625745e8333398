"""The training command line: LightningCLI with a run folder, exact resume and errors of one line."""

import logging
import warnings
from argparse import ArgumentError
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from lightning_mav.checkpoint.io import SafeCheckpointIO, write_atomically
from lightning_mav.checkpoint.resolve import step_of
from lightning_mav.checkpoint.resume import RunFolder
from lightning_mav.checkpoint.saving import RunCheckpoint, Stopped
from lightning_mav.errors import ConfigError, MachineError, MavError, is_out_of_memory, known
from lightning_mav.logs import forgive
from lightning_mav.messages import explain, option_names
from lightning_mav.precision import multiplies_bf16
from lightning_mav.predictions import PredictionWriter
from lightning_mav.progress import RunProgressBar
from lightning_mav.ranges import check_ranges
from lightning_mav.ranks import watch_ranks
from lightning_mav.stages.base import Stage
from lightning_mav.stages.data_module import StageDataModule
from lightning_mav.untrusted import bound_configurations
from lightning_mav.yaml_text import check_yaml

SEARCHED = ("last", "best", "hpc")  # Lightning's words, which find nothing in silence
SAVED_SECTIONS = ("seed_everything", "checkpoint_every", "trainer", "model", "data")


CLI = TypeVar("CLI", bound="MavCLI")


class NothingToDo(Exception):
    """The run has already reached its last step."""


class RunConfig(SaveConfigCallback):
    """Writes config.yaml into the run folder: the sections that every training command accepts."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the configuration of ``fit``; the other commands leave the run's as it is."""
        if stage == "fit":
            config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
            sections = yaml.safe_dump({key: config[key] for key in SAVED_SECTIONS}, sort_keys=False)
            path = RunFolder(Path(trainer.default_root_dir)).config
            write_atomically(path, lambda file: file.write(sections.encode()))


class MavCLI(LightningCLI):
    """LightningCLI whose runs live in the folder that ``--run`` names."""

    def __init__(self, args: list[str], **kwargs: Any) -> None:
        self._command = args[0]
        with ExitStack() as self._held:
            super().__init__(args=args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        """Return the command that was called alone: the options of four take most of a second to set up."""
        return {self._command: super().subcommands()[self._command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what belongs to the run and not to the model, the data or the trainer."""
        parser.add_argument(
            "--run",
            type=str | None,
            default=None,
            help="Folder of this run: config.yaml, checkpoints/, logs/, samples/. If it holds a checkpoint, fit resumes"
            " exactly and the other commands load it; without --config they all read the run's own.",
        )
        parser.add_argument("--checkpoint_every", type=int, default=1000, help="Optimiser steps between checkpoints.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and compare numbers with their ranges; an error becomes one line that names the key."""
        args = with_config_of_run(args)
        check_files(args)
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            raise ConfigError(explain(str(error), option_names(self._subcommand_parsers[self._command]))) from error
        self._dump_config()
        check_ranges(self.config_dump)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let the checkpoint's hyper-parameters override the command line."""

    def before_instantiate_classes(self) -> None:
        """Prepare the run folder and find the checkpoint to start from."""
        config = self.config[self.subcommand]
        config.weights_only = True
        if config.ckpt_path in SEARCHED:
            raise ConfigError(
                f"ckpt_path: '{config.ckpt_path}' is not looked for; name a file, or --run FOLDER to resume"
            )
        self.run_folder = RunFolder(Path(config.run)) if config.run else None
        self._resume_from: str | None = None
        if self.subcommand == "fit":
            self._begin_fit(config)
        elif self.run_folder and not config.ckpt_path:
            config.ckpt_path = str(self.run_folder.newest_or_fail())
            say(f"using {config.ckpt_path}")

    def _begin_fit(self, config: Namespace) -> None:
        if not self.run_folder:
            raise ConfigError("run: fit needs a folder for its checkpoints and logs; add --run runs/NAME")
        if config.checkpoint_every < 1:
            raise ConfigError(f"checkpoint_every: expected at least 1 step, got {config.checkpoint_every}")
        self._occupy(self.run_folder)
        for damaged in self.run_folder.damaged():
            say(f"{damaged}: damaged, its sha256 differs; set aside, and going back to the checkpoint before it")
            rank_zero_only(self.run_folder.set_aside)(damaged)
        if newest := self.run_folder.newest():
            self._resume(config, self.run_folder, newest)

    def _resume(self, config: Namespace, run: RunFolder, newest: Path) -> None:
        run.check_unchanged(self.config_dump)
        step, last = step_of(newest.resolve()), config.trainer.max_steps
        if 0 <= last <= step:
            raise NothingToDo(f"nothing to do: step {step} >= {last} in {run.path}")
        self._resume_from = str(newest)
        say(f"resuming {run.path} at step {step}")

    @rank_zero_only
    def _occupy(self, run: RunFolder) -> None:
        run.prepare()
        self._held.enter_context(run.lock())
        run.clear()

    def instantiate_classes(self) -> None:
        """Build trainer, stage and data module; values that do not go together become one line.

        Raises:
            ConfigError: A constructor refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(known(error), MavError):
                raise
            reason = str(cause_of(error)).partition("\n")[0]
            raise ConfigError(f"cannot be built from this configuration: {reason}; correct it") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with what every run has, whatever the configuration lists."""
        config = self._get(self.config_init, "trainer")
        settings: dict[str, Any] = {
            "use_distributed_sampler": False,  # our samplers know their rank
            "plugins": [*_as_list(config.get("plugins")), SafeCheckpointIO(type(self.model).__name__)],
            **kwargs,
        }
        if self.run_folder:
            settings |= self._run_settings(self.run_folder, config)
        if _emulates_bf16(config):
            settings["precision"] = "32-true"
            say("this CPU only emulates bf16: computing in float32, which is several times faster")
        try:
            trainer = super().instantiate_trainer(**settings)
        except (MisconfigurationException, ModuleNotFoundError) as error:
            lacking = any(word in str(error).lower() for word in ("accelerator", "backend", "device", "module"))
            if lacking:
                raise MachineError(f"trainer: {error}; take --trainer.accelerator cpu, or see doctor") from error
            raise ConfigError(f"trainer: {error}") from error
        watch_ranks(trainer, self.datamodule.timeout)
        for logger in trainer.loggers:
            forgive(logger)
        trainer.ckpt_path = self._resume_from  # set before Stage.setup, which asks whether this is a new run
        return trainer

    def _run_settings(self, run: RunFolder, config: Namespace) -> dict[str, Any]:
        """Return the trainer arguments that keep logs, samples and checkpoints in the run folder."""
        settings: dict[str, Any] = {"default_root_dir": str(run.path), "callbacks": self._callbacks(run, config)}
        if config.get("logger") in (None, True):
            settings["logger"] = TensorBoardLogger(run.path, name="", version="logs")
        return settings

    def _callbacks(self, run: RunFolder, config: Namespace) -> list[Any]:
        """Return the configuration's callbacks and those that every run has."""
        callbacks = _as_list(config.get("callbacks")) if self.subcommand != "predict" else []
        if self.subcommand == "fit" and not config.get("fast_dev_run"):
            callbacks.append(RunCheckpoint(run.checkpoints, self._get(self.config_init, "checkpoint_every")))
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter(run.path / "samples" / "predict"))
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        return callbacks if has_bar or config.get("enable_progress_bar") is False else [*callbacks, RunProgressBar()]

    def after_fit(self) -> None:
        """Say where the results lie."""
        step, run = self.trainer.global_step, self.trainer.default_root_dir
        say(f"step {step} reached; {run} holds checkpoints/, samples/ and logs/ (TensorBoard)")


class DryCLI(MavCLI):
    """Builds what ``fit`` would train, with weights on the meta device, and runs nothing."""

    def _set_seed(self) -> None:
        """Do nothing: nothing is drawn."""

    def before_instantiate_classes(self) -> None:
        """Do nothing: there is no run."""

    def instantiate_classes(self) -> None:
        """Build the stage without memory for its weights, and the data module, which opens no file."""
        with torch.device("meta"):
            self.config_init = self.parser.instantiate_classes(self.config)
        self.model, self.datamodule = self._get(self.config_init, "model"), self._get(self.config_init, "data")

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing."""


def with_config_of_run(args: list[str]) -> list[str]:
    """Insert ``--config DIR/config.yaml`` when ``--run DIR`` stands without a configuration and has its own."""
    words = [word.split("=")[0] for word in args]
    if "--run" not in words or "--config" in words or "-c" in words:
        return args
    place = words.index("--run")
    folder = args[place].partition("=")[2] or args[min(place + 1, len(args) - 1)]
    config = RunFolder(Path(folder)).config
    return [args[0], "--config", str(config), *args[1:]] if config.is_file() else args


def check_files(args: list[str]) -> None:
    """Name the configuration file that is not YAML, or too much of it; the parser's own message names none.

    Raises:
        ConfigError: One is not; the message names file, line and problem.
    """
    named = [value for word, value in pairwise(args) if word in ("--config", "-c")]
    for path in {word.partition("=")[2] or word for word in args if word.endswith((".yaml", ".yml"))} | set(named):
        if Path(path).is_file():
            check_yaml(path)


def _emulates_bf16(trainer: Namespace) -> bool:
    """Return whether a trainer's configuration asks for bf16 on a CPU that has no units for it."""
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.accelerator.is_available())
    return on_cpu and str(trainer.precision).startswith("bf16") and not multiplies_bf16("cpu")


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] if value else []


def cause_of(error: BaseException) -> BaseException:
    """Return the error that the parser has wrapped."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@rank_zero_only
def say(line: str) -> None:
    """Print one line that the user should see."""
    print(line, flush=True)


def silence() -> None:
    """Drop the messages of Lightning that advertise, or that are not true for stateless data."""
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable")  # the position is derived from the step
    warnings.filterwarnings("ignore", "LightningCLI.s args parameter")  # main passes the same words on
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # inside Lightning
    warnings.filterwarnings("ignore", "You are using a custom batch sampler")  # ours keeps the last batch
    logging.getLogger("lightning.pytorch.trainer.connectors.checkpoint_connector").setLevel(logging.WARNING)
    tips = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    tips.addFilter(lambda record: "Tip:" not in record.getMessage())


def main(args: list[str]) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` with the command line ``args``."""
    silence()
    try:
        _start(MavCLI, args)
    except NothingToDo as finished:
        say(str(finished))
    except Stopped:
        say("stopped by a signal after a whole step, which is saved; the same command goes on from there")
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "lower data.batch_size and raise trainer.accumulate_grad_batches by as much; plan says what fits"
        raise MachineError(f"out of memory ({str(error).splitlines()[0]}); {hint}") from error


def dry_run(options: list[str]) -> DryCLI:
    """Build what ``fit`` with ``options`` would train; see :class:`DryCLI`."""
    silence()
    return _start(DryCLI, ["fit", *options])


def _start(kind: type[CLI], args: list[str]) -> CLI:
    bound_configurations()
    return kind(
        model_class=Stage,
        datamodule_class=StageDataModule,
        save_config_callback=RunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_kwargs={"exit_on_error": False},
        args=args,
    )
