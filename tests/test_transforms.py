import numpy as np
import pytest
import torch

from caloforge.detectors import DS2, ZP
from caloforge.events import Primaries, displaced
from caloforge.models.parts.particle_features import PromptRays
from caloforge.transforms import (
    Compose,
    GappedCounts,
    LayerEnergies,
    Log1p,
    Logit,
    Standardize,
    StandardizeAlong,
    Stretch,
    Transform,
)
from made_showers import made_showers


class Scale(Transform):
    """Brings [-1, 1] to [0, 1]."""

    def forward(self, x, conditions=None):
        return (x + 1) / 2

    def inverse(self, y, conditions=None):
        return 2 * y - 1


def stretched(values: torch.Tensor) -> Stretch:
    transform = Stretch().double()
    transform.refit(values)
    return transform


def transforms() -> dict[str, Transform]:
    values = torch.rand(200, 5, dtype=torch.float64) * 50
    return {
        "log1p": Log1p(),
        "standardize": Standardize.fit(values).double(),
        "gapped counts": GappedCounts(),
        "logit": Compose(Standardize.fit(torch.tensor([[-100.0] * 5, [100.0] * 5])), Scale(), Logit()),
        "standardize with an epsilon": Standardize.fit(values, 1e-6).double(),
        "stretch": stretched(torch.rand(20_000).square() * 6),
        "compose": Compose(Log1p(), Standardize.fit(torch.log1p(values))).double(),
    }


