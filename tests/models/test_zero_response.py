"""The zero response: consistent probabilities, which training brings to the observed fractions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from caloforge.detectors import ZN
from caloforge.evaluation.zero_response import scores_of, with_both
from caloforge.io import open_trials, write_trials
from caloforge.io.run import Run
from caloforge.metrics.probability import brier, brier_floor
from caloforge.models import build
from caloforge.models.base import BatchRandom
from caloforge.models.parts.inference import probabilities_in_memory
from caloforge.models.zero_response import ZeroResponse, ZeroResponseConfig, log_loss
from caloforge.recipe import parse, read, with_settings
from caloforge.samples import TRIALS, sample, weights
from caloforge.training.checkpoint import load_classifier, load_model, load_weights, save_weights
from caloforge.training.run import train
from made_o2 import made_trials

SMALL = ZeroResponseConfig(width=16, layers=1, epochs=12, batch_size=64, dropout=0.1)


@pytest.fixture(scope="module")
def trials():
    return made_trials(rows=1200)


@pytest.fixture(scope="module")
def model(trials):
    torch.manual_seed(0)
    model = ZeroResponse(ZN, SMALL)
    (stage,) = model.stages(trials)
    for epoch in range(SMALL.epochs):
        for number, batch in enumerate(stage.batches(trials, np.random.default_rng(epoch))):
            random = BatchRandom(1000 * epoch + number, slice(0, len(batch)), len(batch))
            stage.step(batch, random, lambda loss: loss.backward())
    return model.eval()


def probabilities(model, trials):
    return probabilities_in_memory(model, trials.conditions)


def test_probabilities_are_consistent_whatever_the_weights(trials):
    torch.manual_seed(1)
    untrained = ZeroResponse(ZN, SMALL)
    with torch.no_grad():
        for parameter in untrained.parameters():
            parameter.normal_(std=2.0)
    first, second, either = probabilities(untrained, trials).T
    assert ((first >= 0) & (either <= 1)).all()
    assert (either >= np.maximum(first, second)).all()
    assert (either <= first + second + 1e-6).all()


def test_training_finds_the_fractions_and_the_shape(model, trials):
    fresh = made_trials(rows=1500, seed=7)
    p = probabilities(model, fresh)
    scores = scores_of(fresh, p.astype(np.float64), model.outcomes)
    for name in ("zn", "zp", "any", "both"):
        everything = scores[name].all
        assert abs(everything.predicted - everything.observed) < 5 * everything.error
    assert scores["zn"].auc > 0.9
    floor = brier_floor(fresh.trials, fresh.hits[:, 0])
    assert floor < brier(fresh.trials, fresh.hits[:, 0], p[:, 0]) < 1.2 * floor + 0.005


def test_log_loss_by_hand(trials):
    one = trials.slices(slice(0, 1))
    nothing, first, second, both = one.outcomes()[0]
    p = np.array([[0.5, 0.3, 0.6]])  # nothing 0.4, ZN alone 0.3, ZP alone 0.1, both 0.2
    wanted = -(np.array([nothing, first, second, both]) * np.log([0.4, 0.3, 0.1, 0.2])).sum() / 5
    assert log_loss(one, p) == pytest.approx(wanted)
    impossible = np.array([[0.0, 0.0, 0.0]])
    assert np.isfinite(log_loss(trials, np.tile(impossible, (len(trials), 1))))


def test_saving_and_loading_changes_nothing(model, trials, tmp_path):
    save_weights(model, tmp_path / "weights.safetensors")
    fresh = ZeroResponse(ZN, SMALL)
    load_weights(fresh, tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(probabilities(fresh.eval(), trials), probabilities(model, trials))


def test_every_parameter_gets_a_gradient(trials):
    model = ZeroResponse(ZN, SMALL)
    (stage,) = model.stages(trials)
    stage.step(trials, BatchRandom(0, slice(0, len(trials)), len(trials)), lambda loss: loss.backward())
    assert all(p.grad is not None and p.grad.any() for p in stage.modules()["module"].parameters())


def test_a_detector_without_a_face_is_refused():
    with pytest.raises(ValueError, match="need a face, a pitch"):
        ZeroResponse(replace(ZN, face=None), SMALL)
    without = tuple(feature for feature in ZN.conditions if feature.name != "mass")
    with pytest.raises(ValueError, match="needs the condition mass; zn has energy, vx"):
        ZeroResponse(replace(ZN, conditions=without), SMALL)
    with pytest.raises(ValueError, match="no grooves"):
        ZeroResponse(replace(ZN, grooves=None), SMALL.model_copy(update={"grooves": True}))


def test_the_recipe_trains_the_same_run_twice(tmp_path):
    write_trials(tmp_path / "made.h5", made_trials(rows=300))
    settings = ["model.width=8", "model.layers=1", "model.epochs=2", "model.batch_size=64"]
    values = with_settings(read("zdc-zero_response"), settings)
    values["data"]["files"] = [str(tmp_path / "made.h5")]
    train(parse(values), tmp_path / "run")
    card = Run(tmp_path / "run").card()
    assert (card.kind, card.type, card.detector) == ("classifier", "zero_response", "zn")
    assert card.data[0].rows == {"train": 210, "validation": 30, "test": 60}
    assert card.domain["rows"] == 210
    _, model = load_classifier(tmp_path / "run")
    p = probabilities(model, made_trials(rows=300))
    assert p.shape == (300, 3)
    with pytest.raises(ValueError, match="zdc-zero_response is a classifier"):
        load_model(tmp_path / "run")
    train(parse(values), tmp_path / "again")
    np.testing.assert_array_equal(
        probabilities(load_classifier(tmp_path / "again")[1], made_trials(rows=300)), p
    )


def test_a_section_of_the_recipe_is_checked():
    values = with_settings(read("zdc-zero_response"), ["model.widht=8"])
    with pytest.raises(ValueError, match=r"unknown key 'model.widht', did you mean 'width'"):
        build(parse(values))


def test_the_weights_that_ship_are_calibrated_on_particles_they_have_not_seen():
    """Thresholds are those of the log, with room: 22,443 test primaries, all particles together."""
    trials = open_trials(sample(TRIALS))
    test = trials.slices(np.flatnonzero(trials.fold < 2))
    _, model = load_classifier(weights()["zdc-zero_response"])
    scores = scores_of(test, probabilities(model, test).astype(np.float64), model.outcomes)
    for name, auc in (("zn", 0.97), ("zp", 0.95), ("any", 0.97)):
        found = scores[name]
        assert abs(found.all.predicted - found.all.observed) < 5 * found.all.error
        assert found.repeated.brier < 1.6 * found.repeated.floor
        assert found.auc > auc


def test_the_coincidence():
    np.testing.assert_array_equal(with_both(np.array([[3, 2, 4], [1, 0, 1]])), [[3, 2, 4, 1], [1, 0, 1, 0]])
