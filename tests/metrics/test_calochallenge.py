import itertools
import math

import numpy as np
import pytest
from scipy import linalg

from caloforge.detectors import DS2, ZN, from_xml
from caloforge.events import Events
from caloforge.io import open_events
from caloforge.metrics import SHOWER_METRICS
from caloforge.metrics import calochallenge as challenge
from caloforge.metrics.calochallenge import (
    Sizes,
    Smeared,
    compare,
    cut,
    feature_names,
    fpd,
    fpd_sizes,
    frechet,
    kpd,
    mmd,
    observe_showers,
    prdc,
    score_showers,
    separation,
    spectrum_of,
)
from caloforge.metrics.scores import halves
from caloforge.samples import sample
from made import made_events
from made_showers import made_showers

SMALL = """<Bins><Bin pid="11" name="electron">
<Layer id="0" r_edges="0,2,6" n_bin_alpha="2"/><Layer id="1" r_edges="0,2,6" n_bin_alpha="2"/></Bin></Bins>"""

RAGGED = """<Bins><Bin pid="22" name="photon"><Layer id="0" r_edges="0,1,2" n_bin_alpha="1"/>
<Layer id="3" r_edges="0,5,9,12" n_bin_alpha="4"/><Layer id="12" r_edges="0,4" n_bin_alpha="1"/></Bin></Bins>"""

QUICK = Sizes(fpd_draws=1, kpd_batches=2, prdc_rows=60, splits=3, slow_splits=1)


def detector(tmp_path, text):
    (tmp_path / "binning.xml").write_text(text)
    return from_xml(tmp_path / "binning.xml")


@pytest.fixture(scope="module")
def sets():
    """Simulated showers, others like them, and the first smeared."""
    source = made_showers(rows=120)
    reference = observe_showers(source, sizes=QUICK)
    others = observe_showers(made_showers(rows=120, seed=1), reference.edges, QUICK)
    return reference, others, observe_showers(Smeared(source), reference.edges, QUICK)


# --- features ----------------------------------------------------------------------------------------------


