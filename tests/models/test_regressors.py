import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from caloforge.detectors import ZN, ZP
from caloforge.events import Events
from caloforge.models import regressors
from caloforge.models.base import BatchRandom
from caloforge.models.parts.inference import generate_in_memory

SMALL = {
    regressors.Linear: {},
    regressors.NearestNeighbours: {"most": 6},
    regressors.DecisionTree: {"candidates": 3},
    regressors.GradientBoosting: {"candidates": 2, "trees": (5, 10)},
    regressors.ChannelMLP: {"width": 8, "layers": 2},
}


def toy(rows: int = 160, detector=ZN) -> Events:
    """Neutrons whose light grows with energy and moves with px, two rows a particle."""
    rng = np.random.default_rng(5)
    particle = np.arange(rows) // 2
    momentum = rng.normal(size=(rows // 2, 3)) * [0.3, 0.3, 0] + [0, 0, 1]
    momentum[:, 2] = rng.uniform(100, 3000, rows // 2) * rng.choice([-1, 1], rows // 2)
    mass = np.full(rows // 2, 0.9396)
    energy = np.sqrt((momentum**2).sum(1) + mass**2) * 1.0001
    vertex = rng.normal(size=(rows // 2, 3)) * 0.01
    conditions = np.column_stack([energy, vertex, momentum, mass, 0 * mass]).astype(np.float32)[particle]
    responses = np.zeros((rows, *detector.shape), np.uint16)
    x = np.clip(22 + 20 * conditions[:, 4], 2, detector.shape[0] - 3).astype(int)
    responses[np.arange(rows), x, 10] = rng.poisson(0.1 * conditions[:, 0])
    responses[np.arange(rows), x, 11] = rng.poisson(0.1 * conditions[:, 0])
    return Events(detector, conditions, np.full(rows, 2112), particle, responses=responses)


def fitted(model_class, detector=ZN):
    torch.manual_seed(0)
    model = model_class(detector, model_class.config_class(**SMALL[model_class]))
    return model, model.stages(toy(detector=detector))


def standardised(model, events):
    return model.standardize(torch.from_numpy(events.conditions)).numpy()


@pytest.mark.parametrize("model_class", SMALL, ids=lambda c: c.__name__)
def test_sums_are_the_same_in_any_batch_after_saving_and_for_any_noise(model_class):
    events = toy()
    model, _ = fitted(model_class)
    sums = generate_in_memory(model, events.conditions, seed=1)
    assert sums.shape == (len(events), 5)
    assert sums.dtype == np.float32
    assert (sums >= 0).all()
    assert np.array_equal(sums, generate_in_memory(model, events.conditions, seed=2))
    np.testing.assert_allclose(
        sums, generate_in_memory(model, events.conditions, 1, batch_size=7), 1e-5, 1e-5
    )
    restored = model_class(ZN, model.config)
    restored.load_state_dict(model.state_dict())
    assert np.array_equal(sums, generate_in_memory(restored, events.conditions, seed=1))


@pytest.mark.parametrize("model_class", SMALL, ids=lambda c: c.__name__)
def test_the_channel_map_is_the_one_asked_for(model_class):
    with pytest.raises(ValueError, match="zp has no channel map 'layers'"):
        model_class(ZP, model_class.config_class(channels="layers"))
    model = model_class(ZP, model_class.config_class(channels="o2", **SMALL[model_class]))
    model.stages(toy(detector=ZP))
    assert model.channels == "o2"
    assert generate_in_memory(model, toy(detector=ZP).conditions[:3], seed=0).shape == (3, 5)


def test_linear_equals_scikit_learn():
    events = toy()
    model, _ = fitted(regressors.Linear)
    features = standardised(model, events).astype(np.float64)
    reference = LinearRegression().fit(features, np.log1p(ZN.readout(events.responses)))
    expected = np.maximum(np.expm1(reference.predict(features)), 0)
    np.testing.assert_allclose(generate_in_memory(model, events.conditions, 0), expected, 1e-4, 1e-4)


def test_neighbours_equal_scikit_learn_channel_by_channel():
    events = toy()
    model, _ = fitted(regressors.NearestNeighbours)
    asked = toy(rows=120)
    features, targets = standardised(model, events), np.log1p(ZN.readout(events.responses))
    sums = generate_in_memory(model, asked.conditions, 0)
    for channel, k in enumerate(model.neighbours.tolist()):
        assert 3 <= k <= 6
        reference = KNeighborsRegressor(k).fit(features, targets[:, channel])
        expected = np.expm1(reference.predict(standardised(model, asked)))
        # two rows a particle: where the k-th neighbour is one of two equal ones, either will do
        agree = np.isclose(sums[:, channel], expected, 1e-4, 1e-4)
        assert agree.all() if k % 2 == 0 else agree.mean() > 0.2


@pytest.mark.parametrize("settings", [{"max_depth": 5}, {"min_samples_leaf": 3}, {"max_depth": 1}], ids=str)
def test_stored_trees_equal_scikit_learn(settings):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 9)).astype(np.float32)
    targets = np.sin(features[:, :2] * 3) + rng.normal(size=(300, 2)) * 0.1
    estimators = [DecisionTreeRegressor(random_state=0, **settings).fit(features, t) for t in targets.T]
    trees = regressors._no_trees()
    trees.put(
        **regressors._pack([regressors._Forest(0.0, [regressors._nodes_of_tree(e)]) for e in estimators])
    )
    asked = rng.normal(size=(500, 9)).astype(np.float32)
    expected = np.stack([estimator.predict(asked) for estimator in estimators], 1)
    np.testing.assert_allclose(regressors.evaluate_trees(trees, torch.from_numpy(asked)), expected, 0, 1e-12)


def test_stored_boosting_equals_scikit_learn():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 9)).astype(np.float32)
    targets = np.sin(features[:, :2] * 3) + rng.normal(size=(400, 2)) * 0.1
    estimators = [
        HistGradientBoostingRegressor(max_iter=trees, max_depth=4, max_leaf_nodes=None, random_state=0).fit(
            features, target
        )
        for trees, target in zip((7, 12), targets.T, strict=True)
    ]
    trees = regressors._no_trees()
    trees.put(**regressors._pack([regressors._forest_of_boosting(estimator) for estimator in estimators]))
    assert len(trees["root"]) == 19
    asked = rng.normal(size=(500, 9)).astype(np.float32)
    expected = np.stack([estimator.predict(asked) for estimator in estimators], 1)
    np.testing.assert_allclose(regressors.evaluate_trees(trees, torch.from_numpy(asked)), expected, 0, 1e-12)


def test_settings_are_compared_on_particles_that_are_not_fitted():
    events = toy()
    training = regressors._training(
        events, "paper", regressors.Linear(ZN, regressors.LinearConfig()).standardize
    )
    assert training.held.sum() == 2 * round(80 / 8)
    assert not set(events.group[training.held]) & set(events.group[~training.held])


def test_the_best_candidate_is_chosen_by_the_distance_of_its_channel():
    training = regressors._training(
        toy(), "paper", regressors.Linear(ZN, regressors.LinearConfig()).standardize
    )
    truth = training.targets[training.held]

    def fit(shift, rows, channel):
        assert len(rows.features) == 140
        return lambda features: truth[:, channel] + shift

    assert regressors._best([0.5, -0.1, 0.2], training, 4, fit) == -0.1


def test_too_few_events_are_refused():
    model = regressors.NearestNeighbours(ZN, regressors.NearestNeighboursConfig())
    with pytest.raises(ValueError, match="25 neighbours need as many training events, got 18"):
        model.stages(toy(rows=20))
    tree = regressors.DecisionTree(ZN, regressors.DecisionTreeConfig())
    with pytest.raises(
        ValueError, match="choosing settings needs training events of some ten particles, got 4"
    ):
        tree.stages(toy(rows=4))


def test_the_network_learns_and_reaches_every_parameter():
    events = toy()
    model, (stage,) = fitted(regressors.ChannelMLP)
    before = stage.validate(events)
    assert set(before) == {"score", "w1", "mae"}
    rng = np.random.default_rng(0)
    for step in range(100):
        batch = events.slices(rng.permutation(len(events))[:64])
        stage.step(batch, BatchRandom(step, slice(0, 64), 64), torch.Tensor.backward)
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.network.parameters())
    assert stage.validate(events)["mae"] < 0.8 * before["mae"]
    assert stage.validate(events) == stage.validate(events)
