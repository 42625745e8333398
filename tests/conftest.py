"""Fixtures that several parts use: real clips where they stand, and tiny folders of files."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_mav.data.writing import write_mp4


def pytest_addoption(parser):
    parser.addoption("--table", metavar="FILE", type=Path, help="write the fault matrix with the results of this run")


def pytest_configure(config):
    if path := config.getoption("--table"):
        from tests.faults.table import Table  # found only when this file has been imported

        config.pluginmanager.register(Table(path), "fault matrix")


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real clips and captions that may lie beside the checkout."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real clips are not here: {folder}")
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Eight small images of three kinds with captions, in two folders."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "more").mkdir()
    draw = np.random.default_rng(0)
    for i, name in enumerate(["a.jpg", "b.png", "c.webp", "d.jpg", "more/e.jpg", "more/f.png", "g.jpg", "h.jpeg"]):
        Image.fromarray(draw.integers(0, 256, (24 + i, 40, 3), np.uint8)).save(folder / name)
        (folder / name).with_suffix(".txt").write_text(f"picture number {i}\n", encoding="utf-8")
    return folder


def counting_frames(num_frames, height=32, width=64):
    """Frames whose gray level is four times their number, so that a decoded frame says which one it is."""
    levels = 4 * torch.arange(num_frames, dtype=torch.uint8)
    return levels[:, None, None, None].expand(-1, height, width, 3).contiguous()


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory):
    """Three small videos of 60 frames at 30, 24 and 12 frames per second; frame i has the gray level 4 i."""
    folder = tmp_path_factory.mktemp("videos")
    for name, fps in (("a.mp4", 30), ("b.mkv", 24), ("c.mp4", 12)):
        write_mp4(folder / name, counting_frames(60), fps)
    return folder


@pytest.fixture(autouse=True)
def _no_log_handler_outlives_its_test():
    """Hydra gives the root logger a handler for the captured stdout, which is closed when the test is over."""
    before = list(logging.root.handlers)
    yield
    for handler in list(logging.root.handlers):
        if type(handler) is logging.StreamHandler and handler not in before:
            logging.root.removeHandler(handler)
