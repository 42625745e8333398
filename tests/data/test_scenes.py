from collections import Counter

import numpy as np
import pytest
import torch

from lightning_mav.data.scenes import (
    BACKGROUNDS,
    CAPTIONS,
    FOREGROUNDS,
    HELD_OUT,
    HELD_OUT_LOOKS,
    LOOKS,
    SHAPES,
    TRAIN_LOOKS,
    coverage,
    draw_scene,
)

SCENES = [draw_scene("video", "train", 0, i) for i in range(160)]
TIMES = torch.arange(0, 4, 1 / 60, dtype=torch.float64)


def test_sixteen_of_96_captions_are_held_out_and_balanced():
    assert len(set(CAPTIONS)) == 96 and len(set(HELD_OUT)) == 16
    assert "a purple cross on a white background" in HELD_OUT
    counts = Counter(word for look in HELD_OUT_LOOKS for word in look)
    assert all(counts[name] == 4 for name in (*SHAPES, *BACKGROUNDS))
    assert all(counts[name] in (2, 3) for name in FOREGROUNDS)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_splits_share_no_caption_and_each_is_balanced(kind):
    train, test = (
        Counter(draw_scene(kind, split, 0, i).caption for i in range(num))
        for split, num in (("train", 160), ("test", 32))
    )
    assert set(test) == set(HELD_OUT) and set(train) == set(CAPTIONS) - set(HELD_OUT)
    assert set(train.values()) == set(test.values()) == {2}


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 2), (1, 2)])
def test_training_shows_every_pair_of_attributes_with_all_values_of_the_third_but_one(first, second):
    held_out = Counter((look[first], look[second]) for look in HELD_OUT_LOOKS)
    assert set(held_out.values()) == {1}
    assert {(look[first], look[second]) for look in TRAIN_LOOKS} == {(look[first], look[second]) for look in LOOKS}


def test_colours_are_well_apart():
    colours = np.array([*FOREGROUNDS.values(), *BACKGROUNDS.values()], float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 90


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_upright_and_centred(shape):
    cover = coverage(shape, 0.4, torch.tensor([[0.1, -0.2]]), 200)[0].double()
    grid = (torch.arange(200) + 0.5) / 100 - 1
    assert (cover.sum(0) @ grid.double() / cover.sum()).item() == pytest.approx(0.1, abs=2e-3)
    assert (cover.sum(1) @ grid.double() / cover.sum()).item() == pytest.approx(-0.2, abs=2e-3)
    mirrored = coverage(shape, 0.4, torch.tensor([[-0.1, -0.2]]), 200)[0].flip(1).double()
    assert torch.allclose(cover, mirrored, atol=1e-3)
    if shape == "triangle":
        rows = cover.sum(1)[cover.sum(1) > 1]
        assert rows[0] < 0.2 * rows[-1]


def test_antialiasing_keeps_the_area_at_16_pixels():
    for shape in SHAPES:
        areas = [coverage(shape, 0.4, torch.rand(50, 2) * 0.8 - 0.4, size).mean((1, 2)) for size in (16, 256)]
        assert areas[0].mean() == pytest.approx(areas[1].mean().item(), rel=0.05)


def test_no_shape_is_cut_by_the_frame():
    for scene in SCENES:
        areas = coverage(scene.shape, scene.size, scene.path(TIMES[::4]), 64).sum((1, 2))
        whole = coverage(scene.shape, scene.size, torch.zeros(1, 2), 64).sum()
        assert torch.allclose(areas, whole, rtol=0.02)


def test_each_kind_moves_in_its_own_way():
    for scene in SCENES:
        x, y = scene.path(TIMES).double().T
        correlation = torch.corrcoef(torch.stack([x, y]))[0, 1] if x.std() > 1e-3 and y.std() > 1e-3 else None
        if scene.shape == "ring":
            assert x.std() < 1e-6 and y.std() > 0.2
        elif scene.shape == "square":
            assert y.std() < 1e-6 and x.std() > 0.2
        elif scene.shape == "triangle":
            assert correlation > 0.999 and x.std() > 0.2 and y.std() > 0.2
        else:
            assert abs(correlation) < 0.25 and x.std() > 0.2 and y.std() > 0.2


def test_stills_cover_the_places_that_videos_visit():
    for shape in SHAPES:
        stills = [draw_scene("image", "train", 0, i) for i in range(4000)]
        still = np.array([scene.centre for scene in stills if scene.shape == shape])
        moving = np.concatenate([scene.path(TIMES[::8]).numpy() for scene in SCENES if scene.shape == shape])
        assert np.all(still.min(0) - 0.02 < moving.min(0)) and np.all(moving.max(0) < still.max(0) + 0.02)


def test_scenes_depend_on_seed_split_and_index_alone():
    assert draw_scene("video", "train", 0, 5) == draw_scene("video", "train", 0, 5)
    assert draw_scene("video", "train", 0, 5).centre != draw_scene("video", "train", 1, 5).centre
    assert draw_scene("video", "train", 0, 5).centre != draw_scene("image", "train", 0, 5).centre
