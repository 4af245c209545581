"""The posterior against sums over a fine grid of the clean voxel."""

import pytest
import torch

from caloforge.nn.voxel_posterior import Posterior, start

ODDS, MEANS, SPREADS = (-0.5, 0.3), (0.7, 2.5), (0.1, 0.8)


def numbers(rows):
    logs = [torch.tensor(s).log().item() for s in SPREADS]
    return torch.tensor([*ODDS, *MEANS, *logs], dtype=torch.float64).expand(rows, 6)


def by_grid(x, t):
    """Posterior probability of empty, and density of the others on a grid, (rows, grid)."""
    y = torch.linspace(-4, 10, 28_001, dtype=torch.float64)
    noise = 1 - t
    density = sum(
        torch.exp(torch.tensor(o)) * torch.exp(-0.5 * ((y - m) / s) ** 2) / (s * (2 * torch.pi) ** 0.5)
        for o, m, s in zip(ODDS, MEANS, SPREADS, strict=True)
    )
    likelihood = torch.exp(-0.5 * ((x[:, None] - t * y) / noise) ** 2)
    empty = torch.exp(-0.5 * (x / noise) ** 2)
    joint = density * likelihood
    step = y[1] - y[0]
    norm = empty + joint.sum(1) * step
    return y, empty / norm, joint / norm[:, None], step


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 0.95])
def test_mean_and_density_follow_from_bayes_theorem(t):
    x = torch.linspace(-1, 3, 9, dtype=torch.float64)
    y, empty, density, step = by_grid(x, t)
    posterior = Posterior(numbers(9), x, torch.full((9,), t, dtype=torch.float64))
    torch.testing.assert_close(posterior.mean(), (density * y).sum(1) * step, atol=1e-6, rtol=1e-5)
    seen = empty > 1e-250  # the sum over the grid knows no smaller numbers
    found = posterior.surprise(torch.zeros(9).double())
    torch.testing.assert_close(found[seen], -empty.log()[seen], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(posterior.lit(), 1 - empty)
    near = int((y - 1.7).abs().argmin())
    found = posterior.surprise(torch.full((9,), 1.7).double())
    seen = density[:, near] > 1e-250
    torch.testing.assert_close(found[seen], -density[:, near].log()[seen], atol=1e-5, rtol=1e-5)


def test_at_the_end_an_empty_voxel_is_empty_and_a_lit_one_is_itself():
    x = torch.tensor([0.001, -0.02, 0.69, 3.1], dtype=torch.float64)
    posterior = Posterior(numbers(4), x, torch.full((4,), 0.99, dtype=torch.float64))
    for found in (posterior.mean(), posterior.likely()):
        torch.testing.assert_close(found, torch.tensor([0.0, 0, 0.69, 3.1]).double(), atol=0.04, rtol=0)
    assert posterior.likely()[:2].tolist() == [0, 0]


def test_far_away_nothing_overflows():
    x = torch.tensor([-50.0, 80.0])
    values = start(-3.0, [0.7, 2.4], [0.05, 0.8])[None].expand(2, 6).clone().requires_grad_()
    posterior = Posterior(values, x, torch.full((2,), 0.97))
    loss = posterior.mean().sum() + posterior.surprise(torch.tensor([0.0, 2.0])).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("t", [0.0, 0.5, 0.8])
def test_draws_have_the_moments_of_the_posterior(t):
    draws = 20_000
    x = torch.linspace(-1, 2, 4, dtype=torch.float64).repeat_interleave(draws)
    rng = torch.Generator().manual_seed(0)
    choice, within = torch.randn(2, len(x), generator=rng, dtype=torch.float64)
    posterior = Posterior(numbers(len(x)), x, torch.full((len(x),), t, dtype=torch.float64))
    y = posterior.draw(choice, within).view(4, draws)
    lit = posterior.lit().view(4, draws)[:, 0]
    torch.testing.assert_close((y != 0).double().mean(1), lit, atol=0.015, rtol=0)
    torch.testing.assert_close(y.mean(1), posterior.mean().view(4, draws)[:, 0], atol=0.03, rtol=0)
    grid, _, density, step = by_grid(x[::draws], t)
    torch.testing.assert_close(
        y.square().mean(1), (density * grid.square()).sum(1) * step, atol=0.15, rtol=0.02
    )
