"""Sinkhorn's iteration against exact transports, by the assignment problem and by linear programming."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from caloforge.nn.sinkhorn import potentials, sinkhorn_divergence


def points(rows, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=generator, dtype=torch.float64) + shift


def cost_of(x, y):
    return 0.5 * torch.cdist(x, y).square()


def divergence(x, y, **options):
    of_x, of_y = sinkhorn_divergence(x, y, **{"blur": 0.05, "scaling": 0.98, **options})
    return of_x.mean() + of_y.mean()


def test_equal_numbers_of_points_come_to_the_best_assignment():
    x, y = points(20, 0), points(20, 1, shift=1.0)
    cost = cost_of(x, y).numpy()
    exact = cost[linear_sum_assignment(cost)].mean()
    assert float(divergence(x, y)) == pytest.approx(exact, rel=1e-3)
    # the settings of a training: less exact, and sooner
    assert float(divergence(x, y, scaling=0.9)) == pytest.approx(exact, rel=1e-2)


def test_other_numbers_of_points_come_to_the_linear_programme():
    x, y = points(6, 2), points(9, 3, shift=0.5)
    cost = cost_of(x, y).numpy()
    rows, columns = np.kron(np.eye(6), np.ones(9)), np.kron(np.ones(6), np.eye(9))
    masses = np.r_[np.full(6, 1 / 6), np.full(9, 1 / 9)]
    exact = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=masses).fun
    assert float(divergence(x, y)) == pytest.approx(exact, rel=2e-3)


def test_the_plan_of_the_potentials_carries_every_point_once():
    x, y, epsilon = points(5, 4), points(7, 5), 0.2
    cost = cost_of(x, y)
    f, g = potentials(cost, [epsilon] * 300)
    plan = torch.exp((f[:, None] + g - cost) / epsilon) / 35
    torch.testing.assert_close(plan.sum(1), torch.full((5,), 1 / 5, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(0), torch.full((7,), 1 / 7, dtype=torch.float64))


def test_zero_on_itself_symmetric_and_positive():
    x, y = points(12, 6), points(15, 7, shift=0.3)
    assert float(divergence(x, x)) == pytest.approx(0, abs=1e-12)
    assert float(divergence(x, y)) == pytest.approx(float(divergence(y, x)))
    assert float(divergence(x, y)) > 0


@pytest.mark.parametrize("blur", [0.05, 1.0])
def test_a_shift_costs_half_its_square_and_the_gradient_points_back(blur):
    x = points(10, 8)
    shift = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    y = (x + shift).requires_grad_(True)
    value = divergence(x, y, blur=blur)
    assert float(value.detach()) == pytest.approx(float(shift.square().sum() / 2), rel=1e-3)
    value.backward()
    torch.testing.assert_close(y.grad.sum(0), shift, rtol=1e-2, atol=1e-4)


def test_the_gradient_is_that_of_differences():
    x, y = points(5, 9), points(6, 10)
    y.requires_grad_(True)
    divergence(x, y, blur=1.0, scaling=0.99).backward()
    step = torch.zeros_like(y)
    step[2, 1] = 1e-4
    with torch.no_grad():
        high, low = (divergence(x, y + sign * step, blur=1.0, scaling=0.99) for sign in (1, -1))
    assert float((high - low) / 2e-4) == pytest.approx(float(y.grad[2, 1]), rel=2e-2)
