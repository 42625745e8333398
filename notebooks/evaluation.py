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
# # Judging a folder of videos
#
# Any system can be judged that writes one video per prompt, called by the prompt's id. Here two such folders are made
# up from moving shapes, one that moves as the real videos do and one whose frames are shuffled, and both are put
# through the same protocol. Random networks stand in for I3D and CLIP (`extractor=random`), so nothing is needed but
# this repository; with the real weights on disk only that word is left out.

# %%
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from IPython.display import HTML, display
from PIL import Image

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "configs" / "demo").is_dir())
sys.path.insert(0, str(ROOT))
warnings.filterwarnings("ignore", "IProgress not found")  # no progress bars here

from eval.controls import control_captions, control_videos
from lightning_mav.media import contact_sheet, write_video

NUM, FPS, FRAMES, SIZE = 60, 16, 16, 32
work = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Captions and real videos
#
# An annotation in one of the shapes in which MSR-VTT's captions circulate, and a folder of real videos.

# %%
captions = control_captions(range(NUM), seed=0)
annotation = {f"video{i}": {"0": caption} for i, caption in enumerate(captions)}
(work / "captions.json").write_text(json.dumps(annotation))


def write_folder(name, videos, names):
    """Write videos as files called by ``names``."""
    for video, stem in zip(videos, names, strict=True):
        (work / name).mkdir(exist_ok=True)
        write_video(video, work / name / f"{stem}.mp4", FPS)


write_folder("real", control_videos("real", range(NUM), FPS, FRAMES, SIZE, seed=0), annotation)
captions[:3]

# %% [markdown]
# ## Two systems to judge
#
# Same captions, other draws. Their files are called by the prompts' ids: video and number of the sentence.

# %%
ids = [f"video{i}#0" for i in range(NUM)]
for name, kind in {"good": "real", "shuffled": "jittered"}.items():
    write_folder(name, control_videos(kind, range(NUM), FPS, FRAMES, SIZE, seed=0 if kind == "real" else 1), ids)
sheet = contact_sheet(list(control_videos("jittered", range(3), FPS, FRAMES, SIZE, seed=1)))
display(Image.fromarray(torch.as_tensor(sheet).numpy()))

# %% [markdown]
# ## One command for each


# %%
def evaluate(name):
    """Judge a folder; return what stands in results.json."""
    words = [
        "benchmark=msrvtt", "protocol=msrvtt_modelscope", "extractor=random", f"benchmark.limit={NUM}",
        "protocol.fps=null", "protocol.size=null", "system=folder", f"system.path={work / name}",
        f"benchmark.data.captions={work / 'captions.json'}", f"benchmark.data.videos={work / 'real'}",
    ]  # fmt: skip
    run = subprocess.run([sys.executable, "-m", "eval", *words], cwd=ROOT, capture_output=True, text=True)
    print((run.stdout or run.stderr).replace(str(work), "work"))
    return json.loads((work / name / "eval" / "msrvtt_modelscope" / "results.json").read_text())


results = {name: evaluate(name) for name in ("good", "shuffled")}

# %% [markdown]
# ## Reading it
#
# The first number is what papers print, and too large: with 60 videos much of it is bias. The second is the
# jackknife's estimate without that, with its error. The good folder holds the real videos themselves, so its distance
# is zero. CLIPSIM says nothing here, as its CLIP is random.

# %%
for name, found in results.items():
    for metric, one in found["scores"].items():
        corrected = "" if one["corrected"] is None else f"   {one['corrected']:8.4f} +- {one['corrected_error']:.4f}"
        print(f"{name:9s} {metric:8s} n = {one['n']:3d}   {one['value']:8.4f}{corrected}")

# %% [markdown]
# Nothing may stand beside a published number: the protocol was changed, and n is small. The report says so row by row,
# shows the curve over n and plays the videos.

# %%
print("changed:", ", ".join(results["good"]["changes"]))
report = work / "shuffled" / "eval" / "msrvtt_modelscope" / "report.html"
page = report.read_text()
display(HTML(page[page.index("<svg") : page.index("</svg>") + 6]))
print(f"{report.name}: {len(page) // 1000} kB, one file")
