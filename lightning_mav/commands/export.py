"""``export``: trained models become folders to share."""

from typing import Literal


def export(
    model: str,
    out: str,
    weights: Literal["averaged", "raw"] = "averaged",
    layout: Literal["native", "diffusers"] = "native",
) -> None:
    """Write a trained model, or all models of a pipeline, as safetensors and json with a model card.

    Args:
        model: A run folder, a .ckpt file or a model folder; or a pipeline folder, with a sub-folder for each model.
        out: Folder to make; one that holds something is left alone.
        weights: The averaged weights of a run (EMA), or the raw ones of its last step.
        layout: diffusers writes decoder, text_proj, prior and super_res_first of its UnCLIP pipeline, for models of
            Karlo's shape; temporal layers are left out.
    """
    from lightning_mav.checkpoint.diffusers_layout import KARLO
    from lightning_mav.checkpoint.export import export_diffusers, export_model, export_pipeline
    from lightning_mav.checkpoint.resolve import resolve_model
    from lightning_mav.pipeline import MakeAVideo

    parts = MakeAVideo.from_pretrained(model).paths if resolve_model(model).kind == "pipeline" else {}
    if layout == "diffusers":
        exported = export_diffusers([path for name, path in parts.items() if name in KARLO] or [model], out, weights)
    elif parts:
        exported = export_pipeline(parts, out, weights)
    else:
        exported = [export_model(model, out, weights)]
    for facts in exported:
        print(f"{facts.model}: {facts.num_parameters / 1e6:.1f} M parameters, {facts.origin} -> {out}")
