"""``data``: index, check, pack, prepare and embed one's own data; write the embedded data to disk."""

from typing import Literal


def moving_shapes(out: str, num_images: int = 2000, num_videos: int = 200, size: int = 64, seed: int = 0) -> None:
    """Write captioned images and videos without captions of moving shapes.

    Args:
        out: Folder to write: images/*.jpg with a .txt caption each, videos/*.mp4.
        num_images: Number of images.
        num_videos: Number of videos, 17 seconds each at 30 frames per second.
        size: Height and width in pixels, even.
        seed: Seed of everything that is drawn.
    """
    from pathlib import Path

    from lightning_mav.data.moving_shapes import write_moving_shapes
    from lightning_mav.generation import check_positive

    check_positive(size=size)
    write_moving_shapes(Path(out), num_images, num_videos, size, seed)
    print(f"{num_images} images and {num_videos} videos in {out}")


def index(source: str, out: str, num_workers: int = 4, deadline: float = 120.0, min_frames: int = 16) -> None:
    """Decode everything in a source once and write a manifest, by which training reads it at random.

    A run that was killed goes on where it was. Bad samples are left out and listed in OUT.bad.jsonl.

    Args:
        source: Folder of tar shards (img2dataset, video2dataset) or of files, one tar, or a csv, jsonl or parquet list.
        out: Manifest to write, .jsonl; as SOURCE/manifest.jsonl it is found when training names the folder.
        num_workers: Processes that decode.
        deadline: Seconds after which the decoding of one image or video is given up.
        min_frames: Videos with fewer are left out.
    """
    from pathlib import Path

    from lightning_mav.data.index import build
    from lightning_mav.errors import ConfigError

    if Path(out).suffix != ".jsonl":
        raise ConfigError(f"out: a manifest ends in .jsonl, got '{out}'; write for example {out}/manifest.jsonl")
    _check_effort(num_workers, deadline)
    num = build(source, Path(out), num_workers, deadline, min_frames)
    bad = f"; {num['bad']} bad, listed in {out}.bad.jsonl" if num["bad"] else ""
    print(f"{num['image']} images ({num['uncaptioned']} without a caption) and {num['video']} videos in {out}{bad}")


def check(
    source: str, num_workers: int = 4, deadline: float = 120.0, min_frames: int = 16, notes: str | None = None
) -> None:
    """Decode everything again, compare it with the manifest, and name each bad sample; exit code 3 if there is one.

    Args:
        source: Manifest or a folder that holds one; or whatever can be indexed, which is then only decoded.
        num_workers: Processes that decode.
        deadline: Seconds after which the decoding of one image or video is given up.
        min_frames: Videos with fewer are bad, where there is no manifest.
        notes: Folder to note what is found, so that a run that was killed goes on where it was; removed at the end.
    """
    from collections import Counter
    from pathlib import Path

    from lightning_mav.data.checking import check as verdicts
    from lightning_mav.errors import DataError

    _check_effort(num_workers, deadline)
    num: Counter[str] = Counter()
    for bad in verdicts(source, num_workers, deadline, min_frames, Path(notes) if notes else None):
        num["bad" if bad else "good"] += 1
        if bad:
            print(_printable(f"{bad.name}: {bad.reason}"))
    if num["bad"]:
        raise DataError(f"{source}: {num['bad']} of {num.total()} samples are bad; remove or mend those named above")
    print(f"{num['good']} samples are good")


def pack(source: str, out: str, samples_per_shard: int = 1000) -> None:
    """Write tar shards as img2dataset does; a run that was killed goes on where it was.

    Args:
        source: Folder, csv, jsonl or parquet list, or manifest.
        out: Folder to write: 00000.tar and so on.
        samples_per_shard: Samples in each shard but the last.
    """
    from pathlib import Path

    from lightning_mav.data.packing import pack as write
    from lightning_mav.generation import check_positive

    check_positive(samples_per_shard=samples_per_shard)
    samples, shards = write(source, Path(out), samples_per_shard)
    print(f"{samples} samples in {shards} shards in {out}; next: data index --source {out} --out {out}/manifest.jsonl")


