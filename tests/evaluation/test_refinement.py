import dataclasses

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge import cli
from caloforge.detectors import DS2, ZN
from caloforge.evaluation import classifier
from caloforge.evaluation.classifier import ClassifierConfig, DenseConfig, inputs_of
from caloforge.evaluation.refinement import RefinementConfig, _folds, refine, weigh_events
from caloforge.evaluation.scoring import evaluate_events
from caloforge.events import Events
from caloforge.io import create, open_events, provenance
from caloforge.metrics import effective_size
from made import made_events
from made_showers import made_showers

SMALL = RefinementConfig(
    classifier=ClassifierConfig(
        dense=DenseConfig(width=16, hidden=1),
        epochs=3,
        batch_size=64,
        learning_rate=5e-3,
        standardize=True,
    ),
    folds=3,
)


def events(seed, rows=60, repeats=4, factor=1.0) -> Events:
    made = made_events(particles=rows, repeats=repeats, seed=seed)
    return dataclasses.replace(made, responses=np.rint(made.responses * factor).astype(np.uint16))


@pytest.fixture(scope="module")
def truth():
    return events(0)


@pytest.fixture(scope="module")
def brighter(truth):
    """Half of the responses are the simulation's, the other half is twice as bright."""
    responses = truth.responses.copy()
    responses[::2] *= 2
    return dataclasses.replace(truth, responses=responses)


@pytest.fixture(scope="module")
def plain(truth, brighter):
    return refine(brighter, truth, config=SMALL)


def longer(epochs):
    return SMALL.model_copy(update={"classifier": SMALL.classifier.model_copy(update={"epochs": epochs})})


def test_weights_bring_a_set_of_two_kinds_back(truth, brighter):
    config = longer(12)
    refined = refine(brighter, truth, config=config)
    weight, total = refined.weight, brighter.responses.sum((1, 2))
    wanted, before = truth.responses.sum((1, 2)).mean(), total.mean()
    assert refined.auc > 0.6
    assert abs(np.average(total, weights=weight) - wanted) < 0.5 * abs(before - wanted)
    assert refined.effective == effective_size(weight) < len(brighter)


@pytest.mark.parametrize("view", ["high", "low"])
def test_no_row_is_weighed_by_what_learned_from_it(truth, brighter, view):
    config = SMALL.model_copy(update={"view": view, "conditional": False})
    before = refine(brighter, truth, config=config).factor
    changed = brighter.responses.copy()
    row = 7
    changed[brighter.group == brighter.group[row]] = 3
    after = refine(dataclasses.replace(brighter, responses=changed), truth, config=config).factor
    _, fold = _folds(truth, brighter, config.folds, 0)
    same = (fold == fold[row]) & (brighter.group != brighter.group[row])
    np.testing.assert_array_equal(after[same], before[same])
    assert (after[fold != fold[row]] != before[fold != fold[row]]).any()


def test_particles_are_not_shared_between_folds(truth):
    other = events(0, repeats=2)
    fold, fold_of_others = _folds(truth, other, 5, 0)
    for number in range(5):
        inside = {row.tobytes() for row in truth.conditions[fold == number]}
        outside = {row.tobytes() for row in other.conditions[fold_of_others != number]}
        assert not inside & outside
    assert set(fold) == set(range(5))


def test_rows_that_are_not_learned_from_change_no_weight(truth, brighter):
    rows = np.flatnonzero(truth.fold >= 2)
    before = refine(brighter, truth, rows=rows, config=SMALL).factor
    responses = truth.responses.copy()
    responses[truth.fold < 2] = 1
    after = refine(brighter, dataclasses.replace(truth, responses=responses), rows=rows, config=SMALL).factor
    np.testing.assert_array_equal(after, before)


def test_weights_are_clipped_and_repeat(truth, brighter, plain):
    config = SMALL.model_copy(update={"clip": 1.2})
    factor = refine(brighter, truth, config=config).factor
    assert factor.min() >= 1 / 1.2
    assert factor.max() <= 1.2
    np.testing.assert_array_equal(plain.factor, refine(brighter, truth, config=SMALL).factor)


def test_other_events_get_the_mean_of_all_and_keep_their_weights(truth, brighter):
    others = dataclasses.replace(events(1), weight=np.arange(240) + 1.0)
    refined = refine(others, truth, brighter, config=SMALL)
    np.testing.assert_allclose(refined.weight, others.weight * refined.factor)