def test_features_by_hand(tmp_path):
    small = detector(tmp_path, SMALL)
    # voxels in storage order: angles -pi/2 and pi/2, radii 1 and 4; layer 0 holds 1 MeV at (phi -1) and 3 MeV at
    # (phi 4), layer 1 holds 2 MeV at (phi 1), and one below the threshold
    voxels = np.array([[[[1, 0], [0, 3]], [[0, 0.001], [2, 0]]]], np.float32)
    events = Events(small, np.array([[100.0]], np.float32), np.array([11]), responses=voxels)
    showers = observe_showers(events)
    np.testing.assert_allclose(showers.layers, [[4, 2]], rtol=1e-7)
    centre_phi, centre_r = (-1 + 12) / 4, (1 + 12) / 4
    np.testing.assert_allclose(
        showers.centres[0], [[0, centre_phi, centre_r], [0, 1, 1]], rtol=1e-7, atol=1e-7
    )
    width_phi = math.sqrt((1 + 3 * 16) / 4 - centre_phi**2)
    width_r = math.sqrt((1 + 3 * 16) / 4 - centre_r**2)
    np.testing.assert_allclose(showers.widths[0], [[0, width_phi, width_r], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(showers.sparsity, [[0.5, 0.75]])
    np.testing.assert_allclose(showers.ratio, [0.06])
    # radius 1 holds 1 MeV in layer 0 and 2 MeV in layer 1, radius 4 holds 3 MeV in layer 0
    np.testing.assert_allclose(showers.depth, [[2 / 3, 0]], rtol=1e-7)
    wanted = [
        2, math.log10(4), math.log10(2), 0, 0, centre_phi / 100, 0.01, 0, 0, width_phi / 100, 0,
        math.log10(6), 0.5, 0.75, centre_r, 1, width_r, 0,
    ]  # fmt: skip
    np.testing.assert_allclose(showers.features[0], wanted, atol=1e-6)
    assert len(feature_names(small)) == len(wanted)
    # 3 MeV is the largest voxel, in the last bin; the one below the threshold and the empty ones are nowhere
    assert showers.spectrum.sum() == 3
    assert showers.spectrum[0, -1] == 1


def by_definition(source, energy, voxels):
    """The features of one shower by the words of the definition, voxel by voxel."""
    layers, sparsity = [], []
    moments = {z: ([], []) for z in ("eta", "phi", "r")}
    place = 0
    for layer in source.layers:
        total, lit = 0.0, 0
        sums = {z: [0.0, 0.0] for z in moments}
        for angle in range(layer.angles):
            alpha = -math.pi + (angle + 0.5) * 2 * math.pi / layer.angles
            for ring in range(layer.radii):
                x = float(voxels[place])
                place += 1
                if x < source.threshold:
                    continue
                r = (layer.edges[ring] + layer.edges[ring + 1]) / 2
                total += x
                lit += x > 0
                for z, value in {"eta": r * math.cos(alpha), "phi": r * math.sin(alpha), "r": r}.items():
                    sums[z][0] += value * x
                    sums[z][1] += value**2 * x
        layers.append(total)
        sparsity.append(1 - lit / layer.cells)
        for z, (first, second) in sums.items():
            mean, square = first / (total + 1e-16), second / (total + 1e-16)
            if layer.angles > 1:
                moments[z][0].append(mean)
                moments[z][1].append(math.sqrt(max(square - mean**2, 0)))
    return [
        math.log10(energy),
        *(math.log10(value + 1e-8) for value in layers),
        *(value / 100 for which in (0, 1) for z in ("eta", "phi") for value in moments[z][which]),
        math.log10(sum(layers) + 1e-8),
        *sparsity,
        *moments["r"][0],
        *moments["r"][1],
    ]


@pytest.mark.parametrize("kind", ["ds2", "ragged"])
def test_features_agree_with_the_definition(kind, tmp_path):
    if kind == "ds2":
        events = made_showers(rows=3)
    else:
        ragged = detector(tmp_path, RAGGED)
        voxels = np.random.default_rng(0).gamma(0.3, 1, (5, ragged.cells)).astype(np.float32)
        voxels[1, :2] = 0
        events = Events(ragged, np.full((5, 1), 512, np.float32), np.full(5, 22), responses=voxels)
    found = observe_showers(events).features
    wanted = [
        by_definition(events.detector, float(energy), shower.ravel())
        for energy, shower in zip(events.conditions[:, 0], events.responses, strict=True)
    ]
    assert found.shape == (len(events), len(feature_names(events.detector)))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_there_are_362_features():
    assert len(feature_names(DS2)) == 362


def test_reading_in_slices_changes_nothing(monkeypatch):
    events = made_showers(rows=7)
    whole = observe_showers(events)
    monkeypatch.setattr("caloforge.events.SLICE_CELLS", 3 * DS2.cells)
    monkeypatch.setattr(challenge, "_BLOCK_CELLS", 2 * DS2.cells)
    parts = observe_showers(events)
    for name in ("features", "spectrum", "depth", "edges", "voxels", "kept"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-12)


def test_selected_rows_keep_their_numbers_and_voxels():
    events = made_showers(rows=9)
    showers = observe_showers(events, sizes=Sizes(prdc_rows=3))
    assert (showers.kept >= 0).sum() == 6
    chosen = showers.select(np.array([7, 2, 5, 0]))
    np.testing.assert_array_equal(chosen.layers, showers.layers[[7, 2, 5, 0]])
    rows = np.array([7, 2, 5, 0])[chosen.kept >= 0]
    wanted = (
        np.log10(np.where(cut(DS2, events.responses[rows]) > 0, cut(DS2, events.responses[rows]), 0.1)) + 1
    )
    np.testing.assert_allclose(chosen.some_voxels(9), wanted, atol=1e-6)


def test_showers_of_other_detectors_are_refused():
    with pytest.raises(ValueError, match="a detector with layers, got 48 events of zn"):
        observe_showers(made_events(ZN))
    empty = made_showers(rows=3)
    empty = Events(DS2, empty.conditions, empty.pdg, responses=np.zeros_like(empty.responses))
    with pytest.raises(ValueError, match=r"no voxel above the threshold of 0\.01515"):
        observe_showers(empty)


# --- separation powers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "others", "wanted"),
    [
        ([1, 1], [4, 0], 0.5 * (0.25 / 1.5 + 0.25 / 0.5)),
        ([3, 0, 1], [0, 2, 0], 1.0),
        ([2, 2, 4], [1, 1, 2], 0.0),
        ([1, 3], [3, 1], 0.5 * (0.25 + 0.25)),
    ],
)
def test_separation_by_hand(counts, others, wanted):
    assert separation(counts, others) == pytest.approx(wanted, abs=1e-12)
    assert separation(others, counts) == pytest.approx(wanted, abs=1e-12)


def test_entries_outside_the_bins_are_dropped_and_the_last_bin_is_closed():
    edges = np.array([1.0, 2.0, 4.0])
    voxels = np.array([[0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 4.1]])
    np.testing.assert_array_equal(spectrum_of(voxels, edges), [[2, 2]])
    wanted, _ = np.histogram(voxels, edges)
    np.testing.assert_array_equal(spectrum_of(voxels, edges)[0], wanted)
    # normalised after dropping: 2 : 2 against 1 : 1
    assert separation(spectrum_of(voxels, edges)[0], [1, 1]) == 0


def test_separations_of_showers_by_their_histograms(sets):
    reference, others, _ = sets
    found = compare(reference, others, slow=False)

    def power(a, b, edges):
        h1, h2 = (np.histogram(x, edges)[0] / np.histogram(x, edges)[0].sum() for x in (a, b))
        return 0.5 * ((h1 - h2) ** 2 / (h1 + h2 + 1e-16)).sum()

    layers = [
        power(a, b, np.geomspace(0.5e-3 / 0.033, a.max() * (1 + 1e-12), 40))
        for a, b in zip(reference.layers.T, others.layers.T, strict=True)
        if a.max() > 0.5e-3 / 0.033
    ]
    wanted = {
        "sep_layers": np.mean(layers),
        "sep_total": power(reference.ratio, others.ratio, np.linspace(0.5, 1.5, 101)),
        "sep_voxels": separation(reference.spectrum.sum(0), others.spectrum.sum(0)),
        "sep_centre_phi": np.mean(
            [
                power(reference.centres[:, k, 1], others.centres[:, k, 1], np.linspace(-30, 30, 101))
                for k in range(45)
            ]
        ),
        "sep_width_r": np.mean(
            [
                power(reference.widths[:, k, 2], others.widths[:, k, 2], np.linspace(0, 20, 101))
                for k in range(45)
            ]
        ),
    }
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name


# --- Frechet and kernel distances --------------------------------------------------------------------------


def test_frechet_of_one_feature_by_hand():
    a, b = np.array([[0.0], [2.0], [4.0]]), np.array([[10.0], [11.0], [12.0]])
    # means 2 and 11, standard deviations 2 and 1
    assert frechet(a, b) == pytest.approx(81 + 1, abs=1e-9)


def test_frechet_agrees_with_the_matrix_root():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(60, 4)) + 0.3
    c1, c2 = np.cov(a.T), np.cov(b.T)
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    assert frechet(a, b) == pytest.approx(wanted, rel=1e-6)


