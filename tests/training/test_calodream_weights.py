"""The authors' weights as a run: their forward passes are written down here once more, from the paper."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from caloforge import recipe
from caloforge.detectors import DS2
from caloforge.io import create, open_events
from caloforge.io.run import Run
from caloforge.metrics.showers import Sizes, scores
from caloforge.models import build
from caloforge.training.calodream_weights import (
    ENERGY,
    SHAPE,
    energy_entries,
    import_calodream,
    shape_entries,
    theirs_of,
)
from caloforge.training.checkpoint import load_model
from made_showers import made_showers

SIZES = [
    "model.energy.transformer.width=48", "model.energy.transformer.heads=2", "model.energy.transformer.layers=1",
    "model.energy.transformer.inner=8", "model.energy.width=8", "model.energy.blocks=2", "model.energy.solver.steps=1",
    "model.shape.network.width=12", "model.shape.network.heads=2", "model.shape.network.blocks=2",
    "model.shape.network.inner=8", "model.shape.solver.steps=1",
]  # fmt: skip
LATENT = [
    "model.shape.network.patch=[3,3,3]",
    "model.latent.network.channels=[4,6]",
    "model.latent.network.condition=5",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.hdf5"
    with create(path, DS2) as writer:
        writer.append(made_showers(rows=12))
    return path


def energy_state(numbers=45, width=48, inner=8, hidden=8, blocks=2, layers=1, heads=2):
    """A dictionary with PyTorch's own names of a transformer, and the head by number."""
    torch.manual_seed(1)
    transformer = nn.Transformer(width, heads, layers, layers, inner, 0.0, batch_first=True)
    head = [nn.Linear(1 + 64 + width, hidden), nn.SiLU()]
    for _ in range(blocks):
        head += [nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.Dropout(0.0), nn.SiLU()]
    subnet = nn.Sequential(*head, nn.Linear(hidden, 1))
    time = nn.Linear(64, 64)
    state = {f"transformer.{name}": tensor for name, tensor in transformer.state_dict().items()}
    state |= {f"subnet.{name}": tensor for name, tensor in subnet.state_dict().items()}
    state |= {f"t_embed.1.{name}": tensor for name, tensor in time.state_dict().items()}
    # every norm and bias is distinct
    state = {name: tensor + 0.1 * torch.randn(tensor.shape) for name, tensor in state.items()}
    state["t_embed.0.W"] = 30 * torch.randn(32)
    transformer.load_state_dict(part(state, "transformer."))
    subnet.load_state_dict(part(state, "subnet."))
    time.load_state_dict(part(state, "t_embed.1."))

    def velocity(energy, u, x, t):
        """The velocity of every number, (B, L)."""
        before = F.pad(u[:, :-1], (1, 0))[..., None]
        places = torch.eye(numbers + 1)[:numbers].expand(len(u), -1, -1)
        token = F.pad(torch.cat([before, places], 2), (0, width - numbers - 2))
        condition = F.pad(torch.cat([energy, torch.ones_like(energy)], 1)[:, None], (0, width - 2))
        mask = torch.ones(numbers, numbers, dtype=torch.bool).triu(1)
        known = transformer(condition, token, tgt_mask=mask)
        phase = 2 * math.pi * t[..., None] * state["t_embed.0.W"]
        return subnet(torch.cat([x[..., None], time(torch.cat([phase.sin(), phase.cos()], -1)), known], -1))[
            ..., 0
        ]

    return state, velocity