def prepare(
    source: str,
    out: str,
    form: Literal["mp4", "windows"] = "mp4",
    size: int = 256,
    gop: int = 12,
    crf: int = 18,
    fps: float = 30.0,
    samples_per_shard: int = 250,
    num_workers: int = 4,
    deadline: float = 600.0,
) -> None:
    """Make videos small and quick to read, in tar shards; a run that was killed goes on where it was.

    Args:
        source: Folder, csv, jsonl or parquet list, or manifest; images are passed over.
        out: Folder to write: 00000.tar and so on, each with a 00000.bad.jsonl if some of its videos are bad.
        form: mp4 encodes anew, without sound; windows decodes for good, for small sizes: training reads uint8 frames.
        size: Short side in pixels; smaller videos keep theirs.
        gop: Of mp4: frames from one key frame to the next.
        crf: Of mp4: quality, 0 lossless, 23 the encoder's default.
        fps: Of windows: as many frames per second are kept at most.
        samples_per_shard: Videos for each shard.
        num_workers: Processes that decode.
        deadline: Seconds after which a video is given up.
    """
    from pathlib import Path

    from lightning_mav.data.transcoding import Decoded, Form, Transcoder
    from lightning_mav.data.transcoding import prepare as write
    from lightning_mav.generation import check_positive

    check_positive(size=size, gop=gop, fps=fps, samples_per_shard=samples_per_shard)
    _check_effort(num_workers, deadline)
    chosen: Form = Transcoder(size, gop, crf) if form == "mp4" else Decoded(size, fps)
    num = write(source, Path(out), chosen, samples_per_shard, num_workers, deadline)
    bad = f"; {num['bad']} bad, listed in {out}/*.bad.jsonl" if num["bad"] else ""
    print(f"{num['good']} videos in {out}{bad}; next: data index --source {out} --out {out}/manifest.jsonl")


def embed(
    source: str,
    clip: str,
    out: str,
    size: int = 224,
    batch_size: int = 64,
    samples_per_shard: int = 10_000,
    num_workers: int = 4,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Encode captioned images by CLIP once, for the prior; a run that was killed goes on where it was.

    Args:
        source: Captioned images: folder, list or manifest.
        clip: The frozen CLIP, as data.clip in a configuration.
        out: Folder to write; name it as data.source of the prior.
        size: Height and width of the images that CLIP gets.
        batch_size: Images encoded at once.
        samples_per_shard: Samples in each file.
        num_workers: Processes that read images.
        device: Where to compute; auto takes a GPU if there is one.
    """
    from pathlib import Path

    from lightning_mav.checkpoint.clip import load_clip
    from lightning_mav.embedding import embed as write
    from lightning_mav.errors import ConfigError
    from lightning_mav.generation import check_positive, chosen_device

    check_positive(size=size, batch_size=batch_size, samples_per_shard=samples_per_shard)
    if num_workers < 0:
        raise ConfigError(f"num_workers: expected at least 0, got {num_workers}")
    chosen = chosen_device(device)
    record = write(source, load_clip(clip), Path(out), size, batch_size, samples_per_shard, num_workers, chosen)
    print(f"{record.train} training and {record.val} held-out pairs; train the prior with --data.source {out}")


def _printable(text: str) -> str:
    """Return a text without the control characters and broken letters that a foreign file's name can hold."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _check_effort(num_workers: int, deadline: float) -> None:
    from lightning_mav.errors import ConfigError

    if num_workers < 1 or deadline <= 0:
        raise ConfigError(f"num_workers {num_workers} must be at least 1, and deadline {deadline} above 0 seconds")


COMMANDS = {
    "moving_shapes": moving_shapes,
    "index": index,
    "check": check,
    "pack": pack,
    "prepare": prepare,
    "embed": embed,
}
