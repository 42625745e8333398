"""From stored features to the numbers of a protocol, each with its error and with what it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.protocols import MetricSpec
from lightning_mav.errors import DataError
from lightning_mav.metrics.clip_similarity import clip_similarity
from lightning_mav.metrics.frechet import frechet_distance_of_features, jackknife
from lightning_mav.metrics.inception_score import inception_score
from lightning_mav.seeding import generator

GROUPS = 20  # of the jackknife
CURVE = (0.25, 0.35, 0.5, 0.7)  # shares of the videos that the curve over n is drawn at, beside all
LEAST = 40  # videos without which no error can be given


@dataclass(frozen=True)
class Score:
    """One number.

    Attributes:
        value: As published ones are computed: plain, with the bias of its n.
        error: Its standard error; of an Inception Score, the deviation over its parts where it has any.
        n: Generated videos behind it.
        num_real: Real videos behind it, 0 where none enter.
        corrected: Frechet distances: the jackknife's estimate of the value at infinite n.
        corrected_error: Its standard error.
        curve: Frechet distances: (n, value) for growing n, to see how far the plain value is from settled.
        extrapolated: Frechet distances: where a straight line in 1/n through the curve ends.
    """

    value: float
    error: float
    n: int
    num_real: int = 0
    corrected: float | None = None
    corrected_error: float | None = None
    curve: tuple[tuple[int, float], ...] = ()
    extrapolated: float | None = None


def score(spec: MetricSpec, generated: Tensor, real: Tensor | None, prompts: Sequence[str], seed: int) -> Score:
    """Return a metric's score.

    Args:
        spec: The metric.
        generated: (N, k, D) features of generated videos: k vectors of each.
        real: (M, k, D) features of real videos, for Frechet distances.
        prompts: Texts of the N videos.
        seed: Of the order in which videos are drawn where fewer than N enter.

    Raises:
        DataError: Too few videos.
    """
    wanted = (spec.num or len(generated)) * spec.repeats
    if len(generated) < wanted:
        raise DataError(f"{spec.column}: {len(generated)} generated videos, but its protocol takes {wanted}; make more")
    order = _drawn(wanted, len(generated), "generated", seed)
    sets = order.chunk(spec.repeats)
    if spec.kind == "clip_similarity":
        return _similarity(generated[order, 0, 0], [prompts[i] for i in order.tolist()])
    if spec.kind == "inception_score":
        return _inception(spec, [generated[one, 0] for one in sets], seed)
    if real is None:
        raise DataError(f"{spec.column}: needs real videos; set benchmark.data.videos to their folder")
    return _mean([_frechet(generated[one], _drawn_real(spec, real, seed)) for one in sets])


def _drawn_real(spec: MetricSpec, real: Tensor, seed: int) -> Tensor:
    num = spec.num_real or len(real)
    if len(real) < num:
        raise DataError(f"{spec.column}: {len(real)} real videos, but its protocol takes {num}; give more")
    return real[_drawn(num, len(real), "real", seed)]


def _drawn(num: int, total: int, name: str, seed: int) -> Tensor:
    """Return the numbers of the videos that enter: all in their order, or some drawn from the seed."""
    if num == total:
        return torch.arange(total)
    return torch.randperm(total, generator=generator(name, seed))[:num]


def _frechet(generated: Tensor, real: Tensor) -> Score:
    """Compare (N, k, D) with (M, k, D); leaving out a video leaves out all its k vectors."""
    n, m = len(generated), len(real)
    if min(n, m) < LEAST:
        raise DataError(f"{min(n, m)} videos are too few for a Frechet distance with an error; give at least {LEAST}")
    value = frechet_distance_of_features(generated.flatten(0, 1), real.flatten(0, 1))
    parts = [(int(n * share), _of_first(generated, real, share)) for share in CURVE]
    curve = (*parts, (n, value))
    found = jackknife(generated, real, GROUPS)
    return Score(value, found.error, n, m, found.value, found.error, curve, _limit(curve))


def _of_first(generated: Tensor, real: Tensor, share: float) -> float:
    parts = [x[: int(len(x) * share)].flatten(0, 1) for x in (generated, real)]
    return frechet_distance_of_features(*parts)


def _limit(curve: Sequence[tuple[int, float]]) -> float:
    """Return the value at 1/n = 0 of the straight line through (1/n, value), by least squares."""
    x = torch.tensor([1 / n for n, _ in curve], dtype=torch.float64)
    y = torch.tensor([value for _, value in curve], dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return float(y.mean() - slope * x.mean())


def _inception(spec: MetricSpec, sets: Sequence[Tensor], seed: int) -> Score:
    found = [inception_score(logits, spec.splits, seed) for logits in sets]
    means = torch.tensor([one.mean for one in found], dtype=torch.float64)
    error = float(means.std()) if len(found) > 1 else found[0].std
    return Score(float(means.mean()), error, sum(len(one) for one in sets))


CONVENTIONS = {
    "10 splits of 2,048 videos": (2048, 10, 1),
    "mean over 10 sets of 2,048": (2048, 1, 10),
    "all videos as one set": (None, 1, 1),
}
"""How published Inception Scores of videos are made: (videos, splits, sets); StyleGAN-V, TGANv2, TGAN."""


def conventions(logits: Tensor, seed: int) -> dict[str, Score | None]:
    """Return the Inception Score of logits (N, K) in each convention; None where N is too small for it."""
    found: dict[str, Score | None] = {}
    for name, (num, splits, repeats) in CONVENTIONS.items():
        spec = MetricSpec("inception_score", "", "is", num, splits=splits, repeats=repeats)
        enough = len(logits) >= (num or 1) * repeats
        found[name] = score(spec, logits[:, None], None, [""] * len(logits), seed) if enough else None
    return found


def _similarity(similarities: Tensor, prompts: Sequence[str]) -> Score:
    groups: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, similarities.tolist(), strict=True):
        groups.setdefault(prompt, []).append(value)
    means = torch.tensor([sum(values) / len(values) for values in groups.values()], dtype=torch.float64)
    error = float(means.std() / len(means) ** 0.5) if len(means) > 1 else 0.0
    return Score(clip_similarity(similarities, list(prompts)), error, len(prompts))


def _mean(scores: Sequence[Score]) -> Score:
    """Average the scores of several sets; their spread over sets is the error."""
    first = scores[0]
    if len(scores) == 1:
        return first
    values = torch.tensor([one.value for one in scores], dtype=torch.float64)
    error = float(values.std() / len(scores) ** 0.5)
    n = sum(one.n for one in scores)
    return Score(float(values.mean()), error, n, first.num_real, first.corrected, first.corrected_error, first.curve)
