import pytest
import torch

from caloforge.nn.perceptual import Extractor, from_tensors

VGG16 = [[64, 64], [128, 128], [256] * 3, [512] * 3, [512] * 3]


def tensors(inputs=1, stages=((4, 4), (6,), (8,))):
    torch.manual_seed(0)
    extractor = Extractor(inputs, [list(stage) for stage in stages])
    weights = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(extractor.channels)}
    return extractor.state_dict() | weights


def test_the_names_tell_the_architecture():
    distance = from_tensors(tensors())
    assert (distance.extractor.inputs, distance.extractor.channels) == (1, [4, 6, 8])
    shapes = [tuple(one.shape[1:]) for one in distance.extractor(torch.rand(2, 12, 8))]
    assert shapes == [(4, 12, 8), (6, 6, 4), (8, 3, 2)]


@pytest.mark.slow
def test_vgg16_has_the_layers_of_lpips():
    extractor = Extractor(3, VGG16)
    numbers = [int(name.split(".")[1]) for name in extractor.state_dict() if name.endswith("weight")]
    assert numbers == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert (
        sum(p.numel() for p in extractor.parameters()) == 14_714_688
    )  # torchvision's, without the classifier
    assert extractor.channels == [64, 128, 256, 512, 512]


def test_the_formula_by_hand():
    distance = from_tensors(tensors(3, [(2,)]))
    x, y = torch.rand(1, 4, 4), torch.rand(1, 4, 4)

    def features(image):
        seen = (2 / 6.4 * image - 1)[:, None].expand(-1, 3, -1, -1)
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        seen = (seen - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1)
        found = torch.relu(distance.extractor.features[0](seen))
        return found / found.square().sum(1, keepdim=True).sqrt().clamp(min=1e-5)

    difference = (features(x) - features(y)).square()
    wanted = (distance.get_buffer("weight0").view(1, -1, 1, 1) * difference).sum(1).mean((1, 2))
    torch.testing.assert_close(distance(x, y), wanted, rtol=1e-4, atol=1e-6)


def test_equal_images_have_no_distance_and_dark_ones_a_gradient_that_is_finite():
    distance = from_tensors(tensors())
    x = torch.rand(3, 12, 8)
    assert not distance(x, x).any()
    assert (distance(x, x + torch.rand_like(x)) > 0).all()
    dark = torch.zeros(2, 12, 8, requires_grad=True)
    distance(dark, torch.rand(2, 12, 8)).sum().backward()
    assert torch.isfinite(dark.grad).all()
    assert not any(p.requires_grad for p in distance.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lin1.model.1.weight": None}, r"wanted lin1\.model\.1\.weight with 4 axes, got none"),
        ({"lin0.model.1.weight": -torch.ones(1, 4, 1, 1)}, "must hold 4 numbers that are not negative"),
        ({"features.5.weight": None, "features.5.bias": None}, r"features\.8 cannot follow features\.2"),
        ({"features.0.weight": torch.ones(4, 2, 3, 3)}, "must take 1 or 3 channels, got 2"),
        ({"features.5.weight": torch.ones(6, 9, 3, 3)}, "do not fit together"),
    ],
)
def test_other_tensors_are_refused(changes, message):
    changed = {name: tensor for name, tensor in (tensors() | changes).items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        from_tensors(changed)


def test_nothing_is_refused():
    with pytest.raises(ValueError, match=r"wanted features\.0\.weight"):
        from_tensors({})
