"""``doctor``: what is installed, and which video readers and devices work on this machine."""

import platform
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Row = tuple[str, str]


def doctor() -> None:
    """Print what is installed, the devices, and which video readers work (each decodes a small video)."""
    rows = [("python", f"{platform.python_version()} on {platform.platform()}"), *packages(), *devices(), *readers()]
    rows.append(("temporary files", attempt(_write_temporary)))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def packages() -> list[Row]:
    """Return the version of every package the project depends on."""
    names = "torch lightning jsonargparse torchmetrics einops open_clip_torch transformers hydra-core torch-fidelity"
    names += " decord decord2 torchcodec av tensorboard safetensors pillow numpy"
    return [(name, _version(name)) for name in names.split()]


def devices() -> list[Row]:
    """Return the CPU and every GPU, with what they do in bfloat16."""
    import torch

    from lightning_mav.precision import multiplies_bf16

    bf16 = "units for bf16" if multiplies_bf16("cpu") else "bf16 only emulated, so float32 is used"
    rows = [("cpu", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {bf16}")]
    if not torch.cuda.is_available():
        return [*rows, ("cuda", "none")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        rows.append((f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}"))
    return rows


def readers() -> list[Row]:
    """Return for every video reader whether it decodes a small video that is written for the purpose."""
    from lightning_mav.data.decord_reader import DecordReader
    from lightning_mav.data.pyav_reader import PyAVReader
    from lightning_mav.data.torchcodec_reader import TorchCodecReader, is_installed

    found = [("decord", DecordReader), ("pyav", PyAVReader)]
    found += [("torchcodec", TorchCodecReader)] if is_installed() else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.mp4"
        written = attempt(partial(_write_video, path))
        if written != "works":
            return [("mp4 writer", written)]
        decoded = [(f"{name} reader", attempt(partial(_read_video, reader, path))) for name, reader in found]
    return [("mp4 writer", written), *decoded]


def attempt(action: Callable[[], object]) -> str:
    """Return "works", or what went wrong; any failure is an answer here."""
    try:
        action()
    except Exception as error:
        return f"fails: {type(error).__name__}: {' '.join(str(error).split())}"
    return "works"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _write_temporary() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"0" * 2**20)


def _write_video(path: Path) -> None:
    import torch

    from lightning_mav.data.writing import write_mp4

    write_mp4(path, torch.zeros(4, 64, 64, 3, dtype=torch.uint8), fps=8)


def _read_video(reader: type, path: Path) -> None:
    import numpy as np

    from lightning_mav.data.video_streams import largest_stream

    frames = reader(str(path), largest_stream(str(path))).frames(np.arange(4))
    assert frames.shape == (4, 64, 64, 3), frames.shape
