import dataclasses

import numpy as np
import pytest
import torch

from caloforge.detectors import DS2, ZN
from caloforge.events import Selected
from caloforge.io.run import Run
from caloforge.metrics.diversity import f_div, f_div_inv_w
from caloforge.models import build
from caloforge.models.autoregressive_flow import MAF, MAFConfig
from caloforge.models.base import BatchRandom
from caloforge.models.inverse_autoregressive_flow import IAF, DiversityWeights, IAFConfig
from caloforge.models.parts.flow_images import tempered
from caloforge.models.parts.flow_likelihood import log_likelihoods
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.photons import photon_sums
from caloforge.recipe import parse, read
from caloforge.training.checkpoint import save_weights
from made import FEW, made_events

SIZES = {
    "photons": {"width": 16, "epochs": 1, "batch_size": 16},
    "place": {"width": 8, "epochs": 1, "batch_size": 16},
    "flow": {"bins": 4, "network": {"width": 6, "hidden": 8, "shared": 3}},
    "training": {"epochs": 1, "batch_size": 16, "optimizer": {"learning_rate": 1e-2, "schedule": "constant"}},
    "validation_events": 16,
}
STUDENT = {**SIZES, "distillation": {"batch_size": 16, "optimizer": {"schedule": "constant"}}}


def events(particles=10, repeats=12):
    return made_events(FEW, particles, repeats)


def trained(model, data, steps):
    for stage in model.stages(data):
        run_steps(stage, data, steps)
    return model.eval()


def run_steps(stage, data, steps):
    """Makes steps on the same 40 events and returns the losses."""
    some = data.slices(slice(0, len(data), 3))
    random = [BatchRandom(0, slice(0, len(some)), len(some)) for _ in range(steps)]
    return [stage.step(some, one, lambda loss: loss.backward())["loss"] for one in random]


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return trained(MAF(FEW, MAFConfig.model_validate(SIZES)), events(), 20)


@pytest.fixture(scope="module")
def run(teacher, tmp_path_factory):
    folder = Run(tmp_path_factory.mktemp("flows") / "teacher")
    folder.path.mkdir()
    recipe = {"name": "teacher", "detector": "zn", "model": {"type": "autoregressive_flow", **SIZES}}
    folder.write_recipe(parse(recipe))
    save_weights(teacher, folder.weights)
    return folder


def student(run, **distillation):
    values = {**STUDENT, "distillation": {**STUDENT["distillation"], **distillation}}
    return IAF(FEW, IAFConfig.model_validate({**values, "teacher": str(run.path)}))


@pytest.fixture(scope="module", params=["shares", "gap"])
def prepared(request, teacher):
    if request.param == "shares":
        return teacher
    model = MAF(FEW, MAFConfig.model_validate({**SIZES, "cells": "gap"}))
    model.images.refit(events())
    return model.eval()


@torch.no_grad()
def test_preprocessing_is_undone(prepared):
    teacher = prepared
    _, counts = teacher.images.tensors(events())
    u = torch.rand(counts.shape, generator=torch.Generator().manual_seed(0)).clamp(1e-4, 1 - 1e-3)
    image, _ = teacher.images.prepare(counts, u)
    photons = counts.sum(1)
    values = teacher.images.shares(image, photons) * (photons[:, None] + 1)
    torch.testing.assert_close(values, counts + u, atol=1e-4, rtol=1e-5)
    assert torch.equal(torch.floor(values), counts)
    assert torch.equal(teacher.images.counts(image, photons, "floor").flatten(1), counts)


def test_the_jacobian_of_the_preprocessing_is_autograds(prepared):
    images = prepared.images.double()
    _, counts = images.tensors(events(1, 1))
    counts, u = counts.double(), torch.full_like(counts, 0.3).double()
    jacobian = torch.autograd.functional.jacobian(lambda u: images.prepare(counts, u)[0][0], u)[:, 0]
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, images.prepare(counts, u)[1][0])
    images.float()


@torch.no_grad()
def test_images_survive_the_way_to_noise_and_back(teacher):
    conditions, counts = teacher.images.tensors(events())
    u = torch.rand(counts.shape, generator=torch.Generator().manual_seed(0))
    photons = counts.sum(1)
    image, _ = teacher.images.prepare(counts, u)
    contexts = teacher.flow.contexts(*teacher.images.given(conditions, photons))
    z = teacher.flow.to_noise(image, contexts).points[-1]
    torch.testing.assert_close(teacher.flow.to_data(z, contexts).points[0], image, atol=1e-4, rtol=0)
    noise = torch.cat([z, torch.zeros(len(z), 1)], 1)
    found = teacher.with_photons(conditions, photons, noise).flatten(1)
    assert (found != counts).float().mean() < 1e-3


