import numpy as np
import pytest
import torch

from caloforge.detectors import DS2, DS3
from caloforge.evaluation import classifier
from caloforge.evaluation.classifier import (
    SUITES,
    ClassifierConfig,
    Conv,
    ConvConfig,
    Dense,
    DenseConfig,
    Part,
    auc_of,
    classifier_scores,
    classify,
    inputs_of,
    judge,
    suite,
    weight_histograms,
)
from caloforge.io.stored import StoredRows
from caloforge.metrics import observe_showers
from made_showers import made_showers

TINY = ClassifierConfig(
    dense=DenseConfig(width=16, hidden=1), conv=ConvConfig(channels=(4, 4)), epochs=4, batch_size=64,
    learning_rate=3e-3, standardize=True, seeds=2,
)  # fmt: skip


def points(shift, rows=400):
    a, b = np.random.default_rng(0).normal(size=(2, rows, 3)).astype(np.float32)
    return a, b + np.float32([shift, 0, 0])


@pytest.mark.parametrize(
    ("truth", "generated", "wanted"),
    [
        ([3, 4], [1, 2], 1.0),
        ([1], [2, 3], 0.0),
        ([1, 3], [2], 0.5),
        ([1, 1], [1], 0.5),
        ([2, 3], [2, 1], 0.875),
    ],
)
def test_auc_by_hand(truth, generated, wanted):
    assert auc_of(np.array(truth, float), np.array(generated, float)) == pytest.approx(wanted)


def test_auc_agrees_with_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 20, 70).astype(float), rng.integers(0, 15, 50).astype(float)
    pairs = (a[:, None] > b).mean() + (a[:, None] == b).mean() / 2
    assert auc_of(a, b) == pytest.approx(pairs)


def test_calibration_and_divergence_by_hand():
    # scores 0.2 and 0.8 whose true shares are 1/4 and 3/4
    scores = np.array([0.2] * 4 + [0.8] * 4)
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0.0])
    verdict = judge(scores, labels, scores, labels)
    # of 16 pairs 9 have 3/4 against 1/4, 6 are ties and one is the wrong way round
    assert verdict.auc == pytest.approx((9 + 6 / 2) / 16)
    np.testing.assert_allclose(np.sort(verdict.truth), [1 / 3, 3, 3, 3])
    np.testing.assert_allclose(np.sort(verdict.generated), [1 / 3, 1 / 3, 1 / 3, 3])
    assert verdict.jsd == pytest.approx(1 + 0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))


