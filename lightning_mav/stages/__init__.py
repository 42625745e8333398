"""Stages: what trains each model, a LightningModule beside its LightningDataModule, in the paper's order."""

from lightning_mav.stages.clip import ClipDataModule, ClipStage
from lightning_mav.stages.decoder import DecoderDataModule, DecoderStage
from lightning_mav.stages.interpolation import InterpolationDataModule, InterpolationStage
from lightning_mav.stages.prior import PriorDataModule, PriorStage
from lightning_mav.stages.super_resolution import (
    SpacetimeSRDataModule,
    SpacetimeSRStage,
    SpatialSRDataModule,
    SpatialSRStage,
)

__all__ = [
    "ClipDataModule",
    "ClipStage",
    "DecoderDataModule",
    "DecoderStage",
    "InterpolationDataModule",
    "InterpolationStage",
    "PriorDataModule",
    "PriorStage",
    "SpacetimeSRDataModule",
    "SpacetimeSRStage",
    "SpatialSRDataModule",
    "SpatialSRStage",
]
