import socket
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from lightning_mav.errors import DataError
from lightning_mav.metrics.clip_similarity import ClipFrames, clip_similarity, frame_similarity
from lightning_mav.metrics.frechet import frechet_distance_of_features
from lightning_mav.metrics.inception_score import score
from lightning_mav.metrics.video import ClipSimilarity, FrechetImageDistance, FrechetVideoDistance, VideoInceptionScore
from lightning_mav.seeding import generator

PROMPTS = ["a", "b", "a", "c", "b", "a", "d", "e", "f", "g"]


class Means:
    """Means of colours over the halves of the frames, in float64, so that batches cannot matter."""

    name, dim, fingerprint = "means", 6, "means"

    def __call__(self, video):
        x = video.double() / 255
        return torch.cat([x[..., :4].mean((2, 3, 4)), x[..., 4:].mean((2, 3, 4))], 1)


class Clip:
    """Texts and images as unit vectors that are known beforehand."""

    embedding_dim, fingerprint = 6, "clip"

    def encode_image(self, images):
        return torch.cat([images[..., :4].mean((2, 3)), images[..., 4:].mean((2, 3))], 1)

    def encode_text(self, texts):
        return SimpleNamespace(embedding=torch.stack([torch.eye(6)[ord(text) % 6] for text in texts]))


def videos(num=10, key="fake"):
    return torch.randint(0, 256, (num, 3, 3, 8, 8), generator=generator(key), dtype=torch.uint8)


def filled(metric, indices=range(10)):
    """Return a metric that has seen some of ten videos, one at a time."""
    for i in indices:
        one, real = videos()[i : i + 1], videos(key="real")[i : i + 1]
        if isinstance(metric, FrechetVideoDistance):
            metric.update(one, real=False)
            metric.update(real, real=True)
        elif isinstance(metric, ClipSimilarity):
            metric.update(one, [PROMPTS[i]])
        else:
            metric.update(one)
    return metric


METRICS = {
    "fvd": lambda: FrechetVideoDistance(Means()),
    "fid": lambda: FrechetImageDistance(Means(), "all"),
    "is": lambda: VideoInceptionScore(Means(), splits=3),
    "clipsim": lambda: ClipSimilarity(Clip()),
}


def values(metric):
    found = metric.compute()
    return [float(value) for value in (found if isinstance(found, tuple) else (found,))]


def test_fvd_is_the_distance_of_the_features():
    expected = frechet_distance_of_features(Means()(videos(key="real")), Means()(videos()))
    assert values(filled(METRICS["fvd"]())) == pytest.approx([expected], rel=1e-9)


def test_fid_sees_the_frames_of_its_policy():
    middle = [Means()(videos(key=key)[:, :, 1:2]) for key in ("real", "fake")]
    found = filled(FrechetImageDistance(Means(), "middle"))
    assert values(found) == pytest.approx([frechet_distance_of_features(*middle)], rel=1e-9)
    assert int(found.generated_moments[0]) == 10 and int(filled(METRICS["fid"]()).generated_moments[0]) == 30


def test_inception_score_of_one_split():
    found = filled(VideoInceptionScore(Means(), splits=1))
    assert values(found) == pytest.approx([score(Means()(videos())), 0.0])


def test_clipsim_averages_frames_then_videos_then_prompts():
    frames = videos().transpose(1, 2).flatten(0, 1).float() / 127.5 - 1
    images = Clip().encode_image(frames).view(10, 3, 6)
    expected = clip_similarity(frame_similarity(images, Clip().encode_text(PROMPTS).embedding), PROMPTS)
    assert values(filled(METRICS["clipsim"]())) == pytest.approx([expected], abs=1e-7)


def test_clip_frames_takes_the_central_square_of_one_frame():
    wide = torch.nn.functional.pad(videos()[:, :, :1], (3, 3), value=255)
    extract = ClipFrames(Clip(), "tiny")
    assert torch.allclose(extract(wide), extract(videos()[:, :, :1])) and extract.dim == 6
    with pytest.raises(DataError, match=r"tiny needs exactly 1 frame, but the videos have 3"):
        extract(videos())


@pytest.mark.parametrize("name", METRICS)
def test_order_does_not_matter(name):
    assert values(filled(METRICS[name](), reversed(range(10)))) == pytest.approx(values(filled(METRICS[name]())), 1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_merging_uneven_parts_is_exact(name):
    whole, part, rest = (
        filled(METRICS[name]()),
        filled(METRICS[name](), range(3)),
        filled(METRICS[name](), range(3, 10)),
    )
    part.merge_state(rest)
    assert values(part) == pytest.approx(values(whole), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_states_keep_their_type_and_enter_no_checkpoint(name):
    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.metric, self.layer = METRICS[name](), nn.Linear(2, 2)

    stage = Stage()
    filled(stage.metric, range(5))
    before = values(stage.metric)
    stage.to(torch.bfloat16)
    stage.metric._computed = None
    assert values(stage.metric) == before and stage.layer.weight.dtype == torch.bfloat16
    assert {key.split(".")[0] for key in stage.state_dict()} == {"layer"}
    assert len(list(stage.parameters())) == 2


@pytest.mark.parametrize("name", METRICS)
def test_nothing_in_gives_one_line_instead_of_a_number(name):
    with pytest.raises(DataError, match=r"no video was given|at least 2 samples"):
        METRICS[name]().compute()


def _process(rank, port, answers):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    shares = (range(3), range(3, 10))  # uneven on purpose
    found = {name: values(filled(make(), shares[rank])) for name, make in METRICS.items()}
    answers.put((rank, found))
    torch.distributed.destroy_process_group()


def test_two_processes_agree_with_one():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    answers = context.Queue()
    torch.multiprocessing.start_processes(_process, (port, answers), 2, start_method="fork")
    found = dict(answers.get() for _ in range(2))
    assert found[0] == found[1]
    for name, make in METRICS.items():
        assert found[0][name] == pytest.approx(values(filled(make())), rel=1e-9), name
