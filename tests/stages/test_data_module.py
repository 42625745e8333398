"""What all data modules share: every position once, batches that may be divided anew, plain errors."""

from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback

from lightning_mav.errors import ConfigError
from lightning_mav.stages import DecoderStage


class Positions(Callback):
    """Remembers the positions of all training batches."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch["position"].tolist())


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "expected"),
    [(2, 1, [[0, 1], [2, 3]]), (2, 2, [[0, 1], [2, 3], [4, 5], [6, 7]]), (3, 1, [[0, 1, 2], [3, 4, 5]])],
)
def test_every_position_is_consumed_once(decoder_config, data, train, batch_size, accumulate, expected):
    positions = Positions()
    stage, source = DecoderStage(decoder_config()), data(batch_size=batch_size)
    train(stage, source, steps=2, callbacks=[positions], accumulate_grad_batches=accumulate)
    assert positions.seen == expected


def test_a_batch_of_no_samples_is_refused(fit, tmp_path, capsys):
    assert fit(tmp_path, "--data.batch_size", 0) == 2
    assert "data.batch_size: expected a number of at least 1, got 0" in capsys.readouterr().err


def resumed_on(devices, batch_size, data, before=(4, 2)):
    """Let a data module on ``devices`` go on where one with a batch of 4 on 2 devices was."""
    source = data(batch_size=batch_size)
    source.trainer = SimpleNamespace(training=True, world_size=devices)
    source.load_state_dict(dict(zip(("batch_size", "devices"), before, strict=True)))


def test_devices_may_change_where_the_batch_makes_up_for_it(data):
    for devices in (1, 2, 4, 8):
        resumed_on(devices, 8 // devices, data)
    with pytest.raises(
        ConfigError, match=r"data.batch_size 4 on 2 devices was 8 samples a step, now 4; set --data.batch_size 8"
    ):
        resumed_on(1, 4, data)
    with pytest.raises(ConfigError, match=r"was 8 samples a step, now 12; take a number of devices that divides 8"):
        resumed_on(3, 4, data)


def test_another_number_of_samples_a_step_is_refused_by_name(fit, tmp_path, capsys):
    assert fit(tmp_path, "--trainer.max_steps", 1) == 0
    assert fit(tmp_path, "--trainer.max_steps", 2, "--data.batch_size", 3) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "data.batch_size 2 on 1 device was 2 samples a step, now 3; set --data.batch_size 2" in error
