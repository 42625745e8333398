from dataclasses import replace

import pytest

from eval.protocols import FOLDER, MetricSpec, changes, make_protocol, preset
from eval.published import published
from lightning_mav.errors import ConfigError

PRESETS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "none")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_complete_and_says_what_its_paper_leaves_open(name):
    protocol = preset(name)
    assert protocol.name == name and protocol.source and protocol.unstated
    assert protocol.needed <= (protocol.num_videos or 59_794)
    assert changes(protocol) == []


def test_every_protocol_of_a_published_number_is_a_preset_that_measures_it():
    for row in [*published("msrvtt"), *published("ucf101")]:
        if row.protocol is not None:
            assert row.protocol in PRESETS, row
    rows = {(row.protocol, row.metric) for row in published("ucf101") if row.protocol == "ucf_mav"}
    assert rows == {("ucf_mav", spec.column) for spec in preset("ucf_mav").metrics.values()}


def test_counts_of_published_numbers_are_those_of_their_preset():
    for name, num in {"ucf_mav": 10_000, "ucf_lumiere": 10_235, "ucf_svd": 13_320, "ucf_videoldm": 10_100}.items():
        assert preset(name).num_videos == num
    assert preset("msrvtt_videopoet").needed == 40_960
    assert preset("tgan2_is").needed == 20_480


def test_a_change_is_named_and_fewer_metrics_or_videos_are_none():
    protocol = preset("ucf_mav")
    only = replace(protocol, metrics={"fvd": replace(protocol.metrics["fvd"], num=64)}, num_videos=64)
    assert changes(only) == []
    assert changes(replace(protocol, fps=8, size=(64, 64))) == ["fps", "size"]
    other = {"fvd": replace(protocol.metrics["fvd"], extractor="i3d_torchscript")}
    assert changes(replace(protocol, metrics=other)) == ["fvd"]


def test_what_no_protocol_has_is_refused():
    metrics = {"fvd": {"kind": "frechet", "extractor": "i3d", "column": "fvd"}}
    base = {"name": "mine", "benchmark": "ucf101", "source": "me", "frames": 16}
    with pytest.raises(ConfigError, match=r"protocol mine has no 'is', only fvd"):
        make_protocol(metrics, ["is"], **base)
    with pytest.raises(ConfigError, match=r"'ascci' is none of all, ascii, one_per_video"):
        make_protocol(metrics, **base, captions="ascci")
    with pytest.raises(ConfigError, match=r"names no metric"):
        make_protocol(metrics, [], **base)
    with pytest.raises(ConfigError, match=r"'kid' is none of frechet"):
        MetricSpec("kid", "i3d", "kid")
    with pytest.raises(ConfigError, match=r"'last' is none of all, first, middle"):
        MetricSpec("frechet", "inception", "fid", frames="last")
    with pytest.raises(ConfigError, match=r"'nuwa' is none of cogvideo_ucf"):
        preset("nuwa")
