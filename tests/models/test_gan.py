import copy

import numpy as np
import pytest
import torch

from caloforge import recipe
from caloforge.detectors import ZN
from caloforge.metrics.diversity import f_div
from caloforge.models import build
from caloforge.models.base import BatchRandom
from caloforge.models.gan import GAN, GANConfig, selective_diversity
from made import made_events

SMALL = GANConfig.model_validate(
    {
        "network": {"width": 16, "heads": 2, "layers": 1, "latent": 8, "dropout": 0.0},
        "optimizer": {"learning_rate": 1e-3, "beta1": 0.5},
        "discriminator": {"learning_rate": 1e-3, "beta1": 0.5},
        "repeats": 4,
    }
)


def run(stage, events, steps):
    rows = slice(0, len(events))
    return [
        stage.step(events, BatchRandom(k, rows, len(events)), lambda loss: loss.backward())
        for k in range(steps)
    ]


def test_the_discriminator_learns_and_the_generator_answers(events):
    torch.manual_seed(0)
    model = GAN(ZN, SMALL)
    (stage,) = model.stages(events)
    before = [p.clone() for p in model.parameters()]
    values = run(stage, events, 15)
    # two coin tosses at first: the cross-entropy of the discriminator is 2 ln 2
    assert values[0]["discriminator"] == pytest.approx(2 * np.log(2), abs=0.2)
    assert values[-1]["discriminator"] < 0.7 * values[0]["discriminator"]
    assert all(np.isfinite(list(value.values())).all() for value in values)
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert "diversity" not in values[0]


def test_each_optimizer_moves_its_own_network_only(events):
    torch.manual_seed(0)
    model = GAN(ZN, SMALL)
    (stage,) = model.stages(events)
    generator, discriminator = stage.modules()["module"], stage.modules()["discriminator"]
    held = {id(p) for group in stage.optimizers()["optimizer"].param_groups for p in group["params"]}
    assert held == {id(p) for p in generator.parameters()}
    held = {id(p) for group in stage.optimizers()["discriminator"].param_groups for p in group["params"]}
    assert held == {id(p) for p in discriminator.parameters()}
    # weights that ship hold the generator alone
    assert {id(p) for p in model.parameters()} == {id(p) for p in generator.parameters()}


