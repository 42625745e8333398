# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A prompt on its way to a video
#
# Make-A-Video is one line (paper, equation 1):
#
#     video = SR_h( SR_l( F( D( P(text), fps ) ) ) )
#
# This notebook takes one prompt through it and stops after every part. The models are those of `make demo`; another
# pipeline folder is named by the environment variable `LIGHTNING_MAV_PIPELINE`.

# %%
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import yaml
from IPython.display import display
from PIL import Image

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "configs" / "demo").is_dir())
sys.path.insert(0, str(ROOT))
warnings.filterwarnings("ignore", "IProgress not found")  # no progress bars here

from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.checkpoint.config import from_plain
from lightning_mav.checkpoint.models import save_model
from lightning_mav.data.images import open_images
from lightning_mav.data.scenes import CAPTIONS
from lightning_mav.data.transforms import to_network_range
from lightning_mav.media import contact_sheet, write_video
from lightning_mav.models import MODELS
from lightning_mav.pipeline import PARTS, MakeAVideo


def show(*videos, num_frames=8):
    """Show a row of frames per video (3, F, H, W)."""
    display(Image.fromarray(contact_sheet(videos, num_frames).numpy()))


# %% [markdown]
# ## The pipeline
#
# A pipeline folder holds one model per part. If there is none yet, networks that nothing has been taught take its
# place: the way is the same, but what they make shows nothing.


# %%
def untrained(folder):
    """Write the demo's networks, narrow and at random, as a pipeline folder."""
    for name in ("clip", *PARTS):
        settings = yaml.safe_load((ROOT / f"configs/demo/{name}.yaml").read_text())["model"]["init_args"]["config"]
        if "channels" in settings["network"]:
            settings["network"] |= {"channels": 16, "channel_mult": [1, 1], "head_channels": 16}
        settings |= {} if name == "clip" else {"sampling": settings["sampling"] | {"steps": 1}}
        model = MODELS[name]
        save_model(model(from_plain(model.config_class, settings)), folder / name)
    return folder


folder = ROOT / os.environ.get("LIGHTNING_MAV_PIPELINE", "runs/demo")
if not folder.is_dir():
    print(f"{folder.name}: not there. UNTRAINED networks follow, which show nothing; run `make demo` and start again.")
    folder = untrained(Path(tempfile.mkdtemp()))
pipeline = MakeAVideo.from_pretrained(folder, precision="float32")

# %% [markdown]
# ## P: from text to an image embedding
#
# The prior is the only part that sees text. It draws a CLIP image embedding: what a picture of this text would look
# like to CLIP. It cannot be looked at, but it can be compared with the embeddings of real stills. Here are the eight
# nearest of 400. The prompt is one of the captions that were held out of training, so none of them shows exactly
# this.

# %%
prompt = "a purple cross on a white background"
seed = 0
embedding = pipeline.embed([prompt], seed, [prompt])

clip = load_clip(str(pipeline.paths["clip"]))
source = open_images("moving_shapes", "train", 64)
stills = torch.stack([to_network_range(source.image(i)[None]) for i in range(400)])  # (400, 3, 1, 64, 64)
similarity = torch.cosine_similarity(embedding, clip.encode_image(stills[:, :, 0]))
show(torch.cat(list(stills[similarity.topk(8).indices]), dim=1))

text_similarity = torch.cosine_similarity(embedding, clip.encode_text(CAPTIONS).embedding)
print(prompt, "->", *(f"\n  {text_similarity[i]:.2f}  {CAPTIONS[i]}" for i in text_similarity.topk(3).indices))

# %% [markdown]
# ## D: from an embedding and a frame rate to 16 frames
#
# The decoder learned from images what things look like, and from silent videos how they move. Crosses orbit in those
# videos.

# %%
fps = 6.0
video = pipeline.decode(embedding, fps, frames=16, seed=seed, ids=[prompt])
print(tuple(video.shape))
show(video[0], num_frames=16)

# %% [markdown]
# **The frame rate is an input.** The same embedding and the same noise at 4, 8 and 16 frames per second: 16 frames
# span 4, 2 and 1 seconds, so neighbours differ less and less.

# %%
rates = (4.0, 8.0, 16.0)
videos = [pipeline.decode(embedding, rate, frames=16, seed=seed, ids=[prompt])[0] for rate in rates]
show(*videos, num_frames=16)
for rate, one in zip(rates, videos, strict=True):
    print(f"{rate:4.0f} fps: neighbouring frames differ by {(one[:, 1:] - one[:, :-1]).abs().mean():.4f}")

# %% [markdown]
# ## F: from 16 frames to 76
#
# Four new frames between each two, so 6 frames per second become 30. Given frames come back as they were. Shown are
# the first eleven: the 1st, 6th and 11th are the decoder's.

# %%
longer = pipeline.interpolate(video, embedding, fps, frame_skip=5, seed=seed, ids=[prompt])
print(tuple(longer.shape), "given frames unchanged:", torch.equal(longer[:, :, ::5], video))
show(longer[0, :, :11], num_frames=11)

# %% [markdown]
# ## SR_l: four times larger, over space and time

# %%
larger = pipeline.enlarge("sr_spacetime", longer, seed, [prompt])
print(tuple(larger.shape))
show(larger[0])

# %% [markdown]
# ## SR_h: larger once more, frame by frame
#
# Every frame gets the same noise, or details would flicker.

# %%
final = pipeline.enlarge("sr_spatial", larger, seed, [prompt])
print(tuple(final.shape))
show(final[0], num_frames=4)

# %% [markdown]
# The file plays for 2.5 seconds. `python -m lightning_mav generate` makes the same in one go.

# %%
path = Path(tempfile.mkdtemp()) / "purple-cross.mp4"
write_video(final[0], path, fps * 5)
print(path.name, f"{path.stat().st_size / 1000:.0f} kB, {final.shape[2] / (fps * 5):.1f} s")
