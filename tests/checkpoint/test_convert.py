import gzip
import json
from dataclasses import replace

import pytest
import torch

from lightning_mav.checkpoint.convert import convert_sources, convert_states, empty_model, filled_model
from lightning_mav.checkpoint.diffusers_names import interleaved
from lightning_mav.checkpoint.families import FAMILIES, KARLO
from lightning_mav.checkpoint.models import load_model
from lightning_mav.commands.convert import convert
from lightning_mav.errors import CheckpointError

STATISTICS = {"0": torch.zeros(768, device="meta"), "1": torch.ones(768, device="meta")}
REAL = {
    "karlo_decoder.ckpt": ("decoder", 893.3),
    "karlo_prior.ckpt": ("prior", 1022.0),
    "karlo_sr.ckpt(first)": ("sr_spacetime", 691.6),
    "diffusers_karlo/prior": ("prior", 1022.0),
    "diffusers_karlo/super_res_first": ("sr_spacetime", 691.6),
    "glide_base.pt": ("decoder", 385.0),
    "glide_upsample.pt": ("sr_spacetime", 398.4),
    "adm_64x64_diffusion.pt": ("decoder", 295.9),
    "adm_256x256_diffusion_uncond.pt": ("decoder", 552.8),
    "adm_64_256_upsampler.pt": ("sr_spacetime", 311.8),
    "adm_128_512_upsampler.pt": ("sr_spatial", 308.8),
}


@pytest.fixture(scope="module")
def published(shared_data):
    """The published files' names and shapes, without memory for weights."""
    with gzip.open(shared_data / "checkpoint_shapes.json.gz") as file:
        lists = json.load(file)

    def state(name):
        return {key: torch.empty(shape, device="meta") for key, shape in lists[name].items()}

    return state


@pytest.mark.parametrize("name", REAL)
def test_published_layouts_convert_strictly_at_real_size(published, name):
    model, millions = REAL[name]
    extra = [("stats", STATISTICS)] if name == "karlo_prior.ckpt" else []
    (found,) = convert_states([(name, published(name)), *extra])
    assert found.family.model == model
    num = sum(value.numel() for key, value in found.state.items() if key.startswith("network."))
    assert num / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(("name", "millions"), {"128": 421.5, "256": 553.8, "512": 559.0}.items())
def test_networks_without_a_list_have_the_published_number_of_parameters(name, millions):
    (family,) = (one for one in FAMILIES if one.name == f"ADM {name}")
    num = sum(weight.numel() for weight in empty_model(family).network.parameters())
    assert num / 1e6 == pytest.approx(millions, abs=0.06)


def test_the_diffusers_decoder_takes_its_text_projection(published):
    parts = [(name, published(f"diffusers_karlo/{name}")) for name in ("decoder", "text_proj")]
    (found,) = convert_states(parts)
    assert found.family.name == "Karlo decoder" and len(found.state) == 595
    with pytest.raises(CheckpointError, match="a text projection belongs to a decoder"):
        convert_states(parts[1:])
    with pytest.raises(CheckpointError, match=r"decoder: is no Karlo decoder: 11 weights are missing: cf_param"):
        convert_states(parts[:1])


def tiny(families=KARLO):
    """The families at a size that can be filled."""
    small = {"channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "head_channels": 16, "norm_groups": 8}
    made = []
    for family in families:
        network = family.config.network
        if family.model == "prior":
            network = replace(network, embedding_dim=12, states_dim=12, width=32, num_layers=2, num_heads=2)
        elif family.model == "decoder":
            network = replace(
                network, **small, attention_downsamples=(2,), image_embedding_dim=12, text_dim=12, context_dim=24
            )
        else:
            network = replace(network, **small)
        made.append(replace(family, config=replace(family.config, network=network)))
    return made


def filled(family):
    """A table as its file would hold it, with random weights."""
    draw = torch.Generator().manual_seed(0)
    wanted = empty_model(family).state_dict()
    names = [key for key in wanted if key.startswith("network.")]
    return {
        family.prefix + key.removeprefix("network."): torch.randn(wanted[key].shape, generator=draw) for key in names
    }


def test_weights_arrive_where_they_belong_and_the_model_loads(tmp_path, monkeypatch, capsys):
    families = tiny()
    monkeypatch.setattr("lightning_mav.checkpoint.convert.convert_sources", lambda s: convert_sources(s, families))
    sources = []
    for family in families:
        sources.append(str(tmp_path / f"{family.folder}.ckpt"))
        torch.save({"state_dict": {k: v.half() for k, v in filled(family).items()}}, sources[-1])
    torch.save((torch.full((12,), 0.5), torch.full((12,), 2.0)), tmp_path / "ViT-L-14_stats.th")
    convert([*sources, str(tmp_path / "ViT-L-14_stats.th")], str(tmp_path / "models"))
    assert capsys.readouterr().out.count("licence CreativeML Open RAIL-M") == len(families)
    for family in families:
        model = load_model(tmp_path / "models" / family.folder, family.model)
        for key, value in filled(family).items():
            assert torch.equal(model.state_dict()[f"network.{key.removeprefix(family.prefix)}"], value.half().float())
    prior = load_model(tmp_path / "models" / "prior", "prior")
    assert prior.embedding_mean.tolist() == [0.5] * 12 and prior.embedding_std.tolist() == [2.0] * 12


def test_what_is_too_much_or_too_little_is_named():
    families = tiny()
    decoder = families[0]
    state = filled(decoder)
    assert filled_model(convert_states([("x.ckpt", state)], families)[0])
    with pytest.raises(CheckpointError, match=r"x.ckpt: is no Karlo decoder: 1 weights are unknown: spare"):
        convert_states([("x.ckpt", state | {"model.spare": torch.zeros(1)})], families)
    less = {key: value for key, value in state.items() if key != "model.out.2.bias"}
    with pytest.raises(CheckpointError, match=r"1 weights are missing: out\.2\.bias"):
        convert_states([("x.ckpt", less)], families)
    with pytest.raises(CheckpointError, match=r"of another size: cf_param"):
        convert_states([("x.ckpt", state | {"model.cf_param": torch.zeros(3)})], families)
    with pytest.raises(CheckpointError, match=r"x.ckpt: 1 weights of no known family \(unet.weight\)"):
        convert_states([("x.ckpt", {"unet.weight": torch.zeros(1)})], families)
    with pytest.raises(CheckpointError, match="the prior's statistics are missing"):
        convert_states([("x.ckpt", filled(families[1]))], families)
    with pytest.raises(CheckpointError, match="belong to a prior"):
        convert_states([("x.ckpt", state), ("s", {"0": torch.zeros(1), "1": torch.zeros(1)})], families)


def test_two_models_of_one_folder_are_refused_and_so_are_two_statistics():
    families = tiny()
    state = filled(families[0])
    with pytest.raises(CheckpointError, match=r"2 models would be 'decoder' .* into its own --out"):
        convert_states([("a.ckpt", state), ("b.ckpt", dict(state))], families)
    with pytest.raises(CheckpointError, match="2 sources are embeddings' statistics"):
        convert_states([(name, dict(STATISTICS)) for name in ("a.th", "b.th")], families)


def test_interleaving_orders_rows_by_head_then_q_k_v():
    q, k, v = (torch.arange(6.0)[:, None] + 10 * i for i in range(3))
    rows = interleaved([q, k, v], 2)[:, 0].tolist()
    assert rows == [0, 1, 2, 10, 11, 12, 20, 21, 22, 3, 4, 5, 13, 14, 15, 23, 24, 25]
