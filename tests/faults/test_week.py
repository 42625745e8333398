"""A week in small: a run of thousands of steps, killed fifty times anywhere, ends as if nothing had been."""

import json
import random
import signal
from pathlib import Path

import pytest

from lightning_mav.checkpoint.resolve import newest_checkpoint
from tests.faults.forks import Case, server
from tests.faults.outcome import outcome
from tests.faults.tiny_stages import commands

STEPS, SAVED_EVERY, KILLS = 3000, 50, 50


def anywhere(draw, num_calls):
    """Yield fifty ways to die, in the order of the run: most within a step, one in five while it is saved."""
    for i, save in enumerate(sorted(draw.sample(range(STEPS // SAVED_EVERY), KILLS))):
        first = save * SAVED_EVERY
        if i % 5 == 0:
            yield ["kills:in_save", first + SAVED_EVERY, draw.randrange(num_calls)]
        else:
            yield ["kills:within", first + draw.randrange(1, SAVED_EVERY), draw.uniform(0, 0.02)]


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.row(38)
@pytest.mark.row(39)
def test_fifty_kills_in_three_thousand_steps(tmp_path, image_folder):
    of_stage = commands(tmp_path, image_folder)
    length = ["--trainer.max_steps", STEPS, "--model.schedule_steps", STEPS, "--checkpoint_every", SAVED_EVERY]

    def case(run, inject):
        return Case(of_stage("prior", tmp_path / run, *length), inject, seconds=900)

    (whole,) = server().run([case("whole", ["kills:trace_save", SAVED_EVERY, str(tmp_path / "calls")])])
    assert whole.status == 0, whole.err
    num_calls = len(json.loads(Path(tmp_path, "calls").read_text()))
    ends = [server().run([case("week", kill)])[0].status for kill in anywhere(random.Random(0), num_calls)]
    assert ends == [-signal.SIGKILL] * KILLS
    (last,) = server().run([case("week", [])])
    assert last.status == 0, last.err
    assert outcome(newest_checkpoint(tmp_path / "week")) == outcome(newest_checkpoint(tmp_path / "whole"))
