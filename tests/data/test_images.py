import pickle
import struct
import zlib

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lightning_mav.data.images import ImageDataset, open_images, read_image
from lightning_mav.data.order import EndlessBatches
from lightning_mav.errors import ConfigError, DataError


def test_a_folder_gives_square_samples_with_captions(image_folder):
    source = open_images(str(image_folder), "train", 16)
    samples = [ImageDataset(source, 16, seed=0)[i, 100 + i] for i in range(len(source))]
    assert len(samples) == 7
    for i, sample in enumerate(samples):
        assert sample["image"].shape == (3, 16, 16) and -1 <= sample["image"].min() < sample["image"].max() <= 1
        assert sample["caption"].startswith("picture number") and (sample["index"], sample["position"]) == (i, 100 + i)


def test_augmentation_depends_on_seed_index_and_position_alone(image_folder):
    def image(seed, position):
        source = open_images(str(image_folder), "train", 16)
        return ImageDataset(source, 16, seed, "crop+flip")[0, position]["image"]

    assert torch.equal(image(0, 5), image(0, 5))
    assert len({image(seed, position).numpy().tobytes() for seed in (0, 1) for position in range(4)}) > 5


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("source", ["files", "moving_shapes"])
def test_the_loader_reads_in_workers_and_in_batches_what_is_read_one_by_one(image_folder, source, workers):
    images = open_images(str(image_folder) if source == "files" else source, "train", 16)
    data = ImageDataset(images, 16, 0, "crop+flip")
    loader = DataLoader(data, batch_sampler=EndlessBatches(len(data), 3, seed=0), num_workers=workers)
    batch = next(iter(loader))
    direct = [data[key] for key in next(iter(EndlessBatches(len(data), 3, seed=0)))]
    assert torch.equal(batch["image"], torch.stack([sample["image"] for sample in direct]))
    assert batch["caption"] == [sample["caption"] for sample in direct]


def test_sources_pickle(image_folder):
    for source in (open_images(str(image_folder), "train", 16), open_images("moving_shapes", "val", 16)):
        copy = pickle.loads(pickle.dumps(source))
        assert torch.equal(copy.image(1), source.image(1)) and copy.caption(1) == source.caption(1)


def test_samples_without_pixels_are_refused(image_folder):
    with pytest.raises(ConfigError, match=r"data.size: expected at least 1 pixel, got 0"):
        ImageDataset(open_images(str(image_folder), "train", 8), 0, seed=0)


def test_images_without_captions_are_images(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    assert "caption" not in ImageDataset(open_images(str(tmp_path), "train", 16), 16, 0)[0, 0]


def test_a_list_overrides_the_text_file(image_folder, tmp_path):
    (tmp_path / "list.csv").write_text(f'path,caption\n{image_folder}/a.jpg,"red, round"')
    assert open_images(str(tmp_path / "list.csv"), "train", 16).caption(0) == "red, round"


def test_transparency_turns_white_and_orientation_is_applied(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(str(tmp_path / "clear.png")) == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(str(tmp_path / "turned.jpg")).shape == (30, 20, 3)
    Image.new("L", (8, 9), 7).save(tmp_path / "gray.png")
    assert read_image(str(tmp_path / "gray.png")).shape == (9, 8, 3)


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("side", [12_000, 60_000])
@pytest.mark.row(25)
def test_decompression_bombs_are_refused(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side) + b"\0" * 100)
    with pytest.raises(DataError, match=r"bomb\.png"):
        read_image(str(tmp_path / "bomb.png"))


def test_damaged_images_are_named(image_folder, tmp_path):
    whole = (image_folder / "a.jpg").read_bytes()
    png = (image_folder / "b.png").read_bytes()
    contents = {
        "cut.jpg": whole[: len(whole) // 2],
        "text.png": b"no image",
        "bad.png": png[:40] + b"\xff" * 60 + png[100:],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_image(str(tmp_path / name))
