import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from eval.curves import draw, read_trainings
from eval.media import data_uri, write_sheet, write_webp
from eval.results import Measure, clears
from lightning_mav.errors import ConfigError


def log(folder, first, losses):
    writer = SummaryWriter(str(folder))
    for i, loss in enumerate(losses):
        writer.add_scalar("train/loss", loss, first + i, walltime=1000.0 + 10 * (first + i))
    writer.close()


def test_curves_continue_over_a_resumed_run_and_count_only_time_at_work(tmp_path):
    log(tmp_path / "prior" / "logs", 0, [4.0, 3.0, float("nan")])
    log(tmp_path / "prior" / "logs" / "resumed", 10, [2.0, 1.0])
    (tmp_path / "no_logs").mkdir()
    (training,) = read_trainings(tmp_path)
    assert training.name == "prior"
    assert training.curves["train/loss"].steps == [0, 1, 10, 11]
    assert training.seconds == pytest.approx(20 + 10)
    assert draw(training).count("<polyline") == 1


def test_a_small_video_survives_in_every_pixel(tmp_path):
    video = torch.randint(0, 256, (3, 5, 16, 16)) / 127.5 - 1
    write_webp(video, 10, tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as image:
        assert image.n_frames == 5
        image.seek(3)
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).long()
    assert torch.equal(pixels, ((video[:, 3] + 1) * 127.5).round().long().permute(1, 2, 0))
    assert data_uri(tmp_path / "a.webp").startswith("data:image/webp;base64,")


def test_a_sheet_shows_the_first_and_the_last_frame(tmp_path):
    video = torch.linspace(-1, 1, 20)[None, :, None, None].expand(3, 20, 16, 16)
    write_sheet(video, tmp_path / "a.png", num_frames=4)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (64, 16)
        assert (image.getpixel((0, 0)), image.getpixel((63, 15))) == ((0, 0, 0), (255, 255, 255))


@pytest.mark.parametrize(("bar", "passed"), [(">= 0.5", True), ("> 0.5", False), ("<= 0.4", False), ("== 0.5", True)])
def test_bars(bar, passed):
    assert Measure("part", "name", 0.5, "share", 1, 0.0, bar).passed is passed


def test_an_unreadable_bar_is_named():
    with pytest.raises(ConfigError, match="about 3"):
        clears(1.0, "about 3")
