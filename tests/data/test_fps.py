from statistics import mean

import pytest

from lightning_mav.data.fps import FpsDistribution
from lightning_mav.seeding import generator


def mean_fps(distribution, position, num=2000):
    return mean(distribution.draw(position, generator("fps", i)) for i in range(num))


def test_the_curriculum_goes_from_high_to_low_rates():
    distribution = FpsDistribution(curriculum_samples=1000)
    # The mean of Beta(a, b) is a / (a + b).
    assert mean_fps(distribution, 0) == pytest.approx(1 + 29 * 5 / 6, abs=0.4)
    assert mean_fps(distribution, 500) == pytest.approx(1 + 29 * 3 / 4.5, abs=0.5)
    assert mean_fps(distribution, 1000) == mean_fps(distribution, 9999) == pytest.approx(1 + 29 / 3, abs=0.6)


def test_without_a_curriculum_the_end_holds_from_the_start():
    assert FpsDistribution().beta_at(0) == (1.0, 2.0)


def test_rates_stay_in_range_and_depend_on_the_generator_alone():
    distribution = FpsDistribution(low=2, high=3)
    rates = [distribution.draw(0, generator(i)) for i in range(200)]
    assert all(2 <= rate <= 3 for rate in rates)
    assert rates == [distribution.draw(0, generator(i)) for i in range(200)]