@torch.no_grad()
def test_sums_are_those_asked_for(teacher, run):
    data = events()
    conditions = torch.from_numpy(data.conditions)
    photons = torch.arange(20, 20 + len(conditions)).float()
    noise = torch.randn(len(conditions), 57, generator=torch.Generator().manual_seed(0))
    inverse = student(run)
    inverse.stages(data)
    for model in (teacher, inverse):
        assert torch.equal(model.with_photons(conditions, photons, noise).sum((1, 2)), photons)


def test_a_teacher_of_other_cells_is_refused(run):
    values = {**STUDENT, "cells": "gap", "teacher": str(run.path)}
    with pytest.raises(
        ValueError, match=r"must prepare cells as its student does, model.cells = 'gap', got 'shares'"
    ):
        IAF(FEW, IAFConfig.model_validate(values)).stages(events())


@torch.no_grad()
def test_the_density_of_the_photon_sum_is_one(teacher):
    data = events().slices(slice(0, 1))
    conditions = torch.from_numpy(data.conditions)
    photons = torch.linspace(0.5, 6000, 60_000)
    shared = conditions.expand(len(photons), -1)
    z, slope = teacher.images.photons.noise(shared, teacher.images.describe(shared), photons)
    density = torch.exp(-0.5 * z.double() ** 2 + slope) / np.sqrt(2 * np.pi)
    assert torch.trapezoid(density, photons.double()) == pytest.approx(1, abs=0.02)


@torch.no_grad()
def test_impossible_sums_do_not_come_out(teacher):
    data = events()
    sums = photon_sums(data)
    conditions = torch.from_numpy(data.conditions)
    features = teacher.images.describe(conditions)
    for noise in (-40.0, 40.0, float("nan")):
        drawn = teacher.images.photons(conditions, features, torch.full((len(data),), noise))
        assert (drawn >= sums.min()).all()
        assert (drawn < sums.max() + 1).all()


def test_likelihood_grows_in_training():
    torch.manual_seed(0)
    data, model = events(), MAF(FEW, MAFConfig.model_validate(SIZES))
    *_, stage = model.stages(data)
    before = stage.validate(data)["nll"]
    run_steps(stage, data, 20)
    assert stage.validate(data)["nll"] < before - 20
    assert np.isfinite(log_likelihoods(model.images, model.flow, data)).all()


def test_an_untrained_student_of_a_teacher_has_no_loss_beyond_what_its_network_sees(run):
    torch.manual_seed(0)
    model, data = student(run), events()
    (stage,) = model.stages(data)
    assert stage.name == "student"
    assert all(
        torch.equal(a, b) for a, b in zip(model.flow.parameters(), model.teacher.parameters(), strict=True)
    )
    assert model.made_with["teacher"]["name"] == "teacher"


def test_the_student_comes_near_its_teacher(run):
    torch.manual_seed(0)
    model, data = student(run, optimizer={"learning_rate": 5e-3, "schedule": "constant"}), events()
    (stage,) = model.stages(data)
    teacher = [parameter.clone() for parameter in model.teacher.parameters()]
    losses = run_steps(stage, data, 12)
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(a, b) for a, b in zip(teacher, model.teacher.parameters(), strict=True))


def test_the_channel_loss_is_the_specifications(run):
    model, data = student(run), events()
    model.stages(data)
    _, counts = model.images.tensors(data)
    u = torch.full_like(counts, 0.5)
    image, _ = model.images.prepare(counts, u)
    other, _ = model.images.prepare(counts.flip(1), u)
    photons = counts.sum(1)
    values = (counts + u).numpy().astype(np.float64)
    shares = values / values.sum(1, keepdims=True)
    expected = sum((shares[:, k::2].sum(1) - shares[:, ::-1][:, k::2].sum(1)) ** 2 for k in range(2))
    found = model.channel_loss(image, other, photons)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-9)
    assert not model.channel_loss(image, image, photons).any()
    moved = other.clone().requires_grad_()
    model.channel_loss(image, moved, photons).sum().backward()
    assert moved.grad.abs().sum() > 0


def test_the_channel_loss_enters_with_its_weight(run):
    data = events()
    losses = []
    for weight in (None, 100.0, 200.0):
        model = student(run, **({} if weight is None else {"channel": True, "channel_weight": weight}))
        model.stages(data)
        conditions, counts = model.images.tensors(data)
        generator = torch.Generator().manual_seed(0)
        u = torch.rand(counts.shape, generator=generator)
        z = torch.randn(counts.shape, generator=generator)
        with torch.no_grad():
            losses.append(model.distance(conditions, counts, u, z))
    torch.testing.assert_close(losses[2] - losses[0], 2 * (losses[1] - losses[0]), atol=1e-4, rtol=1e-3)
    assert (losses[1] > losses[0]).all()


