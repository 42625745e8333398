import pytest
import torch

from eval.controls import control_captions, control_videos
from eval.oracle import judge, summary
from lightning_mav.data.scenes import BACKGROUNDS, FOREGROUNDS, HELD_OUT, draw_scene
from lightning_mav.errors import DataError

N = range(128)


def verdict(kind, fps=16.0, num_frames=16, size=16, indices=N, seed=3):
    videos = control_videos(kind, indices, fps, num_frames, size, seed)
    return summary(judge(videos, fps, control_captions(indices, seed)))


@pytest.mark.parametrize(
    ("fps", "num_frames", "size", "indices"),
    [(16, 16, 16, N), (6, 16, 16, N), (30, 76, 16, N), (30, 76, 192, range(4)), (10, 16, 64, range(32))],
)
def test_real_videos_pass(fps, num_frames, size, indices):
    shares = verdict("real", fps, num_frames, size, indices)
    assert shares["n"] == len(indices)
    assert min(shares[k] for k in ("text_faithful", "background_right", "dominant_motion", "strict_law")) >= 0.98


@pytest.mark.parametrize("kind", ["still", "jittered", "wrong_motion"])
@pytest.mark.parametrize("fps", [6, 16])
def test_spoiled_motion_fails_and_the_text_is_still_right(kind, fps):
    shares = verdict(kind, fps)
    assert shares["strict_law"] <= 0.02
    assert shares["dominant_motion"] <= 0.12  # chance lets a few jittered lines look like a sinusoid
    assert shares["text_faithful"] >= 0.98


def test_pixel_noise_is_forgiven():
    videos = control_videos("real", N, 16, 16, 16, 0)
    noisy = videos + 0.15 * torch.randn(videos.shape, generator=torch.Generator().manual_seed(0))
    shares = summary(judge(noisy, 16, control_captions(N, 0)))
    assert min(shares["text_faithful"], shares["strict_law"]) >= 0.98


@pytest.mark.parametrize("part", ["shape", "foreground", "background"])
def test_a_caption_with_one_wrong_word_is_noticed(part):
    videos = control_videos("real", range(64), 16, 16, 16, 0)
    captions = [_with_other(part, caption) for caption in control_captions(range(64), 0)]
    shares = summary(judge(videos, 16, captions))
    assert shares["background_right" if part == "background" else "text_faithful"] <= 0.02


def _with_other(part, caption):
    names = {
        "shape": ["ring", "square", "triangle", "cross"],
        "foreground": [*FOREGROUNDS],
        "background": [*BACKGROUNDS],
    }
    words = names[part]
    (word,) = [w for w in words if f" {w} " in caption]
    return caption.replace(f" {word} ", f" {words[words.index(word) - 1]} ")


def test_a_verdict_does_not_depend_on_the_batch():
    videos, captions = control_videos("real", range(6), 16, 16, 16, 0), control_captions(range(6), 0)
    together = judge(videos, 16, captions)
    alone = [judge(videos[i : i + 1], 16, captions[i : i + 1])[0] for i in range(6)]
    assert [j.strict_law for j in alone] == [j.strict_law for j in together]
    assert alone[3].r2 == pytest.approx(together[3].r2, abs=1e-6)


def test_measured_motion_is_the_rendered_one():
    scene = draw_scene("video", "test", 0, 0)  # a ring, up and down
    (seen,) = judge(control_videos("real", range(1), 16, 32, 64, 0), 16, [scene.caption])
    assert (seen.shape, seen.foreground, seen.background, seen.motion) == (
        "ring",
        scene.foreground,
        scene.background,
        "vertical",
    )
    assert seen.amplitude[1] == pytest.approx(scene.amplitude, rel=0.05)
    assert seen.deviation[0] < 0.01


@pytest.mark.parametrize("level", [0.0, float("nan")])
def test_empty_videos_pass_nothing_but_do_not_crash(level):
    shares = summary(judge(torch.full((16, 3, 16, 16, 16), level), 16, HELD_OUT))
    assert shares["strict_law"] == shares["dominant_motion"] == 0


def test_wrong_input_is_named():
    videos = torch.zeros(1, 3, 16, 16, 16)
    with pytest.raises(DataError, match="a dog"):
        judge(videos, 16, ["a dog"])
    with pytest.raises(DataError, match="1 videos came with 2"):
        judge(videos, 16, HELD_OUT[:2])
    with pytest.raises(DataError, match="square videos"):
        judge(videos[..., :8], 16, HELD_OUT[:1])
