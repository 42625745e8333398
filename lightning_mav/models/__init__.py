"""Models: network + noise schedule + objective behind `loss` and `sample`; each stands without Lightning."""

from lightning_mav.models.clip import Clip
from lightning_mav.models.decoder import Decoder
from lightning_mav.models.interpolation import Interpolation
from lightning_mav.models.prior import Prior
from lightning_mav.models.super_resolution import SpacetimeSR, SpatialSR

MODELS = {model.name: model for model in (Clip, Prior, Decoder, Interpolation, SpacetimeSR, SpatialSR)}

__all__ = ["MODELS", "Clip", "Decoder", "Interpolation", "Prior", "SpacetimeSR", "SpatialSR"]