def part(state, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def shape_state(shape, patch, width=12, inner=8, blocks=2, heads=2, conditions=46):
    """A dictionary of a vision transformer, and its velocity."""
    torch.manual_seed(2)
    channels, *axes = shape
    voxels = math.prod(patch)
    sizes = {
        "x_embedder": (width, channels * voxels), "t_embedder.mlp.0": (width, 256), "t_embedder.mlp.2": (width, width),
        "c_embedder.0": (width, conditions), "c_embedder.2": (width, width),
        "final_layer.adaLN_modulation.1": (2 * width, width), "final_layer.linear": (channels * voxels, width),
    }  # fmt: skip
    for number in range(blocks):
        sizes |= {
            f"blocks.{number}.{name}": size
            for name, size in {
                "adaLN_modulation.1": (6 * width, width), "attn.qkv": (3 * width, width), "attn.proj": (width, width),
                "mlp.fc1": (inner, width), "mlp.fc2": (width, inner),
            }.items()
        }  # fmt: skip
    state = {f"{name}.weight": 0.5 * torch.randn(size) for name, size in sizes.items()}
    state |= {f"{name}.bias": 0.5 * torch.randn(size[0]) for name, size in sizes.items()}
    state["pos_embed_freqs"] = torch.randn(width // 2)
    grid = [size // edge for size, edge in zip(axes, patch, strict=True)]
    state |= {f"{name}grid": torch.arange(n) / n for name, n in zip("lar", grid, strict=True)}

    def layer(name, x):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, shift, scale):
        return F.layer_norm(x, (width,), eps=1e-6) * (1 + scale) + shift

    def velocity(x, t, conditions):
        (a, b, c), (i, j, k) = grid, patch
        tokens = (
            x.view(-1, channels, a, i, b, j, c, k).permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).flatten(1, 3)
        )
        wz, wy, wx = (2 * math.pi * state["pos_embed_freqs"]).chunk(3)
        z, y, xs = torch.meshgrid(*(torch.arange(n) / n for n in grid), indexing="ij")
        phases = [place.flatten()[:, None] * w for place, w in ((xs, wx), (y, wy), (z, wz))]
        tokens = layer("x_embedder", tokens) + torch.cat(
            [f(one) for one in phases for f in (torch.sin, torch.cos)], 1
        )
        w = torch.exp(-math.log(1e4) * torch.arange(128) / 128)
        time = torch.cat([(t[:, None] * w).cos(), (t[:, None] * w).sin()], 1)
        given = layer("t_embedder.mlp.2", F.silu(layer("t_embedder.mlp.0", time)))
        given = F.silu(given + layer("c_embedder.2", F.silu(layer("c_embedder.0", conditions))))[:, None]
        for number in range(blocks):
            name = f"blocks.{number}"
            shift, scale, gate, shift2, scale2, gate2 = layer(f"{name}.adaLN_modulation.1", given).chunk(
                6, -1
            )
            qkv = layer(f"{name}.attn.qkv", norm(tokens, shift, scale))
            heads_of = qkv.view(len(x), -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(*heads_of).transpose(1, 2).flatten(2)
            tokens = tokens + gate * layer(f"{name}.attn.proj", seen)
            hidden = F.gelu(layer(f"{name}.mlp.fc1", norm(tokens, shift2, scale2)), approximate="tanh")
            tokens = tokens + gate2 * layer(f"{name}.mlp.fc2", hidden)
        shift, scale = layer("final_layer.adaLN_modulation.1", given).chunk(2, -1)
        out = layer("final_layer.linear", norm(tokens, shift, scale)).view(-1, a, b, c, i, j, k, channels)
        return out.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(x.shape)

    return state, velocity


def autoencoder_state(channels=(4, 6), latent=2, condition=5):
    """A dictionary of the autoencoder, and what it decodes and encodes."""
    torch.manual_seed(3)
    scales = [((3, 2, 1), (3, 2, 1), (0, 1, 0)), ((1, 1, 1), (1, 1, 1), (0, 0, 0))]
    modules = {"c_encoding.0": nn.Linear(46, condition), "c_encoding.2": nn.Linear(condition, condition)}
    before = 1
    for number, (after, scale) in enumerate(zip(channels, scales, strict=True)):
        name = f"down_blocks.{number}"
        modules[f"{name}.pooling"] = nn.Conv3d(after + 3, after, *scale)
        modules[f"{name}.conv1"], before = nn.Conv3d(before + 3, after, 3, padding=1), after
    modules["bottleneck.0"] = nn.Conv3d(before + 3, latent, 1)
    modules |= {name: nn.Conv3d(latent, latent, 1) for name in ("conv_mu", "conv_logvar")}
    before = latent
    for number, (after, scale) in enumerate(zip(channels[::-1], scales[::-1], strict=True)):
        name = f"up_blocks.{number}"
        modules[f"{name}.upconv1"] = nn.ConvTranspose3d(before + 3, after, *scale)
        modules[f"{name}.conv1"], before = nn.Conv3d(after + 3, after, 3, padding=1), after
    modules["output_layer"] = nn.Conv3d(before + 3, 1, 1)
    for way, widths in (("down", channels), ("up", channels[::-1])):
        for number, after in enumerate(widths):
            name = f"{way}_blocks.{number}"
            modules[f"{name}.cond_layer"] = nn.Linear(condition, after)
            modules[f"{name}.conv2"] = nn.Conv3d(after + 3, after, 3, padding=1)
            for norm in (1, 2):
                modules[f"{name}.bn{norm}"] = bn = nn.BatchNorm3d(after).eval()
                bn.running_mean += torch.randn(after)
                bn.running_var += torch.rand(after)
                nn.init.normal_(bn.weight)
                nn.init.normal_(bn.bias)
    state = {
        f"{name}.{key}": value for name, one in modules.items() for key, value in one.state_dict().items()
    }

    def placed(x):
        axes = [torch.linspace(0, 1, n) for n in x.shape[2:]]
        grids = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, -1, -1, -1)
        return torch.cat([x, grids], 1)

    def block(name, x, c):
        x = modules[f"{name}.conv1"](placed(x)) + modules[f"{name}.cond_layer"](c)[:, :, None, None, None]
        x = F.silu(modules[f"{name}.bn1"](x))
        return F.silu(modules[f"{name}.bn2"](modules[f"{name}.conv2"](placed(x))))

    def condition_of(features):
        return modules["c_encoding.2"](F.relu(modules["c_encoding.0"](features)))

    def encode(x, features):
        c, h = condition_of(features), x[:, None]
        for number in range(len(channels)):
            h = modules[f"down_blocks.{number}.pooling"](placed(block(f"down_blocks.{number}", h, c)))
        h = modules["bottleneck.0"](placed(h))
        return modules["conv_mu"](h), modules["conv_logvar"](h)

    def decode(z, features):
        c = condition_of(features)
        for number in range(len(channels)):
            z = block(f"up_blocks.{number}", modules[f"up_blocks.{number}.upconv1"](placed(z)), c)
        return modules["output_layer"](placed(z))[:, 0]

    return state, encode, decode


@pytest.fixture(scope="module")
def dictionaries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    energy, shape = energy_state(), shape_state((1, 45, 16, 9), (3, 16, 1))
    torch.save({"net": energy[0], "epoch": 3}, folder / "energy.pt")
    torch.save(shape[0], folder / "shape.pt")
    return folder, energy, shape


@pytest.fixture(scope="module")
def run(dictionaries, data, tmp_path_factory):
    folder = dictionaries[0]
    out = tmp_path_factory.mktemp("run") / "run"
    counts = import_calodream(
        [folder / "shape.pt", folder / "energy.pt"], out, [data], recipe="ds2-calodream-paper", settings=SIZES
    )
    return out, counts


def test_both_networks_give_the_same_velocities(run, dictionaries):
    _, model = load_model(run[0])
    torch.manual_seed(0)
    energy, u, x, t = torch.rand(3, 1), torch.randn(3, 45), torch.randn(3, 45), torch.rand(3, 45)
    network = model.energy.network
    with torch.no_grad():
        known = network.known(energy, u)
        ours = network.head(x.view(-1, 1), t.flatten(), known.flatten(0, 1)).view(3, 45)
        torch.testing.assert_close(ours, dictionaries[1][1](energy, u, x, t), rtol=1e-4, atol=1e-5)
        x, t, conditions = torch.randn(3, 1, 45, 16, 9), torch.rand(3), torch.randn(3, 46)
        ours = model.shape.network(x, t, conditions)
        torch.testing.assert_close(ours, dictionaries[2][1](x, t, conditions), rtol=1e-3, atol=1e-3)


def test_the_card_says_where_the_weights_come_from(run):
    out, counts = run
    card = Run(out).card()
    assert (card.split, card.data[0].rows) == ("files", {"train": 12, "validation": 0, "test": 0})
    assert [entry["name"] for entry in card.made_with["imported"]] == ["shape.pt", "energy.pt"]
    assert set(counts) == {ENERGY, SHAPE}


@pytest.mark.slow
def test_the_run_samples_and_is_judged_by_another_file_only(run, data, caloforge, tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "Sizes", lambda: Sizes(fpd_draws=1, kpd_batches=1, splits=2, slow_splits=1))
    out = run[0]
    assert caloforge("sample", out, data, tmp_path / "showers.hdf5")[0] == 0
    showers = open_events(tmp_path / "showers.hdf5").slices(slice(None)).responses
    assert np.isfinite(showers).all()
    assert showers.sum() > 0
    assert "has the content of the training file" in caloforge("evaluate", out, "--reference", data)[2]
    with create(tmp_path / "test.hdf5", DS2) as writer:
        writer.append(made_showers(rows=16, seed=1))
    code, text, _ = caloforge("evaluate", out, "--reference", tmp_path / "test.hdf5", "--repeats", 1)
    assert code == 0
    assert "files split, test rows" in text


def test_the_latent_version(dictionaries, data, tmp_path, caloforge):
    folder = dictionaries[0]
    shape, velocity = shape_state((2, 15, 9, 9), (3, 3, 3))
    autoencoder, encode, decode = autoencoder_state()
    torch.save({"net": shape}, tmp_path / "latent.pt")
    torch.save({"net": autoencoder}, tmp_path / "autoencoder.pt")
    files = [folder / "energy.pt", tmp_path / "latent.pt", tmp_path / "autoencoder.pt"]
    sizes = [word for one in (*SIZES, *LATENT) for word in ("--set", one)]
    code, text, _ = caloforge(
        "import", "calodream", *files, "--out", tmp_path / "run", "--data", data,
        "--recipe", "ds2-calodream-latent", *sizes,
    )  # fmt: skip
    assert code == 0
    assert "autoencoder: " in text
    _, model = load_model(tmp_path / "run")
    torch.manual_seed(0)
    z, t, conditions = torch.randn(2, 2, 15, 9, 9), torch.rand(2), torch.randn(2, 46)
    with torch.no_grad():
        torch.testing.assert_close(
            model.shape.network(z, t, conditions), velocity(z, t, conditions), rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(
            model.shape.vae.decode(z, conditions), decode(z, conditions), rtol=1e-4, atol=1e-4
        )
        voxels = torch.rand(2, 45, 16, 9)
        for ours, theirs in zip(
            model.shape.vae.encode(voxels, conditions), encode(voxels, conditions), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_is_missing_or_unknown_is_named_in_one_line(dictionaries, data, tmp_path):
    folder, (energy, _), _ = dictionaries
    paths = [tmp_path / "energy.pt", folder / "shape.pt"]

    def fails(state, message, files=paths):
        torch.save(state, paths[0])
        with pytest.raises(ValueError, match=message) as error:
            import_calodream(files, tmp_path / "run", [data], recipe="ds2-calodream-paper", settings=SIZES)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()

    fails(
        {name: one for name, one in energy.items() if "norm3" not in name},
        r"energy network: missing transformer",
    )
    fails(energy | {"subnet.1.scale": torch.ones(1)}, r"energy network: unknown subnet.1.scale$")
    fails(energy | {"t_embed.0.W": torch.ones(16)}, r"t_embed.0.W must have shape \(32,\)")
    fails({"weight": torch.ones(1)}, "wanted tensors of one network, subnet")
    fails({"net": {"subnet.0.weight": 3}}, "must hold a dictionary of tensors")
    fails(energy, "got none of the shape network", [paths[0]])
    fails(energy, "both hold the energy network", [paths[0], folder / "energy.pt"])
    torch.save(nn.Linear(2, 2), paths[0])  # a pickled module is no dictionary of tensors
    with pytest.raises(ValueError, match="is not a dictionary of tensors"):
        import_calodream(paths, tmp_path / "run", [data], recipe="ds2-calodream-paper", settings=SIZES)


def test_means_and_spreads_of_the_authors(dictionaries, data, tmp_path):
    folder = dictionaries[0]
    files = [folder / "energy.pt", folder / "shape.pt"]
    means = np.linspace(-1, 1, 6525)
    np.save(tmp_path / "means.npy", means)
    np.save(tmp_path / "stds.npy", 1 + means**2)
    given = {"recipe": "ds2-calodream-paper", "settings": SIZES}
    both = (tmp_path / "means.npy", tmp_path / "stds.npy")
    import_calodream(files, tmp_path / "run", [data], **given, normalization=both)
    _, model = load_model(tmp_path / "run")
    np.testing.assert_allclose(model.shape.standardize.mean, means[:6480], rtol=1e-5)
    np.testing.assert_allclose(model.standardize.scale, (1 + means**2)[6480:], rtol=1e-5)
    np.testing.assert_allclose(model.energy.standardize.mean, means[6480:], rtol=1e-5)
    np.save(tmp_path / "stds.npy", means[:7])
    with pytest.raises(ValueError, match="must hold 6525 numbers, of voxels and u, or 45"):
        import_calodream(files, tmp_path / "again", [data], **given, normalization=both)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"), [("ds2-calodream-paper", 26_042_688), ("ds3-calodream-paper", 5_868_870)]
)
def test_full_sizes_are_recognised_and_come_back(name, parameters, tmp_path, monkeypatch):
    parsed = recipe.parse(recipe.read(name))
    model = build(parsed)
    with torch.no_grad():
        for one in model.parameters():
            one.normal_()
    network = parsed.model["shape"].get("network", {})
    width = network.get("width", 480)
    entries = shape_entries(width, 6, 1, math.prod(network.get("patch", [3, 16, 1])))
    shape = theirs_of(model.shape.state_dict(), entries)
    shape["pos_embed_freqs"] = shape["pos_embed_freqs"].flatten()
    energy = theirs_of(model.energy.state_dict(), energy_entries(45, 64, 4, 6, dropout=True))
    torch.save({"net": shape}, tmp_path / "shape.pt")
    torch.save({"net": energy}, tmp_path / "energy.pt")
    detector = model.detector
    with create(tmp_path / "train.hdf5", detector) as writer:
        writer.append(made_showers(detector, rows=4))
    counts = import_calodream(
        [tmp_path / "energy.pt", tmp_path / "shape.pt"], tmp_path / "run", [tmp_path / "train.hdf5"]
    )
    assert counts == {ENERGY: 2_384_705, SHAPE: parameters}
    imported, again = load_model(tmp_path / "run")
    assert imported.name == name
    for (key, ours), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs), key
