import numpy as np
import pytest
import torch

from caloforge.detectors import DS2, DS3
from caloforge.evaluation import classifier
from caloforge.evaluation.classifier import (
    ROWS,
    SUITES,
    BasicBlock,
    ClassifierConfig,
    Dense,
    DenseConfig,
    Part,
    ResNet,
    ResNetConfig,
    auc_of,
    classifier_scores,
    classify,
    inputs_of,
    judge,
    parts_of,
    suite,
    views_of,
    weight_histograms,
)
from caloforge.io.stored import StoredRows
from caloforge.metrics import observe_showers
from caloforge.metrics.showers import CLASSIFIER_METRICS
from made_showers import ds1, made_flat_showers, made_showers, made_showers_with_angles

TINY = ClassifierConfig(
    dense=DenseConfig(width=16, hidden=1), resnet=ResNetConfig(channels=(2, 2, 2, 3)), epochs=4, batch_size=64,
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
    challenge, full = suite("challenge"), suite("full")
    assert (challenge.dense.width, challenge.dense.hidden, challenge.epochs, challenge.batch_size) == (
        2048, 2, 50, 1000,
    )  # fmt: skip
    assert (challenge.learning_rate, challenge.parts, challenge.clip) == (2e-4, "challenge", 1e-6)
    assert (challenge.choose, challenge.precision, challenge.standardize) == ("accuracy", "float64", False)
    assert full == challenge.model_copy(update={"precision": "float32", "seeds": 5})
    assert suite("paper").parts == (0.7, 0.1, 0.2)
    with pytest.raises(ValueError, match="no classifiers 'ful', did you mean 'full'"):
        suite("ful")


def test_rows_of_the_challenge_and_their_shares_of_smaller_sets(tmp_path):
    challenge, photons = suite("challenge"), ds1(tmp_path, "photon")
    assert parts_of(challenge, DS2, 100_000) == parts_of(challenge, DS3, 150_000) == (60_000, 20_000, 20_000)
    assert parts_of(challenge, photons, 121_000) == (80_000, 20_000, 21_000) == ROWS["ds1-photons"]
    assert parts_of(challenge, photons, 120_999) == (79_999, 20_000, 21_000)
    assert parts_of(challenge, DS2, 1_000) == (600, 200, 200)
    assert parts_of(suite("paper"), DS2, 1_000) == (700, 100, 200)
    assert views_of(challenge, photons) == ("low", "low-normed", "high")
    assert "resnet" in views_of(challenge, DS3)


def test_inputs_by_hand(tmp_path):
    for detector in (DS2, ds1(tmp_path, "pion")):
        events = made_showers(rows=5) if detector is DS2 else made_flat_showers(detector, rows=5)
        low, normed, high = (inputs_of(events, view) for view in ("low", "low-normed", "high"))
        np.testing.assert_allclose(low[:, 0], np.log10(events.conditions[:, 0]), rtol=1e-6)
        uncut = events.responses.reshape(5, -1).astype(float)
        voxels = np.where(uncut < detector.threshold, 0, uncut)
        np.testing.assert_allclose(low[:, 1:], voxels / events.conditions, rtol=1e-5, atol=1e-9)
        start, layers = 0, []
        for layer in detector.layers:
            here = slice(start, start + layer.cells)
            layers.append(voxels[:, here].sum(1))
            wanted = uncut[:, here] / (layers[-1][:, None] + 1e-16)
            np.testing.assert_allclose(normed[:, 1:][:, here], wanted, rtol=1e-5, atol=1e-9)
            start += layer.cells
        np.testing.assert_array_equal(normed[:, 0], low[:, 0])
        np.testing.assert_allclose(normed[:, 1 + start :], np.log10(np.stack(layers, 1) + 1e-8), rtol=1e-5)
        np.testing.assert_allclose(high, observe_showers(events).features, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        inputs_of(made_showers(rows=3), "resnet"), inputs_of(made_showers(rows=3), "low")
    )


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


def test_the_residual_network_has_the_challenges_layers():
    with torch.device("meta"):
        network = ResNet(DS2.shape, ResNetConfig())
    stem = 7**3 * 32 + 2 * 32
    stages = 2 * (2 * 27 * 32 * 32 + 4 * 32)
    for before, after in ((32, 64), (64, 64), (64, 128)):
        stages += 27 * before * after + 3 * 27 * after * after + 8 * after
        stages += before * after + 2 * after
    assert sum(parameter.numel() for parameter in network.parameters()) == stem + stages + 2 + 129 + 1
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock)]
    strides = [block.path[0].stride[0] for block in blocks]
    assert strides == [1, 1, 2, 1, 2, 1, 2, 1]
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv3d)]
    assert all(convolution.bias is None for convolution in convolutions)