def test_what_generates_is_the_moving_average_of_the_generator(events):
    torch.manual_seed(0)
    model = GAN(ZN, SMALL.model_copy(update={"average": 0.5}))
    (stage,) = model.stages(events)
    trained = list(stage.modules()["module"].parameters())
    expected = [p.detach().clone() for p in model.generator.parameters()]
    for step in range(4):
        run(stage, events, 1)
        weight = 1 - min(0.5, (2 + step) / (11 + step))
        expected = [
            (1 - weight) * old + weight * new.detach() for old, new in zip(expected, trained, strict=True)
        ]
    for ours, theirs in zip(model.generator.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert any(not torch.equal(a, b) for a, b in zip(model.generator.parameters(), trained, strict=True))


def test_the_diversity_is_that_of_the_particle_scaled_from_0_to_1(events):
    found = f_div(events, 4)
    scaled = selective_diversity(events, 4)(found.group)
    assert scaled.min() == 0
    assert scaled.max() == 1
    np.testing.assert_array_equal(np.argsort(scaled), np.argsort(found.value))
    assert selective_diversity(events, 4)(np.array([9999])) == 0


def test_particles_without_repeats_have_no_diversity(events):
    with pytest.raises(ValueError, match=r"at least 10 responses that differ .* got 0 particles"):
        GAN(ZN, SMALL.model_copy(update={"diversity": 1.0, "repeats": 10})).stages(events)
    GAN(ZN, SMALL.model_copy(update={"repeats": 10})).stages(events)  # the GAN does not ask


def test_the_term_of_the_sdi_gan_worked_by_hand():
    torch.manual_seed(0)
    events = made_events().slices(slice(0, 8))
    model = GAN(ZN, SMALL.model_copy(update={"diversity": 2.0}))
    (stage,) = model.stages(events)
    drawn = iter([torch.full((8, 10), value) for value in (9.0, 1.0)])
    image = torch.zeros(8, *ZN.shape, requires_grad=True)
    stage._made = lambda condition, rng: (next(drawn), image)
    features = iter([torch.zeros(8, 6), torch.zeros(8, 6), torch.full((8, 6), 3.0), torch.full((8, 6), -1.0)])
    score = torch.zeros(8, requires_grad=True)
    opponent = stage._discriminator
    opponent.forward = lambda image, sums, condition, kept: (score + 0, next(features))
    values = stage.step(events, BatchRandom(0, slice(0, 8), 8), lambda loss: loss.backward())
    # |dz| = 8, |d phi| = 4
    diversity = selective_diversity(events, 4)(events.group).mean()
    assert values["diversity"] == pytest.approx(diversity * 8 / 4)
    assert values["generator"] == pytest.approx(np.log(2))
    assert values["loss"] == pytest.approx(np.log(2) + 2 * values["diversity"])


BEYOND = SMALL.model_copy(update={"whole": True, "grain": True, "light": True, "particle": True})


def test_whole_counts_are_what_is_generated_and_pass_the_gradient(events):
    torch.manual_seed(0)
    (stage,) = GAN(ZN, BEYOND).stages(events)
    batch, rows = events.slices(slice(0, 4)), slice(0, 4)
    _, condition = stage._inputs(batch)
    _, made = stage._made(condition, BatchRandom(0, rows, 4))
    counts = torch.expm1(made)
    torch.testing.assert_close(counts, counts.round(), atol=1e-4, rtol=0)
    made.sum().backward()
    trained = stage.modules()["module"]
    whole = [p.grad.clone() for p in trained.parameters() if p.grad is not None]
    trained.zero_grad()
    (plain,) = GAN(ZN, BEYOND.model_copy(update={"whole": False})).stages(events)
    plain.modules()["module"].load_state_dict(trained.state_dict())
    _, smooth = plain._made(condition, BatchRandom(0, rows, 4))
    assert (torch.expm1(smooth) - counts).abs().max() < 1
    smooth.sum().backward()
    others = [p.grad for p in plain.modules()["module"].parameters() if p.grad is not None]
    for ours, theirs in zip(whole, others, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_fibres_have_normals_of_their_own_where_there_is_grain(events):
    torch.manual_seed(0)
    model = GAN(ZN, BEYOND.model_copy(update={"rounding": "none"}))
    model.stages(events)
    assert model.noise_dim == 10 + 44 * 44 + 1
    conditions, noise = torch.from_numpy(events.conditions[:2]), torch.randn(2, model.noise_dim)
    first = model(conditions, noise)
    noise[:, 10 + 44 * 5 + 7] += 1
    changed = (model(conditions, noise) != first).nonzero()
    assert changed[:, 1:].unique(dim=0).tolist() == [[5, 7]]


def test_the_critic_of_the_light_sees_channel_sums_that_the_image_does_not_show(events):
    torch.manual_seed(0)
    (stage,) = GAN(ZN, BEYOND).stages(events)
    opponent, (image, condition) = stage._discriminator, stage._inputs(events.slices(slice(0, 4)))
    sums = torch.randn(4, 5, requires_grad=True)
    opponent(image, sums, condition, None)[0].sum().backward()
    assert (sums.grad != 0).all()
    (without,) = GAN(ZN, BEYOND.model_copy(update={"light": False})).stages(events)
    assert without._discriminator.light is None


def test_a_resumed_stage_goes_on_as_it_would_have(events):
    few = events.slices(slice(0, 8))
    torch.manual_seed(0)
    (first,) = GAN(ZN, SMALL).stages(few)
    run(first, few, 1)
    (second,) = GAN(ZN, SMALL).stages(few)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    rng = [BatchRandom(7, slice(0, 8), 8) for _ in range(2)]
    steps = [
        stage.step(few, one, lambda loss: loss.backward())
        for stage, one in zip((first, second), rng, strict=True)
    ]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("name", ["zn", "zp"])
def test_the_recipes(name):
    gan, sdi = (build(recipe.parse(recipe.read(f"{name}-{kind}"))).config for kind in ("gan", "sdi_gan"))
    assert (gan.diversity, sdi.diversity) == (0.0, 1.0)
    # on a core ZN wants lower rates for the second term
    assert (gan.network, gan.latent) == (sdi.network, sdi.latent)
    plain, paper = (
        build(recipe.parse(recipe.read(f"{name}-{kind}-paper"))).config for kind in ("gan", "sdi_gan")
    )
    assert plain == paper.model_copy(update={"diversity": 0.0})
    beyond = ("whole", "grain", "light", "particle", "instance_noise", "average")
    assert not any(getattr(paper, name) for name in beyond)
    assert (paper.network.width, paper.network.layers, paper.network.heads, paper.network.dropout) == (
        128,
        4,
        4,
        0.1,
    )
    assert (paper.latent, paper.diversity, paper.rounding) == (10, 1.0, "none")