def test_sizes_of_the_frechet_distance():
    sizes = fpd_sizes(100_000)
    assert (len(sizes), sizes[0], sizes[-1]) == (10, 10_000, 50_000)
    np.testing.assert_allclose(np.diff(1 / sizes), (1 / 5e4 - 1 / 1e4) / 9, rtol=1e-2)
    assert fpd_sizes(2000)[[0, -1]].tolist() == [400, 2000]


def test_fpd_takes_the_bias_of_small_samples_away():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4000, 6))
    few = np.mean([frechet(*rng.normal(size=(2, 800, 6))) for _ in range(5)])
    scale = np.abs(a).max() ** 2
    assert abs(fpd(a, b)) < 0.3 * few / scale
    shifted = fpd(a, b + np.array([1.0, 0, 0, 0, 0, 0]))
    assert shifted == pytest.approx(1 / np.abs(a[:, 0]).max() ** 2, rel=0.1)


def test_a_feature_that_is_only_rounding_is_left_as_it_is():
    real = np.array([[2.0, 1e-17], [-4.0, 0.0]])
    ours, theirs = challenge.scaled(real, np.array([[1.0, 0.5]]))
    assert ours.tolist() == [[0.5, 1e-17], [-1.0, 0.0]]
    assert theirs.tolist() == [[0.25, 0.5]]


def test_mmd_agrees_with_its_sums():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / 3 + 1) ** 4

    within = sum(kernel(x, y) for x, y in itertools.permutations(a, 2)) / 20
    others = sum(kernel(x, y) for x, y in itertools.permutations(b, 2)) / 12
    across = sum(kernel(x, y) for x in a for y in b) / 20
    assert mmd(a, b, block=2) == pytest.approx(within + others - 2 * across, rel=1e-9)


def test_kpd_is_nothing_for_equals_and_something_for_others():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2000, 4))
    assert abs(kpd(a, b)) < 0.01 * kpd(a, b + 1)


# --- precision, recall, density, coverage -------------------------------------------------------------------


def test_prdc_by_hand():
    # radii to the nearest other: real 1, 1, 8; generated 0.25, 0.25, 39.5
    real, generated = np.array([[0.0], [1.0], [9.0]]), np.array([[0.25], [0.5], [40.0]])
    found = prdc(real, generated, k=1)
    # 0.25 and 0.5 lie within 1 of both 0 and 1, and 8.75 and 8.5 from 9: not within 8; 40 in none
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx(4 / 3)
    assert found["coverage"] == pytest.approx(2 / 3)
    # 0 is 0.25 from 0.25, not less; 1 is 39 from 40; 9 is 31 from 40
    assert found["recall"] == pytest.approx(2 / 3)


