import pytest
from torch.utils.tensorboard import SummaryWriter

from eval.curves import draw, read_trainings
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


@pytest.mark.parametrize(("bar", "passed"), [(">= 0.5", True), ("> 0.5", False), ("<= 0.4", False), ("== 0.5", True)])
def test_bars(bar, passed):
    assert Measure("part", "name", 0.5, "share", 1, 0.0, bar).passed is passed


def test_an_unreadable_bar_is_named():
    with pytest.raises(ConfigError, match="about 3"):
        clears(1.0, "about 3")
