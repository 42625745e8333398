"""How many windows of 16 frames at 64 pixels one core reads, from source videos and after data prepare.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/loading.py [seconds of CPU for each row]

Sources are 10 s of h264 at 320x240, 30 fps, one key frame in 250, of moving content; decord shrinks them while it
decodes. Rates are drawn from 1 to 30 fps and starts anywhere. A window is uint8 frames; a sample is what training gets,
cropped and float. All is read in a worker, as training reads files. Prints windows and samples per second of CPU, the
ratios, and the memory of its own that 2,000 videos cost the worker.
"""

import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from lightning_mav.data.fps import FpsDistribution
from lightning_mav.data.index import build
from lightning_mav.data.manifest import read_manifest
from lightning_mav.data.transcoding import Decoded, Form, Transcoder, prepare
from lightning_mav.data.transforms import prepare as to_network
from lightning_mav.data.videos import IndexedVideos, VideoDataset, pick_frames
from lightning_mav.seeding import generator

Read = Callable[[int], object]  # the window or sample at a position

NUM, SECONDS, FPS, FRAMES, SIZE = 8, 10, 30, 16, 64
RATES = FpsDistribution(beta_end=(1, 1))
DRAWS = [
    (RATES.draw(i, generator("fps", i)), float(torch.rand((), generator=generator("place", i)))) for i in range(997)
]
TIMES = np.arange(SECONDS * FPS) / FPS


def write_source(path: Path, seed: int) -> None:
    """Write a video of a texture that drifts behind a textured square that swings."""
    draw = np.random.default_rng(seed)
    coarse = torch.from_numpy(draw.random((1, 3, 40, 48), np.float32))
    texture = torch.nn.functional.interpolate(coarse, (640, 768), mode="bicubic")[0].clamp(0, 1).permute(1, 2, 0)
    speed, phase = draw.uniform(0.3, 1, 2), draw.uniform(0, 6, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", FPS, options={"threads": "1", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 320, 240, "yuv420p", 250
        for t in TIMES:
            y, x = (180 + 170 * np.sin(speed * t + phase)).astype(int)
            frame = texture[y : y + 240, x : x + 320].clone()
            top, left = (80 + 60 * np.sin(3 * speed * t + phase)).astype(int)
            frame[top : top + 70, left : left + 70] = texture[:70, :70]
            picture = (255 * frame).to(torch.uint8).numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def prepared(source: Path, out: Path, form: Form) -> IndexedVideos:
    """Return the videos of a folder as ``data prepare`` and ``data index`` make them."""
    prepare(str(source), out, form, 250, 1, 600.0)
    build(str(out), out / "manifest.jsonl", 1, 600.0, FRAMES)
    return IndexedVideos(read_manifest(str(out / "manifest.jsonl"), "video"))


def picked(times: NDArray[np.float64], position: int) -> NDArray[np.int64]:
    """Return the frames of a window, by the same draws for every way of reading."""
    fps, place = DRAWS[position % len(DRAWS)]
    return pick_frames(times, FRAMES, fps, place)[0]


def plain_window(paths: list[Path], position: int) -> torch.Tensor:
    reader = decord.VideoReader(str(paths[position % NUM]), width=SIZE, height=SIZE, num_threads=1)
    return torch.from_numpy(reader.get_batch(picked(TIMES, position)).asnumpy())


def plain_sample(paths: list[Path], position: int) -> torch.Tensor:
    return to_network(plain_window(paths, position), SIZE, SIZE, "none", generator("x"))


def our_window(videos: IndexedVideos, position: int) -> torch.Tensor:
    reader = videos.open(position % NUM)
    return reader.frames(picked(reader.timestamps, position))


def our_sample(data: VideoDataset, position: int) -> dict[str, Any]:
    return data[position % NUM, position]


def per_second(read: Read, seconds: float) -> float:
    """Return how many times ``read`` runs in a second of this process's CPU time."""
    for position in range(3):
        read(position)
    began, done = time.process_time(), 0
    while time.process_time() - began < seconds:
        read(done)
        done += 1
    return done / (time.process_time() - began)


def own_memory() -> float:
    """Return this process's memory in MiB, without files that are mapped, which the system drops when it needs room."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def growth(read: Read, num: int) -> float:
    """Return the memory in MiB by which ``num`` reads make this process grow."""
    for position in range(300):
        read(position)
    before = own_memory()
    for position in range(num):
        read(position)
    return own_memory() - before


class Measure(Dataset[float]):
    """One measure, taken where it is read."""

    def __init__(self, take: Callable[[], float]) -> None:
        self.take = take

    def __getitem__(self, index: int) -> float:
        return self.take()


def in_worker(take: Callable[[], float]) -> float:
    """Take a measure in a worker."""
    loader = DataLoader(Measure(take), sampler=[0], batch_size=None, num_workers=1, multiprocessing_context="fork")
    return float(next(iter(loader)))


def main(seconds: float) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.mkdir()
        for i in range(NUM):
            write_source(source / f"{i}.mp4", i)
        paths = sorted(source.iterdir())
        ours = {
            "short-GOP mp4": prepared(source, Path(folder, "mp4"), Transcoder(SIZE, 12, 18)),
            "windows": prepared(source, Path(folder, "windows"), Decoded(SIZE, FPS)),
        }
        windows: dict[str, Read] = {"decord on sources": partial(plain_window, paths)}
        samples: dict[str, Read] = {"decord on sources": partial(plain_sample, paths)}
        for name, videos in ours.items():
            windows[name] = partial(our_window, videos)
            samples[name] = partial(our_sample, VideoDataset(videos, SIZE, FRAMES, RATES, 0))
        print(f"{'':20}{'windows/s':>12}{'ratio':>8}{'samples/s':>12}{'ratio':>8}")
        base: list[float] = []
        for name in windows:
            rates = [in_worker(partial(per_second, reads[name], seconds)) for reads in (windows, samples)]
            base = base or rates
            cells = [f"{rate:12.1f}{rate / first:8.1f}" for rate, first in zip(rates, base, strict=True)]
            print(f"{name:20}{''.join(cells)}", flush=True)
        for name in ours:
            grown = in_worker(partial(growth, samples[name], 2000))
            print(f"memory after 2,000 videos, {name}: {grown:+.1f} MiB", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
