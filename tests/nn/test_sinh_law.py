"""The law of one number: its draws have the density that it says."""

import math

import torch

from caloforge.nn.sinh_law import SinhLaw


def disturbed():
    torch.manual_seed(0)
    law = SinhLaw(2, 8)
    with torch.no_grad():
        for parameter in law.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return law.double()


def test_at_first_it_is_a_standard_normal():
    law, normals = SinhLaw(2, 8), torch.linspace(-5, 5, 21)[:, None]
    conditions = torch.zeros(21, 2)
    torch.testing.assert_close(law(conditions, normals), normals)
    wanted = 0.5 * (normals[:, 0].square() + math.log(2 * math.pi))
    torch.testing.assert_close(law.surprise(conditions, normals), wanted)


def test_the_density_is_that_of_the_draws():
    law = disturbed()
    n = torch.linspace(-6, 6, 20_001, dtype=torch.float64)[:, None].requires_grad_()
    conditions = torch.tensor([[0.5, -1.0]], dtype=torch.float64).expand(len(n), 2)
    y = law(conditions, n)
    assert (y.diff(dim=0) > 0).all()
    (slope,) = torch.autograd.grad(y.sum(), n)
    wanted = 0.5 * (n.square() + math.log(2 * math.pi)) + torch.log(slope)
    torch.testing.assert_close(law.surprise(conditions, y), wanted[:, 0])