def test_weights_are_those_of_the_particles():
    data = events(particles=4, repeats=12)
    rare = Selected(data, np.r_[0:41])  # the last particle has five responses
    weights = DiversityWeights(rare, 1e-3)
    found = f_div_inv_w(f_div(rare), 1e-3)
    batch = data.slices(np.array([0, 12, 24, 36]))
    np.testing.assert_allclose(weights(batch).numpy(), [*found.value, 1.0], rtol=1e-6)


def test_weights_by_hand():
    data = events(particles=2, repeats=12)
    responses = np.zeros((24, 8, 7), np.uint16)
    responses[:12:2, 0, 0] = 2  # standard deviation 1 in one cell
    responses[12::2, 0, 0], responses[12::2, 1, 1] = 4, 4  # 2 in each of two cells
    data = dataclasses.replace(data, responses=responses)
    # 1 / f_div is 1 and 1/4, scaled 1 and 0, times 12; the mean weight 6 gives 0.006 to both; then the mean is 1
    mean = (12.006 + 0.006) / 2
    found = DiversityWeights(data, 1e-3)(data).numpy()
    np.testing.assert_allclose(found, np.repeat([12.006 / mean, 0.006 / mean], 12), rtol=1e-5)


def test_a_teacher_of_other_sizes_is_refused(run):
    values = {**STUDENT, "teacher": str(run.path), "flow": {"bins": 5}}
    with pytest.raises(ValueError, match="has other sizes"):
        IAF(FEW, IAFConfig.model_validate(values)).stages(events())
    values = {**STUDENT, "teacher": str(run.path), "flow": {**SIZES["flow"], "transforms": 3}}
    with pytest.raises(ValueError, match="weights are missing"):
        IAF(FEW, IAFConfig.model_validate(values)).stages(events())


def test_the_teacher_generates_the_same_in_any_batch(teacher):
    conditions = events().conditions[:6]
    whole = generate_in_memory(teacher, conditions, seed=3, batch_size=6)
    part = generate_in_memory(teacher, conditions[:2], seed=3, batch_size=2)
    assert (whole[:2] != part).mean() < 0.01


def test_flows_need_an_image_of_photons():
    with pytest.raises(ValueError, match="two axes that counts photons"):
        MAF(DS2, MAFConfig())


def test_the_set_ups_are_two_flags_and_have_the_teacher_that_ships():
    flags = {}
    for name in ("bs", "bs-div", "bs-ch", "bs-ch-div"):
        values = read(f"zn-iaf-{name}")
        distillation = values["model"]["distillation"]
        flags[name] = distillation.pop("channel"), distillation.pop("diversity")
        assert values.pop("name") == f"zn-iaf-{name}"
        assert values == flags.setdefault("rest", values)
    assert flags["bs"] == (False, False)
    assert flags["bs-div"] == (False, True)
    assert flags["bs-ch"] == (True, False)
    assert flags["bs-ch-div"] == (True, True)
    model = build(parse(read("zn-iaf-bs")))
    (stage,) = model.stages(made_events(ZN, particles=2, repeats=2))
    assert (stage.name, model.made_with["teacher"]["name"]) == ("student", "zn-maf")


def test_tails_of_the_noise_are_shrunk():
    noise = torch.tensor([-4.5, -2.5, -1.0, 0.0, 2.0, 3.5])
    torch.testing.assert_close(tempered(noise, 0.5), torch.tensor([-3.5, -2.5, -1.0, 0.0, 2.0, 3.0]))
    assert tempered(noise, 1.0) is noise


@torch.no_grad()
def test_a_tail_below_one_tempers_the_noise_of_cells():
    torch.manual_seed(0)
    made = events()
    for kind, config in ((MAF, MAFConfig), (IAF, IAFConfig)):
        assert "tail" in kind.sampling
        model = kind(FEW, config.model_validate(SIZES))
        model.images.refit(made)
        short = kind(FEW, config.model_validate({**SIZES, "tail": 0.2}))
        short.load_state_dict(model.state_dict())
        noise = 3 * torch.randn(6, model.noise_dim)
        conditions = torch.from_numpy(made.conditions[:6])
        tempered_noise = torch.cat([tempered(noise[:, :-1], 0.2), noise[:, -1:]], 1)
        assert torch.equal(short(conditions, noise), model(conditions, tempered_noise))
