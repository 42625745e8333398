"""Speeds add up to what was done and waiting for data shows as such, on a clock that only the tests move."""

import pytest
from lightning.pytorch import Callback

from callbacks import Throughput, throughput
from lightning_mav.data.videos import VideoDataset
from lightning_mav.errors import ConfigError
from lightning_mav.planning.training import plan_step
from lightning_mav.stages import DecoderDataModule, DecoderStage, data_module

NAMES = ("train/samples_per_second", "train/frames_per_second", "train/data_wait")


class Clock(Callback):
    """Stands still but for what is asked of it; as a callback, it works after every batch and in every validation."""

    now = 0.0

    def pass_(self, seconds):
        self.now += seconds

    def on_train_batch_end(self, *args):
        self.pass_(1)

    def on_validation_epoch_start(self, *args):
        self.pass_(100)


@pytest.fixture
def clock(monkeypatch):
    """A clock by which reading a sample takes 1 s, what CLIP adds to a batch half of one, and a training step 1.5 s."""
    clock, read, train = Clock(), VideoDataset.__getitem__, DecoderStage.training_step
    add = DecoderDataModule.on_after_batch_transfer
    for module in (throughput, data_module):
        monkeypatch.setattr(module, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(VideoDataset, "__getitem__", lambda self, key: clock.pass_(1) or read(self, key))
    monkeypatch.setattr(DecoderDataModule, "on_after_batch_transfer", lambda *args: clock.pass_(0.5) or add(*args))
    monkeypatch.setattr(DecoderStage, "training_step", lambda self, *args: clock.pass_(1.5) or train(self, *args))
    return clock


def logged(events, trainer):
    log = events(trainer)
    return {name: {event.step: pytest.approx(event.value) for event in log.Scalars(name)} for name in NAMES}


def test_reports_every_n_steps(fit, events, clock):
    trainer, _ = fit(Throughput(2), steps=5, batch_size=3, limit_val_batches=0)
    values = logged(events, trainer)
    assert values["train/samples_per_second"] == {2: 3 / 5, 4: 3 / 5}
    assert values["train/frames_per_second"] == {2: 4 * 3 / 5, 4: 4 * 3 / 5}
    assert values["train/data_wait"] == {2: 3 / 5, 4: 3 / 5}


def test_all_until_a_step_begins_counts_where_a_data_module_does_not_say_when_it_had_the_batch(
    fit, events, clock, monkeypatch
):
    monkeypatch.setattr(DecoderDataModule, "on_before_batch_transfer", lambda self, batch, dataloader_idx: batch)
    trainer, _ = fit(Throughput(2), steps=4, batch_size=3, limit_val_batches=0)
    assert logged(events, trainer)["train/data_wait"] == {2: 3.5 / 5, 4: 3.5 / 5}


def test_accumulated_batches_count_and_are_reported_once(fit, events, clock):
    trainer, _ = fit(Throughput(1), steps=3, batch_size=3, limit_val_batches=0, accumulate_grad_batches=2)
    values = logged(events, trainer)
    assert list(values["train/data_wait"]) == [1, 2, 3]
    assert values["train/samples_per_second"][3] == 6 / 10


def test_the_work_of_other_callbacks_and_of_validation_is_no_waiting(fit, events, clock):
    options = {"limit_val_batches": 1, "val_check_interval": 1, "check_val_every_n_epoch": None}
    trainer, _ = fit(Throughput(2), clock, steps=4, batch_size=1, **options)
    values = logged(events, trainer)
    assert values["train/data_wait"][4] == 2 / 8
    assert values["train/samples_per_second"][4] == 2 / 8
    assert isinstance(trainer.callbacks[-1], Throughput)


def test_operations_are_those_that_are_planned(fit, events, clock):
    options = {"limit_val_batches": 0, "accumulate_grad_batches": 2}
    trainer, stage = fit(Throughput(2, peak_tflops=1e-6), steps=4, batch_size=3, **options)
    log = events(trainer)
    tflops = [event.value for event in log.Scalars("train/tflops_per_second")]
    planned = plan_step(stage, trainer.datamodule, device="cpu").flops
    assert tflops == [pytest.approx(planned / 5e12)] * 2  # a batch of 3 samples takes 5 s
    assert [event.value for event in log.Scalars("train/mfu")] == pytest.approx([one / 1e-6 for one in tflops])


def test_without_a_peak_there_is_no_share_of_it(fit, events, clock):
    trainer, _ = fit(Throughput(2), steps=2, limit_val_batches=0)
    assert "train/mfu" not in events(trainer).Tags()["scalars"]


@pytest.mark.parametrize(("options", "said"), [({"every_n_steps": 0}, "every_n_steps 0"), ({"peak_tflops": 0}, "peak")])
def test_nonsense_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        Throughput(**options)