def test_a_perfect_classifier_has_a_divergence_of_one_bit_but_for_what_few_rows_can_know():
    for rows in (10, 1000):
        scores, labels = np.linspace(0, 1, rows), np.repeat([0.0, 1.0], rows // 2)
        verdict = judge(scores, labels, scores, labels)
        assert verdict.auc == 1
        assert verdict.jsd == pytest.approx(1 + np.log2(1 - 1 / rows))


@pytest.mark.parametrize("config", SUITES.values(), ids=SUITES)
def test_named_networks_are_those_of_the_definition(config):
    with torch.device("meta"):
        network = Dense(6481, config.dense)
    widths = [
        (layer.in_features, layer.out_features)
        for layer in network.layers
        if isinstance(layer, torch.nn.Linear)
    ]
    width = config.dense.width
    assert widths == [(6481, width), *[(width, width)] * config.dense.hidden, (width, 1)]


def test_the_settings_of_the_challenge():
    full = suite("full")
    assert (full.dense.width, full.dense.hidden, full.epochs, full.batch_size) == (2048, 2, 50, 1000)
    assert (full.learning_rate, full.parts, full.seeds) == (2e-4, (0.6, 0.2, 0.2), 5)
    with pytest.raises(ValueError, match="no classifiers 'ful', did you mean 'full'"):
        suite("ful")


def test_inputs_by_hand():
    events = made_showers(rows=5)
    low, high, conv = (inputs_of(events, view) for view in ("low", "high", "conv"))
    np.testing.assert_allclose(low[:, 0], np.log10(events.conditions[:, 0]), rtol=1e-6)
    voxels = events.responses.reshape(5, -1).astype(float)
    voxels[voxels < DS2.threshold] = 0
    np.testing.assert_allclose(low[:, 1:], voxels / events.conditions, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(conv[:, 1:], np.log1p(voxels / DS2.threshold), rtol=1e-5)
    np.testing.assert_allclose(high, observe_showers(events).features, rtol=1e-5, atol=1e-6)


def test_equal_sets_are_not_told_apart_and_others_are():
    equal = classify(*points(0), "high", DS2, TINY, seed=1)
    assert 0.35 < equal.auc < 0.65
    assert equal.jsd < 0.1  # below 0: calibrated on few rows, worse than knowing nothing
    different = classify(*points(3), "high", DS2, TINY, seed=1)
    assert different.auc > 0.93
    assert different.jsd > 0.4
    # Bayes: d' = 3 gives an area of Phi(3 / sqrt 2) = 0.983
    assert different.auc < 1
    assert np.median(different.truth) > 1 > np.median(different.generated)


def test_a_verdict_depends_on_the_seed_only():
    one, again, other = (classify(*points(1), "high", DS2, TINY, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.truth, again.truth)
    assert one.auc == again.auc != other.auc


def test_the_residual_network_closes_the_angle():
    torch.manual_seed(0)
    network = Conv((6, 4, 3), ConvConfig(channels=(4,))).eval()
    voxels = torch.rand(2, 6, 4, 3)
    energy = torch.ones(2, 1)

    def score(x):
        return network(torch.cat([energy, x.reshape(2, -1)], 1))

    torch.testing.assert_close(score(voxels), score(voxels.roll(1, 2)))
    assert not torch.allclose(score(voxels), score(voxels.roll(1, 1)))


def test_every_parameter_of_the_residual_network_gets_a_gradient():
    network = Conv(DS3.shape, ConvConfig(channels=(2, 4)))
    network(torch.rand(2, 1 + DS3.cells)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_weights_beyond_the_edges_are_counted_at_the_ends():
    scores, labels = np.linspace(0, 1, 1000), np.repeat([0.0, 1.0], 500)
    verdict = judge(scores, labels, scores[[0, -1]], labels[[0, -1]])
    histograms = weight_histograms([verdict])
    assert (sum(histograms["truth"]), histograms["truth"][-1]) == (1, 1)
    assert (sum(histograms["generated"]), histograms["generated"][0]) == (1, 1)


def test_scores_of_every_view_with_floor_and_control():
    reference = made_showers(rows=40)
    generated = made_showers(rows=30, seed=1)
    config = TINY.model_copy(update={"views": ("low", "high", "conv"), "epochs": 1})
    found = classifier_scores(reference, generated, config)
    assert set(found["metrics"]) == {f"{name}_{view}" for name in ("auc", "jsd") for view in config.views}
    for entry in found["metrics"].values():
        assert len(entry["values"]) == 2
        assert entry["floor"]["splits"] == entry["control"]["splits"] == 2
    assert set(found["weights"]) == set(config.views)


def test_too_few_showers_and_ragged_ones_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least two showers in each part, got 4 and 4"):
        classify(*points(0, rows=4), "high", DS2, TINY)


@pytest.mark.parametrize("view", ["low", "conv"])
def test_inputs_in_a_file_give_the_same_verdict(view, monkeypatch, tmp_path):
    sets = made_showers(rows=40), made_showers(rows=30, seed=1)
    config = TINY.model_copy(update={"epochs": 2, "batch_size": 8, "standardize": False})
    in_memory = classify(*(inputs_of(events, view) for events in sets), view, DS2, config, seed=3)
    monkeypatch.setattr(classifier, "IN_MEMORY", 0)
    stored = [inputs_of(events, view, tmp_path) for events in sets]
    assert all(isinstance(inputs, StoredRows) for inputs in stored)
    verdict = classify(*stored, view, DS2, config, seed=3)
    np.testing.assert_array_equal(verdict.truth, in_memory.truth)
    np.testing.assert_array_equal(verdict.generated, in_memory.generated)


def test_moments_of_a_part_in_a_file(monkeypatch):
    a, b = points(2, rows=70)
    part = Part(a, b)
    monkeypatch.setattr(classifier, "IN_MEMORY", 0)
    streamed = Part(a, b)
    for ours, theirs in zip(streamed.moments(32), part.moments(32), strict=True):
        torch.testing.assert_close(ours, theirs)
    index = torch.tensor([139, 0, 70, 69, 70])
    torch.testing.assert_close(streamed[index], part[index])
