import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.ode.average_velocity import (
    AverageVelocityConfig,
    average_loss,
    identity_loss,
    leap,
    path_loss,
    teacher_path,
)
from caloforge.ode.bespoke import BespokeConfig
from caloforge.ode.solve import check_solver, solve
from caloforge.ode.solvers import SolverConfig, integrate, step_times

RATE = 1.3


def velocity(x, t):
    """dx/dt = w cos(3 t) x, solved by x_0 exp(w sin(3 t) / 3)."""
    return RATE * torch.cos(3 * t).view(-1, *[1] * (x.ndim - 1)) * x


def exact(x, t, s, off=0.0):
    """The average velocity of the same, or one that is off."""
    step = s - t
    growth = torch.expm1(RATE / 3 * (torch.sin(3 * s) - torch.sin(3 * t))) / step.clamp(min=1e-9)
    growth = torch.where(step > 0, growth, RATE * torch.cos(3 * t))
    return (growth + off).view(-1, *[1] * (x.ndim - 1)) * x


def starts(rows=16):
    return torch.randn(rows, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_exact_average_velocities_lead_to_the_solution(steps, shares):
    times = step_times(0.8, steps, shares=shares)
    end = starts() * math.exp(RATE * math.sin(2.4) / 3)
    torch.testing.assert_close(leap(exact, starts(), times), end)
    torch.testing.assert_close(
        teacher_path(velocity, starts(), step_times(0.8, 200))[-1], end, atol=1e-4, rtol=1e-4
    )


def test_times_are_equal_steps_or_equal_shares():
    assert step_times(0.9, 3) == pytest.approx([0, 0.3, 0.6, 0.9])
    left = [1 - t for t in step_times(0.9, 3, shares=True)]
    assert [b / a for a, b in pairwise(left)] == pytest.approx([left[1]] * 3)


@pytest.mark.parametrize("target", ["path", "identity"])
def test_the_loss_is_zero_for_exact_average_velocities_and_for_no_others(target):
    config = AverageVelocityConfig(steps=2, target=target, teacher=60)
    u = torch.rand(16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    losses = [
        average_loss(partial(exact, off=off), velocity, starts(), u, config, 0.9, shares=True).mean()
        for off in (0.0, 0.1)
    ]
    assert losses[0] < 1e-7
    assert losses[1] > 1e-3


def test_the_derivative_of_the_identity_is_that_of_finite_differences():
    x, t, s = starts(4), torch.tensor([0.0, 0.2, 0.4, 0.7]), torch.tensor([1.0, 0.5, 0.9, 0.7])
    t, s, h = t.double(), s.double(), 1e-6

    def student(x, t, s):
        return torch.sin(x + 0.5 * (t * t * s)[:, None, None])

    v = velocity(x, t)
    change = (student(x + h * v, t + h, s) - student(x - h * v, t - h, s)) / (2 * h)
    error = student(x, t, s) - v - (s - t)[:, None, None] * change
    torch.testing.assert_close(identity_loss(student, velocity, x, t, s), error.square().flatten(1).mean(1))


def test_a_target_takes_no_gradient():
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def student(x, t, s):
        return weight * exact(x, t, s)

    x, t, s = starts(4), torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    identity_loss(student, velocity, x, t, s).mean().backward()
    with torch.no_grad():
        v = velocity(x, t)
        _, change = torch.func.jvp(student, (x, t, s), (v, torch.ones_like(t), torch.zeros_like(s)))
        error = student(x, t, s) - v - change
        by_hand = (2 * error * exact(x, t, s)).flatten(1).mean(1).mean()
    torch.testing.assert_close(weight.grad, by_hand)


@pytest.mark.parametrize("target", ["path", "identity"])
def test_a_student_learns_to_leap(target):
    """A network of a flow that turns: one leap ends nearer than one step of Euler, by far."""
    torch.manual_seed(0)
    config = AverageVelocityConfig(steps=1, target=target, teacher=6)
    student = VelocityNetwork(2, 1, 32, 1, until=True)
    condition = torch.zeros(256, 32)

    def turn(x, t):
        return 1.5 * torch.stack([-x[:, 1], x[:, 0]], 1)

    def average(x, t, s):
        return student(x, t, condition[:1].expand(len(x), -1), s)

    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    for _ in range(150):
        loss = average_loss(average, turn, torch.randn(64, 2), torch.rand(64, 3), config).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x0 = torch.randn(256, 2)
    precise = integrate(turn, x0, SolverConfig(method="rk4", steps=20))
    euler = integrate(turn, x0, SolverConfig(steps=1))
    with torch.no_grad():
        end = solve(turn, x0, SolverConfig(method="average_velocity", steps=1), None, average)
    assert (end - precise).square().mean() < (0.05 if target == "path" else 0.5) * (
        euler - precise
    ).square().mean()


def test_a_network_knows_nothing_of_intervals_before_it_is_trained():
    """At the nodes of its cubic, the average velocity is the velocity; so is that over nothing, trained or not."""
    torch.manual_seed(0)
    network = VelocityNetwork(3, 2, 16, 2, until=True)
    torch.nn.init.normal_(network.last.weight)
    for block in network.blocks:
        torch.nn.init.normal_(block.modulation.weight)
    x, t, condition = torch.randn(4, 3), torch.linspace(0, 1, 4), torch.randn(4, 16)
    torch.testing.assert_close(network(x, t, condition, torch.ones(4)), network(x, t, condition))
    torch.nn.init.normal_(network.until.last.weight)
    torch.testing.assert_close(network(x, t, condition, t), network(x, t, condition))
    assert not torch.allclose(network(x, t, condition, torch.ones(4)), network(x, t, condition))


def test_average_velocities_must_have_been_trained():
    asked, bespoke = SolverConfig(method="average_velocity", steps=2), BespokeConfig()
    with pytest.raises(ValueError, match="this model has none"):
        check_solver(asked, bespoke)
    with pytest.raises(ValueError, match=r"average_velocity\.steps = 0"):
        check_solver(asked, bespoke, AverageVelocityConfig())
    with pytest.raises(ValueError, match=r"solver\.steps as trained, 1, got 2"):
        check_solver(asked, bespoke, AverageVelocityConfig(steps=1))
    check_solver(asked, bespoke, AverageVelocityConfig(steps=1, target="identity"))
    with pytest.raises(ValueError, match="there is no average velocity here"):
        integrate(velocity, starts(), asked)


def test_the_loss_of_a_path_is_summed_over_the_steps():
    times, points = [0.0, 0.5, 1.0], [torch.zeros(2, 3), torch.ones(2, 3), torch.full((2, 3), 3.0)]
    still = path_loss(lambda x, t, s: torch.zeros_like(x), points, times)
    torch.testing.assert_close(still, torch.full((2,), 1.0 + 4.0))
