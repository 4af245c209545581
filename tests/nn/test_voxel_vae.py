import pytest
import torch

from caloforge.nn.voxel_vae import Scale, VoxelVAE, VoxelVAEConfig

PAPER = {
    (45, 16, 9): VoxelVAEConfig(),
    (45, 50, 18): VoxelVAEConfig(
        scales=(
            Scale(kernel=(5, 2, 3), stride=(5, 2, 1), padding=(0, 1, 0)),
            Scale(kernel=(1, 1, 1), stride=(1, 1, 1)),
        )
    ),
}
SMALL = VoxelVAEConfig(
    channels=(4, 6), scales=(Scale(kernel=(3, 2, 1), stride=(3, 2, 1)),) * 2, condition=5, latent=3
)


def test_bottlenecks_of_the_publication():
    with torch.device("meta"):
        assert [VoxelVAE(axes, 46, config).shape for axes, config in PAPER.items()] == [
            (2, 15, 9, 9),
            (2, 9, 26, 16),
        ]


def test_shapes_and_gradients():
    torch.manual_seed(0)
    vae = VoxelVAE((9, 8, 3), 4, SMALL)
    x, conditions = torch.rand(5, 9, 8, 3), torch.randn(5, 4)
    mean, logvar = vae.encode(x, conditions)
    assert mean.shape == logvar.shape == (5, *vae.shape) == (5, 3, 1, 2, 3)
    logits = vae.decode(mean + logvar, conditions)
    assert logits.shape == x.shape
    logits.square().sum().backward()
    assert [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_learns_to_reproduce_a_few_showers():
    torch.manual_seed(0)
    vae = VoxelVAE((9, 8, 3), 4, SMALL)
    x, conditions = (torch.rand(8, 9, 8, 3) < 0.3).float(), torch.randn(8, 4)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        mean, _ = vae.encode(x, conditions)
        logits = vae.decode(mean, conditions)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_scales_that_cannot_be_undone():
    # the publication prints a stride that cannot give its own bottleneck
    printed = VoxelVAEConfig(
        scales=(
            Scale(kernel=(5, 2, 3), stride=(2, 2, 1), padding=(0, 1, 0)),
            Scale(kernel=(1, 1, 1), stride=(1, 1, 1)),
        )
    )
    with torch.device("meta"):
        assert VoxelVAE((45, 50, 18), 46, printed).shape != (2, 9, 26, 16)
    with pytest.raises(
        ValueError, match=r"turn \(45, 16, 9\) into \(22, 9, 9\) and that back into \(44, 16, 9\)"
    ):
        VoxelVAE(
            (45, 16, 9),
            46,
            VoxelVAEConfig(scales=(Scale(kernel=(2, 2, 1), stride=(2, 2, 1), padding=(0, 1, 0)),) * 2),
        )
    with pytest.raises(ValueError, match="as many scales as channels, got 1 and 2"):
        VoxelVAE((45, 16, 9), 46, VoxelVAEConfig(scales=(Scale(kernel=(1, 1, 1), stride=(1, 1, 1)),)))
