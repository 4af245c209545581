import pytest
import torch

from caloforge.nn.autoregressive import AutoregressiveFlow, FlowConfig, spline
from caloforge.nn.made import MADEConfig

SHAPE, CELLS = (4, 3), 12


def flow(sees, kind="local", dtype=torch.float32, transforms=2):
    torch.manual_seed(0)
    config = FlowConfig(transforms=transforms, bins=5, network=MADEConfig(kind=kind, width=12, hidden=8))
    model = AutoregressiveFlow(SHAPE, 3, config, sees).to(dtype)
    for name, parameter in model.named_parameters():
        if "last" in name:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


def given(rows=4, dtype=torch.float32, spread=2.0):
    generator = torch.Generator().manual_seed(1)
    x = spread * torch.randn(rows, CELLS, generator=generator, dtype=dtype)
    features = torch.randn(rows, 3, generator=generator, dtype=dtype)
    return x, features, torch.tensor([[1.0, 1.5]] * rows, dtype=dtype)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["local", "dense"])
@pytest.mark.parametrize("sees", ["data", "noise"])
def test_there_and_back(sees, kind):
    model = flow(sees, kind)
    x, features, place = given(rows=64)
    there = model.to_noise(x, model.contexts(features, place))
    back = model.to_data(there.points[-1], model.contexts(features, place))
    assert (there.points[-1] - x).abs().max() > 0.1
    torch.testing.assert_close(back.points[0], x, atol=1e-4, rtol=0)
    for first, second in zip([*there.points, *there.outputs], [*back.points, *back.outputs], strict=True):
        torch.testing.assert_close(first, second, atol=1e-3, rtol=0)


def test_the_log_determinant_is_autograds():
    model = flow("data", dtype=torch.float64)
    x, features, place = given(rows=1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: model.to_noise(x, model.contexts(features, place)).points[-1][0], x
    )[:, 0]
    found = model.to_noise(x, model.contexts(features, place)).log_det[0]
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, found)


@torch.no_grad()
def test_one_map_is_autoregressive_on_the_side_its_network_sees():
    x, features, place = given(rows=1, dtype=torch.float64)
    for sees, step in (("data", "to_noise"), ("noise", "to_data")):
        model = flow(sees, dtype=torch.float64, transforms=1)
        function, contexts = getattr(model, step), model.contexts(features, place)
        end = 0 if step == "to_data" else -1
        with torch.enable_grad():
            jacobian = torch.autograd.functional.jacobian(
                lambda x, f=function, e=end, c=contexts: f(x, c).points[e][0], x
            )[:, 0]
        assert not torch.triu(jacobian, 1).any()
        assert (torch.diagonal(jacobian) > 0).all()


@torch.no_grad()
def test_equal_parameters_mean_equal_maps_in_both_directions():
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(50, 14, generator=generator)
    x = torch.linspace(-7, 7, 50)
    transform = spline(parameters, 6.0)
    torch.testing.assert_close(transform.inv(transform(x)), x, atol=1e-4, rtol=0)
    torch.testing.assert_close(spline(torch.zeros(50, 14), 6.0)(x), x)


def test_layers_are_for_the_dense_kind():
    with pytest.raises(ValueError, match="layers is for the dense kind"):
        FlowConfig(network=MADEConfig(layers=2))
