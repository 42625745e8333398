"""``convert``: open weights of other projects become models of this one."""

from pathlib import Path

from lightning_mav.errors import ConfigError


def convert(source: list[str], out: str) -> None:
    """Turn downloaded weights into model folders; their family is found out from the names of the weights.

    Args:
        source: Files or folders, for example Karlo's decoder, prior, super-resolution and ViT-L-14_stats.th, or the
            folders of its diffusers version. The decoder's folder and text_proj, and the prior and its statistics, go
            together.
        out: Folder in which each model gets a folder.
    """
    from lightning_mav.checkpoint.convert import convert_sources, filled_model  # torch, which --help must not wait for
    from lightning_mav.checkpoint.models import save_model

    if not source:
        raise ConfigError("convert: no --source; give at least one file or folder")
    for one in convert_sources(source):
        folder = Path(out) / one.family.folder
        model = filled_model(one)
        save_model(model, folder)
        num = sum(parameter.numel() for parameter in model.parameters())
        print(f"{one.family.name}: {num / 1e6:.1f} M parameters, licence {one.family.licence} -> {folder}")