@pytest.mark.parametrize("name", transforms())
def test_a_transform_inverts_on_its_support(name):
    torch.manual_seed(0)
    transform = transforms()[name]
    x = torch.rand(64, 5, dtype=torch.float64) * 100
    before = x.clone()
    torch.testing.assert_close(transform.inverse(transform(x)), x, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(x, before, atol=0, rtol=0)


@pytest.mark.parametrize("name", transforms())
def test_a_transform_is_saved_with_its_fit(name):
    transform, fresh = transforms()[name], transforms()[name]
    for buffer in fresh.buffers():
        buffer.zero_()
    fresh.load_state_dict(transform.state_dict())
    x = torch.rand(3, 5, dtype=torch.float64)
    torch.testing.assert_close(fresh(x), transform(x), atol=0, rtol=0)


def test_counts_have_a_gap_above_the_dark_ones():
    transform = GappedCounts()
    x = torch.cat(
        [torch.linspace(0, 1 - 1e-7, 1001, dtype=torch.float64), torch.linspace(1, 900, 5000).double()]
    )
    y = transform(x)
    assert (y.diff() > 0).all()
    assert float(y[1000]) < transform.threshold - 0.3 < transform.threshold + 0.3 < float(y[1001]) == 0
    gap = torch.tensor([transform.threshold - 1e-3, transform.threshold], dtype=torch.float64)
    assert torch.floor(transform.inverse(gap)).tolist() == [0, 1]
    slopes = torch.autograd.functional.jacobian(transform, x[1:]).diagonal()
    torch.testing.assert_close(transform.log_slope(x[1:]), torch.log(slopes))


def test_standardize_by_hand():
    transform = Standardize.fit(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    # population variance 1; a constant feature is only shifted
    torch.testing.assert_close(transform(torch.tensor([[4.0, 8.0]])), torch.tensor([[2.0, 1.0]]))


def test_standardize_with_an_epsilon_keeps_constant_features_where_they_are():
    transform = Standardize.fit(torch.tensor([[1.0, 7.0], [3.0, 7.0]]), 0.5)
    torch.testing.assert_close(transform.scale, torch.tensor([1.5, 0.5]))
    tight = Standardize.fit(torch.full((4, 1), 7.0), 1e-6)
    torch.testing.assert_close(tight.inverse(torch.tensor([[3.0]])), torch.tensor([[7.0]]), atol=1e-5, rtol=0)


def test_standardize_of_slices_is_that_of_the_whole():
    values = torch.randn(101, 3, dtype=torch.float64) * torch.tensor([1.0, 1e-3, 1e3]) + 1e4
    whole, parts = Standardize.fit(values).double(), Standardize(3).double()
    whole.refit(values)
    parts.refit_slices(values.split([1, 40, 60]))
    torch.testing.assert_close(whole.scale, values.std(0, correction=0), rtol=1e-9, atol=0)
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(parts.get_buffer(name), buffer, rtol=1e-9, atol=0)


def test_spreads_along_a_condition_are_right_where_rows_are_few_too():
    """A fit of ln |off| took some hundreds for a spread near 1, since it was anything at one thin end."""
    rng = torch.Generator().manual_seed(0)
    c = 2 + torch.randn(20_000, 1, generator=rng).clamp(-4, 2)
    spread = torch.exp(-0.3 * c)
    x = c + spread * torch.randn(c.shape, generator=rng)
    transform = StandardizeAlong(1, 5)
    transform.refit(x, c)
    mean, scale = transform.at(c, x)
    middle = c > 0
    torch.testing.assert_close(mean[middle], c[middle], rtol=0.1, atol=0.1)
    torch.testing.assert_close(scale[middle], spread[middle], rtol=0.1, atol=0)
    y = transform(x, c)
    assert (float(y.std()), float(y[c < -1].std())) == pytest.approx((1, 1), abs=0.2)


def test_an_edge_of_a_spectrum_is_smooth_once_it_is_stretched():
    rng = torch.Generator().manual_seed(0)
    smooth = 5 * torch.rand(20_000, generator=rng, dtype=torch.float64)
    line = 2 - 0.2 * torch.log(torch.rand(20_000, generator=rng, dtype=torch.float64))  # nothing below 2
    values = torch.cat([smooth, line])
    transform = stretched(values)
    steps = []
    for x in (values, transform(values)):
        counts = torch.histc(x, 50, 0, 5)[1:-1]
        steps.append(float((counts[1:] / counts[:-1]).log().abs().max().exp()))
    assert steps[0] > 5
    assert steps[1] < 2
    far = torch.tensor([-3.0, 0.0, 6.0, 9.5], dtype=torch.float64)
    torch.testing.assert_close(transform(far), far)
    torch.testing.assert_close(transform.inverse(far), far)


def test_the_slope_of_a_stretch_is_that_of_its_inverse():
    transform = stretched(torch.rand(50_000, dtype=torch.float64).square() * 6)
    y = torch.linspace(0.5, 5.5, 400, dtype=torch.float64)
    differences = (transform.inverse(y + 0.05) - transform.inverse(y - 0.05)) / 0.1
    torch.testing.assert_close(transform.slope(y), differences, rtol=0.1, atol=0)
    assert differences.max() > 1.3 * differences.min()


def test_few_values_stretch_little():
    transform = stretched(torch.full((20,), 3.0, dtype=torch.float64))
    y = torch.linspace(0, 6, 200, dtype=torch.float64)
    torch.testing.assert_close(transform.inverse(y), y, atol=0.05, rtol=0)


def test_logit_by_hand_and_at_the_ends():
    transform = Logit(0.1)
    x = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)
    wanted = torch.log(torch.tensor([[1 / 9, 1.0, 9.0]], dtype=torch.float64))
    torch.testing.assert_close(transform(x), wanted)
    torch.testing.assert_close(transform.inverse(wanted), x)
    ends = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(Logit().inverse(Logit()(ends)), ends, atol=1e-6, rtol=0)


SHOWERS = made_showers(rows=16)
LAYERS = [layer.cells for layer in DS2.layers]


def showers(dtype):
    """Voxels (16, 6480) with an empty layer, an empty shower and a shower of one voxel, and their energies."""
    voxels = torch.from_numpy(SHOWERS.responses).reshape(16, -1).to(dtype).clone()
    voxels[0, 144:288] = 0
    voxels[1] = 0
    voxels[2, :6000] = 0
    voxels[2, 6001:] = 0
    return voxels, torch.from_numpy(SHOWERS.conditions).to(dtype)


def test_layer_energies_by_hand():
    transform = LayerEnergies([1, 2, 1], factor=0.5)
    voxels = torch.tensor([[2.0, 3.0, 1.0, 4.0]], dtype=torch.float64)
    energy = torch.tensor([[20.0]], dtype=torch.float64)
    # E = 2, 4, 4: u = 0.5 * 10 / 20, 2 / 10, 4 / 8; then the shapes
    wanted = torch.tensor([[0.25, 0.2, 0.5, 1.0, 0.75, 0.25, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(transform(voxels, energy), wanted)
    torch.testing.assert_close(transform.inverse(wanted, energy), voxels)


def test_layer_energies_invert_in_float64():
    transform = LayerEnergies(LAYERS)
    voxels, energy = showers(torch.float64)
    y = transform(voxels, energy)
    assert ((y >= 0) & (y <= 1)).all()
    layers = transform.energies(voxels)[:, transform.layer]
    assert ((transform.inverse(y, energy) - voxels).abs() <= 1e-6 * layers + 1e-9).all()


def test_layer_energies_invert_through_the_logit_in_float32():
    transform = Compose(LayerEnergies(LAYERS), Logit())
    voxels, energy = showers(torch.float32)
    back = transform.inverse(transform(voxels, energy), energy)
    assert back.dtype == torch.float32
    total = voxels.sum(1, keepdim=True)
    assert ((back - voxels).abs() <= 1e-4 * total).all()
    assert ((back.sum(1) - voxels.sum(1)).abs() <= 1e-4 * total[:, 0]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_hold_exactly_the_energy_they_are_given(dtype):
    torch.manual_seed(0)
    transform = LayerEnergies(LAYERS)
    u, shapes = torch.rand(8, 45, dtype=dtype) * 1.2 - 0.1, torch.randn(8, 6480, dtype=dtype)
    energy = torch.full((8, 1), 5e4, dtype=dtype)
    voxels = transform.inverse(torch.cat([u, shapes], 1), energy)
    assert (voxels >= 0).all()
    wanted = transform.energies_of(u, energy)
    rounding = 1e-6 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(transform.energies(voxels), wanted, rtol=rounding, atol=1e-6)
    total = 5e4 * u[:, 0].double().clamp(min=0) / 0.35
    torch.testing.assert_close(wanted.sum(1), total, rtol=1e-12, atol=1e-9)


def test_layer_energies_need_the_energy():
    with pytest.raises(ValueError, match="needs the incident energies"):
        LayerEnergies([1, 2])(torch.ones(1, 3))


def test_prompt_rays_do_not_hang_on_the_place_in_the_beam_spot():
    rng = np.random.default_rng(4)
    momentum = np.column_stack(
        [rng.normal(0, 0.5, (40, 2)), rng.choice([-1, 1], 40) * rng.uniform(200, 3000, 40)]
    )
    energy = np.linalg.norm(momentum, axis=1)
    origin = np.column_stack([energy, np.zeros((40, 3)), momentum, np.zeros((40, 2))])
    primaries = Primaries(ZP, origin, np.full(40, 22))
    rays = PromptRays(ZP)
    at_origin = torch.from_numpy(primaries.conditions)
    np.testing.assert_array_equal(rays(at_origin), at_origin)  # to the bit
    moved = displaced(primaries, rng.normal(size=(40, 3)) * [0.01, 0.01, 6])
    np.testing.assert_allclose(rays(torch.from_numpy(moved)), at_origin, rtol=2e-5, atol=2e-5)
    decay = displaced(primaries, np.tile([0.5, 0, 0], (40, 1)))
    np.testing.assert_array_equal(rays(torch.from_numpy(decay)), decay)
    energies = torch.ones(3, 1)
    assert PromptRays(DS2)(energies) is energies
