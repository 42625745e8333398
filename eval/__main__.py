"""``python -m eval``: a Hydra application that generates, scores and reports, skipping what exists.

``python -m eval baselines`` prints the published numbers instead, ``python -m eval weights`` which pretrained
networks of metrics are here and where the others are published, ``python -m eval selfcheck`` whether metrics give the
values they must. ``--debug`` anywhere shows the traceback of an error.
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eval.published import show
from eval.targets import check_targets, check_words
from lightning_mav.__main__ import exit_code, one_line
from lightning_mav.allocator import keep_freed_memory
from lightning_mav.errors import ConfigError
from lightning_mav.yaml_text import check_yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "eval"
DEBUG = "LIGHTNING_MAV_DEBUG"
logger = logging.getLogger("eval")


@hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")
def evaluate(config: DictConfig) -> None:
    """Judge one system by one benchmark, and write results.json and report.html."""
    # Hydra prints lines of its own about an exception, but lets this one pass.
    if code := _guarded(lambda: _evaluate(config)):
        sys.exit(code)


def _evaluate(config: DictConfig) -> None:
    settings = OmegaConf.to_container(config, resolve=True)
    check_targets(settings, CONFIGS)
    system, benchmark = (instantiate(config[group], _convert_="all") for group in ("system", "benchmark"))
    for line in benchmark.judge(system, Path(config.out), config.seed, settings):
        logger.info(line)


def _weights() -> str:
    from lightning_mav.metrics.weights import overview  # brings torch, which no other of these commands needs

    return overview()


def _selfcheck() -> str:
    from eval.selfcheck import selfcheck

    return selfcheck()


PRINTED = {"baselines": show, "weights": _weights, "selfcheck": _selfcheck}
"""Commands that need no configuration."""


def main() -> int:
    """Run the application; return its exit code: 2 config, 3 data, 4 checkpoint, 5 machine, 130 interrupted."""
    if "--debug" in sys.argv:
        os.environ[DEBUG] = "1"  # which the processes of a sweep inherit
        sys.argv.remove("--debug")
    if len(sys.argv) == 2 and sys.argv[1] in PRINTED:
        return _guarded(lambda: print(PRINTED[sys.argv[1]]()))
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach this program instead of Hydra's own printer
    return _guarded(_checked)


def _checked() -> None:
    """Evaluate, unless Hydra would build or read what it should not."""
    check_words(sys.argv[1:])
    for path in CONFIGS.rglob("*.yaml"):
        check_yaml(path)
    evaluate()


def _guarded(work: Callable[[], None]) -> int:
    """Do ``work``; turn an error that the user can mend into one line and its exit code."""
    try:
        work()
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException as error:
        known = _plain(error)
        code = exit_code(known)
        if code is None or DEBUG in os.environ:
            raise
        sys.stderr.write(f"error: {one_line(known)}\n")
        return code
    return 0


def _plain(error: BaseException) -> BaseException:
    """Turn Hydra's error into the one that a part raised while it was built, or into a wrong key."""
    if error.__cause__ is not None and exit_code(error.__cause__) is not None:
        return error.__cause__
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return ConfigError(str(error).splitlines()[0].rstrip(".") + "; see python -m eval --help")
    return error


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
