"""From samples to a batch: what does not fit, in a user's data set above all, is named by its sample."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_mav.errors import DataError

Batch = dict[str, Any]  # samples stacked, by what they hold

TOLERANCE = 1e-3  # of the range [-1, 1]
LAYOUTS = {"video": "(B, 3, F, {sides})", "image": "(B, 3, {sides})"}


def collate(samples: Sequence[Any]) -> Batch:
    """Stack what all samples hold; each is a dictionary.

    Raises:
        DataError: One is no such dictionary, or differs from the first in type or shape.
    """
    for sample in samples:
        if not isinstance(sample, dict) or not {"index", "position"} <= sample.keys():
            raise DataError(f"data: a sample is {_brief(sample)}; give a dictionary with index, position and contents")
    first = samples[0]
    names = [name for name in first if all(name in sample for sample in samples)]
    for sample in samples:
        for name in names:
            if _brief(sample[name]) != _brief(first[name]):
                raise DataError(
                    f"data: {name} of sample {sample['index']} is {_brief(sample[name])}, but that of sample "
                    f"{first['index']} is {_brief(first[name])}; make them alike"
                )
    batch: Batch = default_collate([{name: sample[name] for name in names} for sample in samples])
    return batch


def check_frames(batch: Batch, sizes: Collection[tuple[int, int]]) -> None:
    """Require the frames of a batch to be what every stage takes: float, in [-1, 1], of 3 colours and the right size.

    Args:
        batch: "video" (B, 3, F, H, W) or "image" (B, 3, H, W), and "index" (B,); of embeddings, neither.
        sizes: Height and width that the configuration promises, in pixels; with buckets there are several.

    Raises:
        DataError: They are not; the message names sample, expectation and finding.
    """
    names = [name for name in LAYOUTS if name in batch]
    if not names and "image_embedding" not in batch:
        raise DataError(f"data: a sample holds {', '.join(sorted(batch))}, but neither video nor image; add one")
    for name in names:
        frames, dims = batch[name], LAYOUTS[name].count(",") + 2
        if not _fits(frames, dims, sizes):
            layouts = [LAYOUTS[name].format(sides=f"{height}, {width}") for height, width in sorted(sizes)]
            raise _wrong(name, batch, f"float {' or '.join(layouts)}", _brief(frames))
        low, high = (float(value) for value in torch.aminmax(frames[0].detach()))
        if not -1 - TOLERANCE <= low <= high <= 1 + TOLERANCE:
            raise _wrong(name, batch, "values in [-1, 1]", f"{low:g} to {high:g}")


def _fits(frames: Any, dims: int, sizes: Collection[tuple[int, int]]) -> bool:
    shaped = isinstance(frames, Tensor) and frames.ndim == dims and frames.is_floating_point()
    return shaped and frames.shape[1] == 3 and tuple(frames.shape[-2:]) in sizes


def _wrong(name: str, batch: Batch, wanted: str, found: str) -> DataError:
    index = batch["index"].tolist()[0]
    return DataError(f"data: {name} of sample {index}: expected {wanted}, got {found}; correct the data set")


def _brief(value: Any) -> str:
    """Return the type of a value, and its shape if it has one."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
