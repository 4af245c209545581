import math

import numpy as np
import pytest
import torch

from caloforge.ode.path import cfm_loss, on_path
from caloforge.ode.solvers import STEPS, SolverConfig, integrate

ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4, "rk4_classic": 4}


def velocity(x, t):
    return -1.5 * x + torch.cos(3 * t)[:, None]


def exact(x0):
    # x' = -a x + cos(b t)
    a, b = 1.5, 3.0
    particular = (a * math.cos(b) + b * math.sin(b) - a * math.exp(-a)) / (a * a + b * b)
    return x0 * math.exp(-a) + particular


def test_every_solver_has_a_known_order():
    assert set(ORDERS) == set(STEPS)


@pytest.mark.parametrize("method", STEPS)
def test_the_error_falls_with_the_order(method):
    x0 = torch.tensor([[0.7], [-2.0]], dtype=torch.float64)
    steps = np.array([8, 16, 32, 64])
    errors = [
        (integrate(velocity, x0, SolverConfig(method=method, steps=int(n))) - exact(x0)).abs().max().item()
        for n in steps
    ]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(ORDERS[method], abs=0.15)


@pytest.mark.parametrize("method", STEPS)
def test_a_straight_path_is_exact_in_one_step(method):
    x0, x1 = torch.randn(2, 3).double(), torch.randn(2, 3).double()
    torch.testing.assert_close(integrate(lambda x, t: x1 - x0, x0, SolverConfig(method=method, steps=1)), x1)


def test_euler_evaluates_at_the_papers_times():
    times = []
    integrate(lambda x, t: times.append(t[0].item()) or x, torch.ones(1, 1).double(), SolverConfig())
    np.testing.assert_allclose(times, np.arange(11) / 11)


def test_steps_of_equal_shares_and_an_earlier_end():
    times = []
    end = integrate(
        lambda x, t: times.append(t[0].item()) or (3 - x) / (1 - t)[:, None],
        torch.ones(1, 1).double(),
        SolverConfig(steps=3),
        0.875,
        shares=True,
    )
    np.testing.assert_allclose(times, [0, 0.5, 0.75])
    assert end.item() == pytest.approx(1 + 0.875 * 2)  # a straight path to 3


def test_bespoke_is_no_rule():
    with pytest.raises(ValueError, match="no bespoke solver here"):
        integrate(velocity, torch.ones(1, 1), SolverConfig(method="bespoke"))


def test_the_path_and_its_loss_by_hand():
    x0, x1, t = torch.zeros(1, 2), torch.tensor([[2.0, 4.0]]), torch.tensor([0.25])
    torch.testing.assert_close(on_path(x0, x1, t), torch.tensor([[0.5, 1.0]]))
    loss = cfm_loss(lambda x, t: torch.ones_like(x), x0, x1, t)
    torch.testing.assert_close(loss, torch.tensor([(1 + 9) / 2]))
