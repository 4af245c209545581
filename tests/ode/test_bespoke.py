import pytest
import torch
from torch import nn

from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, frozen, reference
from caloforge.ode.solvers import SolverConfig, integrate


class Curved(nn.Module):
    """dx/dt = w cos(3 t) x, solved by x_0 exp(w sin(3 t) / 3)."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, x, t):
        return self.w * torch.cos(3 * t).view(-1, *[1] * (x.ndim - 1)) * x

    def solution(self, x0, t):
        return x0 * torch.exp(self.w.detach() * torch.sin(torch.tensor(3 * t)) / 3)


def starts(rows=16):
    return torch.randn(rows, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("steps", "parameters"), [(8, 51), (16, 167), (32, 591)])
def test_numbers_of_the_publication(steps, parameters):
    assert sum(p.numel() for p in BespokeSolver(steps).parameters()) == parameters


@pytest.mark.parametrize("end", [1.0, 0.7])
def test_starts_as_euler(end):
    velocity, x0 = Curved(), starts()
    solver = BespokeSolver(5, end).double()
    euler = integrate(velocity, x0, SolverConfig(steps=5), end)
    torch.testing.assert_close(solver(velocity, x0), euler)
    torch.testing.assert_close(solver.times(), torch.linspace(0, end, 6, dtype=torch.float64))


def test_the_reference_is_precise():
    velocity, x0 = Curved(), starts()
    path, speeds = reference(velocity, x0, 0.8, 100)
    torch.testing.assert_close(path[-1], velocity.solution(x0, 0.8), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(speeds[50], velocity(path[50], torch.full((16,), 0.4, dtype=torch.float64)))


@pytest.mark.parametrize("kind", ["local", "global"])
@pytest.mark.parametrize("end", [1.0, 0.8])
def test_training_beats_euler_and_midpoint_and_leaves_the_network(kind, end):
    velocity, solver = Curved(), BespokeSolver(4, end).double()
    config = BespokeConfig(steps=4, loss=kind, reference=24)
    optimizer = torch.optim.Adam(solver.parameters(), lr=5e-3)
    first = None
    for _ in range(250):
        with frozen(velocity):
            loss = solver.loss(velocity, starts(), config)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        first = float(loss.detach()) if first is None else first
    assert velocity.w.grad is None
    assert velocity.w.requires_grad
    assert float(loss.detach()) < 0.1 * first
    x0 = starts(64)[16:]

    def error(x):
        return float((x - velocity.solution(x0, end)).square().mean().sqrt())

    trained = error(solver(velocity, x0).detach())
    assert trained < 0.1 * error(integrate(velocity, x0, SolverConfig(steps=4), end).detach())
    assert trained < error(integrate(velocity, x0, SolverConfig(method="midpoint", steps=2), end).detach())


@pytest.mark.parametrize("kind", ["local", "global"])
def test_every_number_gets_the_gradient_of_its_loss(kind):
    """Times included: they are checked against differences of the loss."""
    velocity, solver = Curved(), BespokeSolver(3).double()
    config = BespokeConfig(steps=3, loss=kind, reference=100)
    with torch.no_grad():
        for parameter in solver.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    with frozen(velocity):
        solver.loss(velocity, starts(), config).backward()
        for parameter in solver.parameters():
            for k in range(parameter.numel()):
                values = []
                for change in (1e-5, -1e-5):
                    with torch.no_grad():
                        parameter.view(-1)[k] += change
                        values.append(float(solver.loss(velocity, starts(), config)))
                        parameter.view(-1)[k] -= change
                assert float(parameter.grad.view(-1)[k]) == pytest.approx(
                    (values[0] - values[1]) / 2e-5, rel=5e-3, abs=1e-5
                )
