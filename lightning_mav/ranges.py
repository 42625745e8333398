"""The numbers that a configuration may hold, by the names of arguments, which mean the same in all stages.

They are compared before anything is built, so that a wrong one costs no time and is named by its whole key.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_mav.checkpoint.resume import flat
from lightning_mav.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``; ``above`` and ``below`` leave out the end itself."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        """Tell whether a number is in the range; what is not finite never is."""
        inside = value > self.low if self.above else value >= self.low
        return math.isfinite(value) and inside and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        """Return the range in words that follow "expected a number"."""
        low = f"{'above' if self.above else 'of at least'} {self.low:g}"
        high = f"{'below' if self.below else 'at most'} {self.high:g}"
        return f"{low} and {high}" if math.isfinite(self.high) else low


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)
DECAY = Range(0, 1, below=True)
RANGES: dict[str, Range] = {
    "seed_everything": Range(0, 2**32 - 1),
    # sizes of networks
    **dict.fromkeys(("channels", "num_res_blocks", "attention_downsamples", "head_channels", "num_heads"), COUNT),
    **dict.fromkeys(("norm_groups", "image_embedding_dim", "context_dim", "text_dim", "num_classes"), COUNT),
    **dict.fromkeys(("kernel_size", "embedding_dim", "states_dim", "width", "num_layers", "num_tokens"), COUNT),
    **dict.fromkeys(("num_text_tokens", "vocabulary", "text_width", "text_layers", "text_heads"), COUNT),
    **dict.fromkeys(("image_channels", "image_size", "unshuffle", "frames_per_chunk", "num_candidates"), COUNT),
    **dict.fromkeys(("num_image_tokens", "max_distance"), NOT_NEGATIVE),
    **dict.fromkeys(("channel_mult", "residual_std", "clip_x0", "max_logit_scale"), POSITIVE),
    # objective and sampling
    **dict.fromkeys(("num_timesteps", "steps", "shift"), COUNT),
    **dict.fromkeys(("vlb_weight", "guidance_scale", "density.std"), NOT_NEGATIVE),
    # training
    **dict.fromkeys(("lr", "weight_decay", "warmup_steps", "decay_steps", "curriculum_samples"), NOT_NEGATIVE),
    **dict.fromkeys(("schedule_steps", "accumulate_grad_batches", "num_nodes"), COUNT),
    **dict.fromkeys(("gradient_clip_val", "log_every_n_steps"), NOT_NEGATIVE),
    **dict.fromkeys(("beta2",), DECAY),
    **dict.fromkeys(("ema_decay", "dropout", "condition_dropout", "probability"), SHARE),
    **{f"masks.{kind}": SHARE for kind in ("regular", "first", "last", "both_ends", "prefix", "suffix")},
    # data
    **dict.fromkeys(("batch_size", "frames", "size", "min_size", "crop", "scale", "skips"), COUNT),
    **dict.fromkeys(("val_samples", "statistics_samples"), COUNT),
    **dict.fromkeys(("num_workers", "gallery", "degradation.noise"), NOT_NEGATIVE),
    **dict.fromkeys(("fps", "fps.low", "fps.high", "beta_start", "beta_end", "sigma"), POSITIVE),
}
ASCENDING = (
    ("data.fps.low", "data.fps.high"),
    ("data.min_size", "data.size"),
    ("model.config.sampling.steps", "model.config.objective.num_timesteps"),
)
DIVISORS = (
    ("model.config.network.num_heads", "model.config.network.width"),
    ("model.config.network.text_heads", "model.config.network.text_width"),
    ("model.config.network.norm_groups", "model.config.network.channels"),
)


def check_ranges(config: dict[str, Any]) -> None:
    """Compare the numbers of a run's configuration with what they may be.

    Raises:
        ConfigError: One is out of its range, or two do not go together; the message names the keys.
    """
    values = flat(config)
    for key, value in values.items():
        allowed = RANGES.get(".".join(key.split(".")[-2:])) or RANGES.get(key.rpartition(".")[2])
        for number in _numbers(value) if allowed else ():
            if number not in allowed:  # type: ignore[operator]
                raise ConfigError(f"{key}: expected a number {allowed}, got {number:g}; correct it")
    _check_pairs(values)


def _check_pairs(values: Mapping[str, Any]) -> None:
    for lower, upper in ASCENDING:
        if any(a > b for a in _numbers(values.get(lower)) for b in _numbers(values.get(upper))):
            raise ConfigError(f"{lower}: {values[lower]} is more than the {values[upper]} of {upper}; lower it")
    for divisor, whole in DIVISORS:
        if any(b % a for a in _numbers(values.get(divisor)) for b in _numbers(values.get(whole))):
            raise ConfigError(f"{divisor}: {values[divisor]} does not divide the {values[whole]} of {whole}; change it")


def _numbers(value: Any) -> Iterator[float]:
    """Yield a number, or the numbers of a list; other values have none."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, int | float) and not isinstance(one, bool):
            yield one
