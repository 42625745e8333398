import torch

from eval.controls import control_videos
from eval.video_classifier import (
    DIM,
    HEADS,
    Training,
    VideoClassifier,
    as_extractor,
    class_logits,
    examples,
    trained_classifier,
)
from lightning_mav.data.scenes import TRAIN_LOOKS, draw_scene
from lightning_mav.data.transforms import to_uint8
from lightning_mav.metrics.inception_score import score


def test_examples_show_training_looks_and_answer_each_question():
    video, answers = examples(range(12), 0)
    assert video.shape == (12, 3, 16, 16, 16) and video.abs().max() <= 1
    assert set(answers) == set(HEADS)
    assert all(values.min() >= 0 and values.max() < HEADS[name] for name, values in answers.items())
    scene = draw_scene("video", "train", 0, 1)
    assert (scene.shape, scene.foreground, scene.background) in TRAIN_LOOKS
    assert answers["motion"][1] == answers["shape"][1]  # odd ones are real
    assert {int(m) for m in answers["motion"][::2]} & {4, 5}
    assert torch.equal(examples([7], 0)[0][0], examples(range(12), 0)[0][7])


def test_it_learns_stores_and_comes_back_the_same(tmp_path):
    video, answers = examples(range(1000, 1040), 0)

    def right(network):
        with torch.inference_mode():
            found = network.logits(network(video))
        return sum((found[name].argmax(1) == wanted).float().mean().item() for name, wanted in answers.items()) / 4

    path = tmp_path / "classifier.safetensors"
    trained = trained_classifier(path, training=Training(steps=40))
    assert right(trained) > right(VideoClassifier()) + 0.2
    assert right(trained_classifier(path, training=Training(steps=0))) == right(trained)


def test_as_an_extractor_and_for_the_inception_score(tmp_path):
    network = trained_classifier(tmp_path / "c.safetensors", training=Training(steps=1))
    real = control_videos("real", range(6), 16, 16, 32, 0)
    eight_bit = torch.stack([to_uint8(video).permute(3, 0, 1, 2) for video in real])
    features = as_extractor(network, 0)(eight_bit)
    assert features.shape == (6, DIM)
    logits = class_logits(network, features)
    assert logits.shape == (6, 24) and torch.allclose(logits.exp().sum(1), torch.ones(6), atol=1e-5)
    assert 1 <= score(logits) <= 24
    assert as_extractor(network, 0).fingerprint != as_extractor(network, 1).fingerprint
