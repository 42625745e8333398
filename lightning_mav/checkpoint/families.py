"""The published weights that convert: each family is data, the model that its files become."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.decoder import DecoderConfig
from lightning_mav.models.prior import PriorConfig
from lightning_mav.models.super_resolution import SuperResolutionConfig
from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.text_transformer import TextTransformerConfig
from lightning_mav.networks.unet import UNetConfig

KARLO_LICENCE = "CreativeML Open RAIL-M"
ADM_LICENCE = "MIT for the code; the model card says research only"
GLIDE_LICENCE = "MIT for the code; the model card advises against commercial use"


@dataclass(frozen=True)
class Family:
    """Published weights that become one model.

    Attributes:
        name: For messages.
        folder: The model's folder in a pipeline.
        model: A key of ``MODELS``.
        config: Of that model.
        prefix: What all its names start with in the published file.
        licence: Of the weights.
        rows: How the rows of q, k and v are ordered: ``by_head``, then q, k, v, as in our network; or ``q_k_v`` first.
    """

    name: str
    folder: str
    model: str
    config: Any
    prefix: str = ""
    licence: str = KARLO_LICENCE
    rows: Literal["by_head", "q_k_v"] = "by_head"


def _adm(
    channels: int, channel_mult: tuple[float, ...], attention_downsamples: tuple[int, ...], **more: Any
) -> UNetConfig:
    """Return a network of guided-diffusion (Dhariwal and Nichol 2021), class-conditional if not told otherwise."""
    fixed: dict[str, Any] = {"num_res_blocks": 2, "num_classes": 1000, "image_embedding_dim": None, "context_dim": None}
    return UNetConfig(channels, channel_mult, attention_downsamples=attention_downsamples, **(fixed | more))


def _adm_decoder(
    network: UNetConfig, image_size: int, schedule: Literal["linear", "cosine"] = "linear"
) -> DecoderConfig:
    return DecoderConfig(network, Objective(schedule), Sampling("ddpm", 250), image_size=image_size)


def _upsampler(network: UNetConfig, steps: int | str) -> SuperResolutionConfig:
    """Return a super-resolution model of guided-diffusion's or GLIDE's kind, with learned variance."""
    return SuperResolutionConfig(network, Objective("linear"), Sampling("ddpm", steps), enlargement="bilinear")


_SIX_LEVELS = (1, 1, 2, 2, 4, 4)
_GLIDE = replace(
    _adm(192, (1, 2, 3, 4), (2, 4, 8), num_res_blocks=3, dropout=0.1),
    num_classes=None,
    context_dim=512,
    text_encoder=TextTransformerConfig(),
)
_KARLO_DECODER = DecoderConfig(UNetConfig(text_dim=768), sampling=Sampling("ddpm", 25, guidance_scale=8.0))
_KARLO_PRIOR = PriorConfig(PriorTransformerConfig(), sampling=Sampling("ddpm", 25, guidance_scale=4.0))
_KARLO_SR = SuperResolutionConfig(sampling=Sampling("ddpm", 7), enlargement="bicubic_antialias")

KARLO = (
    Family("Karlo decoder", "decoder", "decoder", _KARLO_DECODER, "model."),
    Family("Karlo prior", "prior", "prior", _KARLO_PRIOR, "model."),
    Family("Karlo super-resolution", "sr_spacetime", "sr_spacetime", _KARLO_SR, "model_first_steps."),
    Family("Karlo's last super-resolution step", "sr_last_step", "sr_spacetime", _KARLO_SR, "model_last_step."),
)
ADM = tuple(
    Family(f"ADM {name}", folder, folder, config, licence=ADM_LICENCE, rows="q_k_v" if name == "64" else "by_head")
    for name, folder, config in (
        (
            "64",
            "decoder",
            _adm_decoder(_adm(192, (1, 2, 3, 4), (2, 4, 8), num_res_blocks=3, dropout=0.1), 64, "cosine"),
        ),
        ("128", "decoder", _adm_decoder(_adm(256, (1, 1, 2, 3, 4), (4, 8, 16), num_heads=4), 128)),
        ("256", "decoder", _adm_decoder(_adm(256, _SIX_LEVELS, (8, 16, 32)), 256)),
        ("256, unconditional", "decoder", _adm_decoder(_adm(256, _SIX_LEVELS, (8, 16, 32), num_classes=None), 256)),
        ("512", "decoder", _adm_decoder(_adm(256, (0.5, *_SIX_LEVELS), (16, 32, 64)), 512)),
        ("64 to 256", "sr_spacetime", _upsampler(_adm(192, _SIX_LEVELS, (8, 16, 32), num_heads=4), 250)),
        ("128 to 512", "sr_spatial", _upsampler(_adm(192, _SIX_LEVELS, (16, 32)), 250)),
    )
)
GLIDE = (
    Family(
        "GLIDE base", "decoder", "decoder", DecoderConfig(_GLIDE, sampling=Sampling("ddpm", 100)), licence=GLIDE_LICENCE
    ),
    Family(
        "GLIDE upsampler",
        "sr_spacetime",
        "sr_spacetime",
        _upsampler(
            replace(_GLIDE, channel_mult=_SIX_LEVELS, num_res_blocks=2, attention_downsamples=(8, 16, 32)), "fast27"
        ),
        licence=GLIDE_LICENCE,
    ),
)
FAMILIES = (*KARLO, *ADM, *GLIDE)
