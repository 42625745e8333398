"""OpenAI's own CLIP files. They are TorchScript, and reading that runs code: only the published files are read."""

import hashlib
import mmap
import zipfile
from pathlib import Path

import open_clip

from lightning_mav.errors import CheckpointError


def is_torchscript(file: Path) -> bool:
    """Tell TorchScript from other files; of CLIPs only OpenAI's are published so."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def check_published(name: str, file: Path) -> None:
    """Refuse TorchScript that is not OpenAI's file of the open_clip model ``name``, by checksum.

    Raises:
        CheckpointError: It is another file.
    """
    url = open_clip.get_pretrained_cfg(name, "openai").get("url", "")
    if not url or _sha256(file) not in url:
        fix = f"fetch {url}, or use safetensors" if url else "use safetensors"
        raise CheckpointError(f"{file}: reading TorchScript runs its code, and this is not OpenAI's {name}; {fix}")


def _sha256(file: Path) -> str:
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return hashlib.sha256(mapped).hexdigest()