def test_weights_of_convolutions_are_kaimings():
    torch.manual_seed(0)
    (weight, *_) = (
        module.weight
        for module in ResNet(DS2.shape, ResNetConfig()).modules()
        if isinstance(module, torch.nn.Conv3d)
    )
    assert float(weight.detach().std()) == pytest.approx((2 / (32 * 7**3)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("detector", [DS2, DS3], ids=["ds2", "ds3"])
def test_every_parameter_of_the_residual_network_gets_a_gradient(detector):
    torch.manual_seed(0)
    network = ResNet(detector.shape, ResNetConfig(channels=(2, 2, 3, 4)))
    network(torch.rand(5, 1 + detector.cells)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(
        parameter.grad.any() for name, parameter in network.named_parameters() if "energy.bias" not in name
    )


def test_the_first_epoch_of_the_best_accuracy_counts_and_training_ends_where_all_is_right():
    apart = [values * np.float32(0.01) + shift for values, shift in zip(points(0), (-9, 9), strict=True)]
    config = TINY.model_copy(update={"choose": "accuracy", "standardize": False, "epochs": 12})
    ends = classify(*apart, "high", DS2, config, seed=1)
    assert ends.auc_raw == 1
    longer = classify(*apart, "high", DS2, config.model_copy(update={"epochs": 24}), seed=1)
    assert ends.jsd_raw == longer.jsd_raw
    by_loss = classify(*apart, "high", DS2, config.model_copy(update={"choose": "loss"}), seed=1)
    assert by_loss.jsd_raw > ends.jsd_raw


def test_raw_results_are_of_what_the_network_says():
    logits, labels = np.array([-1.0, 0.5, 2.0, 800.0, -900.0]), np.array([0.0, 1, 1, 1, 0])
    verdict = judge(logits, labels, logits[:4], labels[:4], clip=1e-6)
    right = np.log2([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-2)), 1])
    assert verdict.jsd_raw == pytest.approx(1 + (right[0] + right[1:].mean()) / 2)
    assert verdict.auc_raw == verdict.auc == 1
    assert verdict.jsd == pytest.approx(1 + np.log2(1 - 1e-6))
    wrong = judge(logits, labels, np.array([3.0, -1000.0]), np.array([0.0, 1.0]), clip=1e-6)
    assert wrong.auc_raw == 0
    assert wrong.jsd_raw == pytest.approx(1 - (1000 / np.log(2) + np.log2(1 + np.exp(3))) / 2)
    assert wrong.jsd == pytest.approx(1 + np.log2(1e-6))


@pytest.mark.parametrize("view", ["high", "resnet"])
def test_double_precision_sees_what_single_precision_sees(view):
    sets = [inputs_of(made_showers(rows=40, seed=seed), view) for seed in (0, 1)]
    config = TINY.model_copy(update={"epochs": 1, "batch_size": 16})
    single = classify(*sets, view, DS2, config, seed=1)
    double = classify(*sets, view, DS2, config.model_copy(update={"precision": "float64"}), seed=1)
    assert single.jsd_raw != double.jsd_raw
    assert single.jsd_raw == pytest.approx(double.jsd_raw, abs=1e-3)


def test_weights_beyond_the_edges_are_counted_at_the_ends():
    scores, labels = np.linspace(0, 1, 1000), np.repeat([0.0, 1.0], 500)
    verdict = judge(scores, labels, scores[[0, -1]], labels[[0, -1]])
    histograms = weight_histograms([verdict])
    assert (sum(histograms["truth"]), histograms["truth"][-1]) == (1, 1)
    assert (sum(histograms["generated"]), histograms["generated"][0]) == (1, 1)


def test_scores_of_every_view_with_floor_and_control():
    reference = made_showers(rows=40)
    generated = made_showers(rows=30, seed=1)
    config = TINY.model_copy(update={"views": ("low", "resnet", "high", "low-normed"), "epochs": 1})
    found = classifier_scores(reference, generated, config)
    names = [f"{name}_{view}" for view in config.views for name in ("auc", "jsd", "auc_raw", "jsd_raw")]
    assert list(found["metrics"]) == names
    assert set(names) <= set(CLASSIFIER_METRICS)
    assert found["note"] == ""
    for entry in found["metrics"].values():
        assert len(entry["values"]) == 2
        assert entry["floor"]["splits"] == entry["control"]["splits"] == 2
    assert set(found["weights"]) == set(config.views)


def test_scores_say_where_the_challenge_has_more_rows():
    config = TINY.model_copy(update={"views": ("high",), "epochs": 1, "parts": "challenge", "seeds": 1})
    found = classifier_scores(made_showers(rows=40), made_showers(rows=30, seed=1), config, beside=False)
    assert "classifiers: 18 / 6 / 6 training, validation and test rows" in found["note"]
    assert "the challenge 60,000 / 20,000 / 20,000" in found["note"]


def test_too_few_showers_and_ragged_ones_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least two showers in each part, got 4 and 4"):
        classify(*points(0, rows=4), "high", DS2, TINY)
    ragged = made_flat_showers(ds1(tmp_path, "photon"), rows=4)
    with pytest.raises(ValueError, match=r"needs three axes, .* has 1: leave resnet out"):
        inputs_of(ragged, "resnet")


@pytest.mark.parametrize("view", ["low", "low-normed", "resnet"])
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


@pytest.mark.parametrize(("view", "more"), [("high", 2), ("low", 2), ("low-normed", 2), ("resnet", 0)])
def test_dense_classifiers_see_the_direction(view, more):
    plain, turned = made_showers(rows=4), made_showers_with_angles(rows=4)
    assert inputs_of(turned, view).shape[1] == inputs_of(plain, view).shape[1] + more


def test_training_ends_when_nothing_gets_better(monkeypatch):
    passes, logits = [], classifier.Fitted.logits
    monkeypatch.setattr(
        classifier.Fitted, "logits", lambda self, part: passes.append(len(part)) or logits(self, part)
    )
    parts = [classifier.Part(*points(0, rows=50)) for _ in range(2)]
    config = TINY.model_copy(update={"epochs": 40, "learning_rate": 1.0})
    for patience, fewest, most in ((None, 40, 40), (40, 40, 40), (2, 3, 20)):
        passes.clear()
        classifier.fit(*parts, "high", DS2, config.model_copy(update={"patience": patience}))
        assert fewest <= len(passes) <= most