@pytest.mark.slow
def test_the_mean_weight_of_like_particles_is_1():
    truth, other = events(0, 400, 2), events(1, 400, 2, factor=1.3)
    other = dataclasses.replace(other, conditions=truth.conditions, pdg=truth.pdg, group=truth.group)
    factor = refine(other, truth, config=SMALL.model_copy(update={"folds": 5})).factor
    order = np.argsort(truth.feature("energy"))
    for half in np.array_split(order, 2):
        assert factor[half].mean() == pytest.approx(1, abs=3 * factor.std() / len(half) ** 0.5)


def test_showers_are_weighed_too():
    truth, other = made_showers(rows=110, seed=0), made_showers(rows=110, seed=1)
    other = dataclasses.replace(other, responses=other.responses * np.float32(3))
    refined = refine(other, truth, config=longer(20))
    assert (refined.factor > 0).all()
    assert refined.auc > 0.7


def test_too_few_events_and_other_detectors_are_refused(truth):
    with pytest.raises(
        ValueError, match="100 simulated and as many generated events at least, got 240 and 48"
    ):
        refine(events(1, 12), truth, config=SMALL)
    with pytest.raises(ValueError, match="events of one detector, got ds2, zn"):
        refine(made_showers(), truth, config=SMALL)


def test_inputs_of_images_know_particle_and_response(truth):
    high, low = inputs_of(truth, "high"), inputs_of(truth, "low")
    assert len(high) == len(low) == len(truth)
    assert np.isfinite(high).all()
    assert low.shape[1] - ZN.cells < high.shape[1]
    dark = dataclasses.replace(truth, responses=np.zeros_like(truth.responses))
    assert np.isfinite(inputs_of(dark, "high")).all()
    with pytest.raises(ValueError, match="resnet needs a detector of layers, and zn has none"):
        inputs_of(truth, "resnet")


def write(path, events, origin=None):
    with create(path, events.detector, origin or {}) as writer:
        writer.append(events, {"in_domain": np.ones(len(events), bool)})
    return path


def test_files_are_weighed_and_judged_by_other_rows(tmp_path, truth, brighter):
    origin = {"run": "m", "split": "canonical", "split_seed": 0, "particles": []}
    reference = write(tmp_path / "truth.h5", truth)
    generated = write(tmp_path / "generated.h5", brighter, origin)
    refined = weigh_events(generated, tmp_path / "weighed.h5", reference, config=SMALL)
    weighed = open_events(tmp_path / "weighed.h5")
    np.testing.assert_array_equal(weighed.primaries.weight, refined.weight)
    told = provenance(tmp_path / "weighed.h5")
    assert told["run"] == "m"
    assert told["weighed"]["rows"] == "not test"
    assert told["weighed"]["effective"] == pytest.approx(refined.effective)
    assert refined.learned == (truth.fold >= 2).sum()
    before, after = (
        evaluate_events(path, [reference]).sets["truth"].all for path in (generated, tmp_path / "weighed.h5")
    )
    assert before.effective is None
    test = refined.weight[truth.fold < 2]
    assert after.effective == pytest.approx(effective_size(test))
    assert after.metrics["w1"].mean != before.metrics["w1"].mean


def test_weights_learned_from_every_row_cannot_be_judged_by_them(tmp_path, truth, brighter):
    reference, generated = write(tmp_path / "truth.h5", truth), write(tmp_path / "generated.h5", brighter)
    weigh_events(generated, tmp_path / "weighed.h5", reference, config=SMALL)
    with pytest.raises(ValueError, match="were learned from the reference"):
        evaluate_events(tmp_path / "weighed.h5", [reference])
    with pytest.raises(ValueError, match="is given twice"):
        weigh_events(generated, tmp_path / "again.h5", reference, generated, config=SMALL)


def test_the_command_line_tells_what_weights_are_worth(tmp_path, monkeypatch):
    monkeypatch.setitem(classifier.SUITES, "small", SMALL.classifier)
    reference = write(tmp_path / "truth.h5", made_showers(rows=105, seed=0))
    generated = write(tmp_path / "generated.h5", made_showers(rows=105, seed=1))
    arguments = [
        "weigh",
        str(generated),
        str(tmp_path / "out.h5"),
        "--reference",
        str(reference),
        "--folds",
        "3",
    ]
    result = CliRunner().invoke(cli.app, [*arguments, "--clip", "2"])
    assert result.exit_code == 0, result.output
    assert "105 events are worth" in result.output
    assert open_events(tmp_path / "out.h5").primaries.detector is DS2
    result = CliRunner().invoke(cli.app, [*arguments, "--clip", "0.5"])
    assert "clip: Input should be greater than 1, got 0.5" in str(result.exception)