def test_prdc_agrees_with_loops():
    rng = np.random.default_rng(0)
    real, generated, k = rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) * 1.3, 5
    d = np.linalg.norm(real[:, None] - generated, axis=2)
    r = np.sort(np.linalg.norm(real[:, None] - real, axis=2), axis=1)[:, k]
    s = np.sort(np.linalg.norm(generated[:, None] - generated, axis=2), axis=1)[:, k]
    wanted = {
        "precision": (d < r[:, None]).any(0).mean(),
        "recall": (d < s).any(1).mean(),
        "density": (d < r[:, None]).sum() / (k * 30),
        "coverage": (d < r[:, None]).any(1).mean(),
    }
    assert prdc(real, generated, k) == pytest.approx(wanted)


# --- all of them --------------------------------------------------------------------------------------------


def test_every_metric_is_perfect_on_itself(sets):
    reference, _, _ = sets
    found = compare(reference, reference, sizes=QUICK)
    assert set(found) == set(SHOWER_METRICS)
    for name, result in found.items():
        if name.startswith("sep"):
            assert result.value == 0, name
        elif name in ("precision", "recall", "coverage"):
            assert result.value == 1, name
    # rows of a set against the same rows: less than nothing, since the distances are free of bias
    assert found["kpd"].value <= 0
    assert found["density"].value >= 1


@pytest.mark.parametrize("name", [name for name, metric in SHOWER_METRICS.items() if metric.symmetric])
def test_symmetric_metrics_are_symmetric(name, sets):
    reference, others, _ = sets
    there = compare(reference, others, slow=False)[name].value
    assert compare(others, reference, slow=False)[name].value == pytest.approx(there, rel=1e-12)
    assert there > 0


def test_smearing_multiplies_layers_whatever_is_read():
    events = made_showers(rows=6)
    smeared = Smeared(events, 0.05)
    whole = smeared.slices(slice(None))
    np.testing.assert_array_equal(smeared.slices(np.array([4, 1])).responses, whole.responses[[4, 1]])
    factor = DS2.readout(whole.responses) / np.maximum(DS2.readout(events.responses), 1e-9)
    lit = DS2.readout(events.responses) > 1
    assert 0.03 < factor[lit].std() < 0.07
    np.testing.assert_array_equal(whole.responses > 0, events.responses > 0)


def test_scores_hold_floor_control_and_a_note(sets):
    reference, others, control = sets
    scores = score_showers(reference, [others, reference], control, sizes=QUICK)["all"]
    assert scores["n"] == 120
    assert "not comparable with published numbers" in scores["note"]
    assert list(scores["metrics"]) == list(SHOWER_METRICS)
    for name, entry in scores["metrics"].items():
        slow = name in challenge.SLOW
        assert len(entry["values"]) == 2
        for kind in ("floor", "matched_floor", "control"):
            assert entry[kind]["splits"] == (QUICK.slow_splits if slow else QUICK.splits)
            assert np.isfinite(entry[kind]["mean"])
    again = score_showers(reference, [others, reference], control, sizes=QUICK)["all"]
    assert again == scores


def test_too_few_showers_give_reasons():
    few = observe_showers(made_showers(rows=4))
    metrics = score_showers(few, [few], sizes=QUICK)["all"]["metrics"]
    assert metrics["fpd"]["mean"] is None
    assert metrics["fpd"]["reason"] == "fewer than 10 showers"
    assert "more than 5 showers" in metrics["coverage"]["reason"]


def test_other_edges_are_refused(sets):
    reference, _, _ = sets
    with pytest.raises(ValueError, match="must have the reference's edges"):
        compare(reference, observe_showers(made_showers(rows=12, seed=5)))


def test_the_positive_control_is_found_in_real_showers():
    source = open_events(sample("ds2"))
    reference = observe_showers(source, sizes=QUICK)
    smeared = observe_showers(Smeared(source), reference.edges, QUICK)
    splits = [halves(len(source), np.random.default_rng(number)) for number in range(10)]
    floor, control = (
        [compare(reference.select(a), other.select(b), slow=False)["sep_voxels"].value for a, b in splits]
        for other in (reference, smeared)
    )
    # blurs the sharp lines that single particles leave in the spectrum of voxels
    assert np.mean(control) > np.mean(floor) + np.std(floor)
    assert all(blurred > sharp for blurred, sharp in zip(control, floor, strict=True))
