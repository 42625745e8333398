"""The extractors that published numbers rest on; each needs its weights on disk, see ``weights.find_weights``."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_mav.errors import CheckpointError
from lightning_mav.metrics.c3d import NUM_CLASSES, NUM_FRAMES, load_c3d
from lightning_mav.metrics.extractors import NetworkExtractor
from lightning_mav.metrics.i3d import I3D, LEAST_FRAMES, NUM_LOGITS
from lightning_mav.metrics.preprocess import Preprocess, Untouched
from lightning_mav.metrics.weights import find_weights, sha256_of

InceptionLayer = Literal["2048", "logits_unbiased"]
_INCEPTION_DIMS: dict[InceptionLayer, int] = {"2048": 2048, "logits_unbiased": 1008}


def i3d(path: str | None = None) -> NetworkExtractor:
    """Return FVD's extractor: 400 logits of I3D on frames squashed to 224 pixels.

    Args:
        path: The state dict that VideoGPT uses; see ``weights.find_weights`` for where it is looked for otherwise.

    Raises:
        CheckpointError: No such file, or one with other keys.
    """
    file = find_weights("i3d", path)
    network = I3D()
    try:
        network.load_state_dict(torch.load(file.path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise CheckpointError(f"{file.path}: is no state dict of I3D ({_reason(error)}); fetch it again") from error
    frames = (LEAST_FRAMES, None)
    return NetworkExtractor("i3d", network.eval(), Preprocess(224), NUM_LOGITS, frames, file.sha256)


def c3d(path: str | None = None, mean: str | None = None) -> NetworkExtractor:
    """Return the classifier of UCF-101's Inception Score in TGANv2's convention: 101 logits of 16 frames.

    Args:
        path: conv3d_deepnetA_ucf.npz; see ``weights.find_weights`` for where it is looked for otherwise.
        mean: mean2.npz, likewise.

    Raises:
        CheckpointError: A missing or wrong file.
    """
    weights, mean_clip = find_weights("c3d", path), find_weights("c3d_mean", mean)
    network = load_c3d(weights.path, mean_clip.path)
    known_by = weights.sha256 + mean_clip.sha256
    return NetworkExtractor("c3d", network, Preprocess(None), NUM_CLASSES, (NUM_FRAMES, NUM_FRAMES), known_by)


def i3d_torchscript(path: str | None = None, trust: bool = False) -> NetworkExtractor:
    """Return the I3D that StyleGAN-V's numbers rest on: 400 logits; the file resizes and rescales frames itself.

    Args:
        path: i3d_torchscript.pt.
        trust: Run the file's code though its checksum is unknown.
    """
    options = {"rescale": True, "resize": True, "return_features": True}
    return _torchscript("i3d_torchscript", path, trust, options, NUM_LOGITS, (LEAST_FRAMES, None))


def c3d_torchscript(path: str | None = None, trust: bool = False) -> NetworkExtractor:
    """Return the C3D that StyleGAN-V's Inception Score rests on: 101 logits of 16 frames of any size.

    Args:
        path: c3d_ucf101.pt.
        trust: Run the file's code; no checksum of it was ever published.
    """
    return _torchscript("c3d_torchscript", path, trust, {}, NUM_CLASSES, (NUM_FRAMES, NUM_FRAMES))


def inception(path: str | None = None, layer: InceptionLayer = "2048") -> NetworkExtractor:
    """Return FID's Inception, which takes videos of one frame and resizes as TensorFlow 1 did.

    Args:
        path: The weights as torch-fidelity or pytorch-fid publish them.
        layer: "2048" for FID, "logits_unbiased" for the Inception Score of images.

    Raises:
        CheckpointError: No such file, or not Inception's weights.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # slow to import

    file = find_weights("inception", path)
    try:
        network = FeatureExtractorInceptionV3("inception", [layer], feature_extractor_weights_path=str(file.path))
    except Exception as error:
        raise CheckpointError(f"{file.path}: no weights of Inception ({_reason(error)}); fetch them again") from error
    name = "inception" if layer == "2048" else f"inception_{layer}"
    return NetworkExtractor(name, _OfFrame(network), Untouched(), _INCEPTION_DIMS[layer], (1, 1), file.sha256)


def videomae(folder: str) -> NetworkExtractor:
    """Return the extractor of content-debiased FVD: a finetuned VideoMAE's pooled tokens, 16 frames.

    Frames are squashed to the model's size and only divided by 255, as that metric's authors do.

    Args:
        folder: config.json and model.safetensors of a transformers ``VideoMAEForVideoClassification``.

    Raises:
        CheckpointError: The folder is missing, incomplete or of another model.
    """
    network = _VideoMAE(Path(folder))
    config = network.model.config
    preprocess = Preprocess(config.image_size, low=0.0, high=1.0)
    frames = (config.num_frames, config.num_frames)
    return NetworkExtractor("videomae", network, preprocess, config.hidden_size, frames, network.sha256)


class _OfFrame(nn.Module):
    """Shows a network of images the frame of one-frame videos."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, video: Tensor) -> Tensor:
        features: Tensor = self.network(video[:, :, 0])[0]
        return features


class _Scripted(nn.Module):
    """Calls a TorchScript with fixed options."""

    def __init__(self, network: nn.Module, options: dict[str, bool]) -> None:
        super().__init__()
        self.network, self.options = network.eval(), options

    def forward(self, video: Tensor) -> Tensor:
        features: Tensor = self.network(video, **self.options)
        return features


class _VideoMAE(nn.Module):
    """The normalised mean of a video's tokens, before the classifier."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import VideoMAEForVideoClassification  # slow to import

        loader: Any = VideoMAEForVideoClassification
        weights = folder / "model.safetensors"
        if not (folder / "config.json").is_file() or not weights.is_file():
            raise CheckpointError(f"{folder}: needs config.json and model.safetensors of a VideoMAE; fetch them")
        try:
            self.model, report = loader.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{folder}: is no VideoMAE ({_reason(error)}); fetch it again") from error
        if missing := sorted(report["missing_keys"]):
            raise CheckpointError(f"{folder}: holds no weight {missing[0]} ({len(missing)} missing); fetch it again")
        if self.model.fc_norm is None:
            raise CheckpointError(f"{folder}: pools no tokens; take a finetuned VideoMAE, with use_mean_pooling")
        self.model.eval()
        self.sha256 = sha256_of(weights)

    def forward(self, video: Tensor) -> Tensor:
        tokens = self.model.videomae(video.transpose(1, 2))[0]
        pooled: Tensor = self.model.fc_norm(tokens.mean(1))
        return pooled


def _torchscript(
    name: str,
    path: str | None,
    trust: bool,
    options: dict[str, bool],
    dim: int,
    frames: tuple[int, int | None],
) -> NetworkExtractor:
    file = find_weights(name, path, trust)
    try:
        script: Any = torch.jit
        network = _Scripted(script.load(str(file.path), map_location="cpu"), options)
    except Exception as error:
        raise CheckpointError(f"{file.path}: is no TorchScript ({_reason(error)}); fetch it again") from error
    return NetworkExtractor(name, network, Untouched(), dim, frames, file.sha256)


def _reason(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
