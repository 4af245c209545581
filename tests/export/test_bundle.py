"""Export: bundles that agree with PyTorch, or none."""

import dataclasses
import shutil

import numpy as np
import pytest

from caloforge import load
from caloforge.detectors import ZN
from caloforge.events import split
from caloforge.export import bundle as bundles
from caloforge.export import export
from caloforge.export.onnx import check_exportable
from caloforge.io import create, open_events, open_trials
from caloforge.io.card import DataFile
from caloforge.io.files import read_json, write_json
from caloforge.models import MODELS, READOUTS
from caloforge.models.autoregressive_flow import MAF, MAFConfig
from caloforge.models.parts.inference import generate_in_memory, probabilities_in_memory
from caloforge.models.regressors import Linear, LinearConfig
from caloforge.runtime import Surrogate
from caloforge.runtime.domain import Domain
from caloforge.runtime.hits import responds, uniforms
from caloforge.samples import TRIALS, sample, weights
from caloforge.training.checkpoint import load_classifier, load_model
from made import made_events
from made_run import SMALL, made_run
from made_scores import scores

NETWORKS = [name for name in (*MODELS, *READOUTS) if name in SMALL and name != "nearest"]
TRAINED = {"inverse_autoregressive_flow": "zn-iaf-bs-ch-div"}
"""Weights that ship in place of a small model: untrained, a chain of splines amplifies the last digits."""

FLIPPED = 2e-3
"""Counts that may differ, over the number of lit cells: an untrained network lights whole faces, and 1,500 photons
summed up in float32 are off by 1e-4, so that up to 7e-4 of the cells fall on the other side of a whole number."""


@pytest.fixture(scope="module")
def exported(flow_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    export(flow_run, out)
    return out


def test_every_network_is_exportable():
    assert {*MODELS, *READOUTS} - set(NETWORKS) - set(TRAINED) == {
        "autoregressive_flow",
        "calodream",  # of another detector: see test_calodream.py
        "diffusion",  # this and the other baselines: see test_baselines.py
        "gan",
        "sinkhorn_autoencoder",
        "vit_vae",
        "nearest",
        "resample",
        "gradient_boosting",
        "knn",
        "tree",
    }


def test_a_flow_that_goes_cell_by_cell_is_refused():
    with pytest.raises(ValueError, match="cell by cell"):
        check_exportable(MAF(ZN, MAFConfig()), "zn-maf")


def test_any_model_that_says_why_it_makes_no_graph_is_refused_with_that(monkeypatch):
    model = Linear(ZN, LinearConfig())
    check_exportable(model, "zn-linear")
    monkeypatch.setattr(Linear, "no_graph", "is but a ruler")
    with pytest.raises(ValueError, match=r"^zn-linear is but a ruler$"):
        check_exportable(model, "zn-linear")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NETWORKS, *TRAINED])
def test_a_bundle_gives_what_its_run_gives(tmp_path, name, flow_run, exported):
    run, bundle = flow_run, exported
    if name != "channel_flow_matching":
        run = weights()[TRAINED[name]] if name in TRAINED else made_run(tmp_path / "run", name)
        bundle = tmp_path / "bundle"
        export(run, bundle)
    agreement = read_json(bundle / "card.json")["agreement"]
    assert agreement["log1p_difference"] < bundles.TOLERANCE
    assert agreement["flipped_counts"] <= FLIPPED * agreement["lit_cells"]
    _, model = load_model(run)
    primaries = made_events(particles=20, repeats=2).primaries
    surrogate = Surrogate.load(bundle)
    wanted = generate_in_memory(model, primaries.conditions, seed=3, batch_size=32)
    if name in READOUTS:
        got = surrogate.channel_sums(primaries, seed=3, on_outside="flag")
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)
    else:
        got = surrogate.sample(primaries, seed=3, on_outside="flag").responses
        assert got.dtype == np.uint16
        assert (got != wanted).sum() <= FLIPPED * (wanted > 0).sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["channel_flow_matching", "flow_matching"])
def test_a_replica_is_exported_like_any_model(tmp_path, name):
    run = made_run(tmp_path / "run", name, bayesian={"initial": 0.1})
    assert export(run, tmp_path / "bundle", replica=3)["replica"] == 3
    particles = made_events(particles=20, repeats=2).primaries
    surrogate = Surrogate.load(tmp_path / "bundle")
    if name in READOUTS:
        got = surrogate.channel_sums(particles, seed=3, on_outside="flag")
    else:
        got = surrogate.sample(particles, seed=3, on_outside="flag").responses
    wanted, mean = (
        generate_in_memory(load_model(run, replica=number)[1], particles.conditions, 3, batch_size=32)
        for number in (3, 0)
    )
    assert (got != wanted).mean() < 1e-3 < (got != mean).mean()
    assert load(tmp_path / "bundle").origin["replica"] == 3
    with pytest.raises(ValueError, match="chosen when a bundle is exported"):
        load(tmp_path / "bundle", replica=1)


@pytest.mark.slow
def test_the_card_says_what_it_is(exported, flow_run):
    card = read_json(exported / "card.json")
    assert (card["format"], card["detector"], card["noise_dim"], card["opset"]) == (1, "zn", 5, 18)
    assert (card["rounding"], card["agreement"]["batches"]) == ("floor", [1, 3, 17, 256])
    assert "uniform" in card["rounding_rule"]
    assert card["recipe"]["model"]["solver"]["steps"] == 3
    assert card["data"] == read_json(flow_run / "card.json")["data"]
    assert card["scores"] == {}
    assert sorted(path.name for path in exported.iterdir()) == ["SHA256SUMS", "card.json", "response.onnx"]


@pytest.mark.slow
def test_the_domain_is_that_of_the_training_rows(exported, flow_run):
    source = open_events(flow_run / "made.h5")
    rows = split(source, "canonical")["train"]
    domain = Surrogate.load(exported).domain
    assert domain.rows == len(rows)
    assert domain.inside(source.primaries.select(rows)).all()


@pytest.mark.slow
def test_exact_and_threads(exported):
    primaries = made_events(particles=60, repeats=1).primaries
    one, two = (Surrogate.load(exported, threads=n) for n in (1, 2))
    whole = one.channel_sums(primaries, seed=1, exact=True, on_outside="flag")
    np.testing.assert_array_equal(two.channel_sums(primaries, seed=1, exact=True, on_outside="flag"), whole)
    few = one.channel_sums(
        primaries.select(slice(50, 53)), seed=1, first_event=50, exact=True, on_outside="flag"
    )
    np.testing.assert_array_equal(few, whole[50:53])
    alone = one.channel_sums(primaries, seed=1, batch_size=1, on_outside="flag")
    assert (alone != whole).mean() < 0.01


@pytest.mark.slow
def test_a_graph_that_does_not_agree_is_not_written(tmp_path, monkeypatch):
    run = made_run(tmp_path / "run", "linear")
    monkeypatch.setattr(bundles, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="does not agree with PyTorch"):
        export(run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == [run]


def test_disagreement_before_rounding(flow_run, tmp_path):
    _, generator = load_model(made_run(tmp_path / "run", "factorized_flow_matching"))
    _, readout = load_model(flow_run)
    image = np.full((2, 44, 44), 0.25)
    assert bundles.disagreement(image, image, generator) == (0.0, 0)
    nearby = image.copy()
    nearby[1, 0, 0] += 1.25e-4
    difference, flipped = bundles.disagreement(image, nearby, generator)
    assert (round(difference / 1e-4, 2), flipped) == (1.0, 0)
    # 1936 cells in channels of 242, 242, 242, 242 and 968: quarters give half a photon, so no sum is drawn whole
    shifted = image + 0.001
    assert bundles.disagreement(image, shifted, generator)[1] == 0
    # whole sums: of one event a channel has one more
    whole = np.zeros((2, 44, 44))
    other = whole.copy()
    other[1, 0, 0] = 1.0
    assert bundles.disagreement(whole, other, generator) == (0.0, 1)
    # of energies a voxel may come out empty
    assert bundles.disagreement(image, np.where(nearby == image, image, 0), generator)[0] > 0.2
    generator.detector = dataclasses.replace(generator.detector, unit="MeV")
    assert bundles.disagreement(image, np.where(nearby == image, image, 0), generator) == (0.0, 1)
    # or be drawn from another of its densities; what is rounded otherwise is a difference
    assert bundles.disagreement(image, np.where(nearby == image, image, 0.3), generator) == (0.0, 1)
    assert bundles.disagreement(image, np.where(nearby == image, image, 0.251), generator)[1] == 0
    broken = np.array([[1.0, np.nan]])
    assert bundles.disagreement(broken, broken, readout) == (np.inf, 0)


def test_scores_of_the_same_settings_go_along(flow_run, tmp_path):
    run = shutil.copytree(flow_run, tmp_path / "run")
    write_json(run / "scores.json", scores("made", {"all": {"n": 3, "particles": 2, "metrics": {}}}))
    found = bundles._scores(bundles.Run(run), [])
    assert found == {"made": {"sha256": "", "n": 3, "particles": 2, "metrics": {}}}
    assert bundles._scores(bundles.Run(run), ["solver.steps=1"]) == {}


def test_what_export_refuses(caloforge, flow_run, tmp_path):
    def refused(*arguments):
        code, _, err = caloforge("export", *arguments)
        assert code == 2
        assert not (tmp_path / "bundle").exists()
        return err

    out = tmp_path / "bundle"
    assert "exists already" in refused(flow_run, "--out", tmp_path)
    assert "there is no folder" in refused(flow_run, "--out", tmp_path / "no" / "bundle")
    assert "cannot be changed after the training" in refused(flow_run, "--out", out, "--set", "width=8")
    nearest = made_run(tmp_path / "nearest", "nearest")
    assert "keeps fitted tables" in refused(nearest, "--out", out)
    other = tmp_path / "other.h5"
    with create(other, ZN) as writer:
        writer.append(made_events(seed=1))
    assert "made.h5 of zn-channel_flow_matching are not all there" in refused(
        flow_run, "--out", out, "--data", other
    )
    moved = shutil.copytree(flow_run, tmp_path / "moved")
    recipe = (moved / "recipe.toml").read_text().replace("made.h5", "gone.h5")
    (moved / "recipe.toml").write_text(recipe)
    assert "say with --data where they are" in refused(moved, "--out", out)


def test_a_card_with_a_domain_needs_no_training_data(flow_run):
    recipe = bundles.Run(flow_run).recipe()
    lost = (
        bundles.Run(flow_run)
        .card()
        .model_copy(update={"data": (DataFile(name="lost.h5", sha256="0", rows={}),), "domain": None})
    )
    primaries = made_events(particles=9).primaries
    card = lost.model_copy(update={"domain": Domain.fit(primaries).to_card()})
    domain, particles = bundles._domain_and_particles(recipe, card, [])
    assert domain.to_card() == card.domain
    assert len(particles) > 1000  # those of the sample
    with pytest.raises(ValueError, match=r"lost.h5 of zn-channel_flow_matching are not all there"):
        bundles._domain_and_particles(recipe, lost, [])


@pytest.mark.slow
def test_the_command(caloforge, flow_run, tmp_path):
    out = tmp_path / "bundle"
    code, text, err = caloforge(
        *("export", flow_run, "--out", out, "--data", flow_run / "made.h5"),
        *("--set", "solver.steps=1", "--set", "rounding=none"),
    )
    assert (code, err) == (0, "")
    assert "agree to" in text
    card = read_json(out / "card.json")
    assert card["settings"] == ["solver.steps=1", "rounding=none"]
    assert card["rounding_rule"] == "none: expected counts"
    assert card["recipe"]["model"]["solver"]["steps"] == 1
    code, _, err = caloforge("sample", out, flow_run / "made.h5", tmp_path / "events.h5")
    assert (code, "predicts channel sums only" in err) == (2, True)


@pytest.mark.slow
def test_a_zero_response_goes_along(flow_run, tmp_path):
    zero = weights()["zdc-zero_response"]
    card = export(flow_run, tmp_path / "bundle", zero=zero)
    assert card["zero"]["name"] == "zdc-zero_response"
    assert card["zero"]["probability_difference"] < bundles.PROBABILITY_TOLERANCE
    assert card["domain"] == read_json(zero / "card.json")["domain"]
    assert card["zero"]["domain_of_responses"] != card["domain"]
    trials = open_trials(sample(TRIALS))
    primaries = trials.primaries.select(np.flatnonzero(trials.fold < 2)[:2000])
    surrogate = Surrogate.load(tmp_path / "bundle")
    assert surrogate.domain.inside(primaries).mean() > 0.99
    lit = surrogate.channel_sums(primaries, seed=1, on_outside="flag").any(1)
    _, classifier = load_classifier(zero)
    p = probabilities_in_memory(classifier, primaries.conditions).astype(float)
    wanted = responds("zn", p, uniforms(1, np.arange(len(primaries))))
    assert (lit & ~wanted).sum() == 0
    assert 0.95 * wanted.sum() < lit.sum() <= wanted.sum()  # some have sums of zero


def test_what_is_no_zero_response_is_refused(flow_run, tmp_path):
    with pytest.raises(ValueError, match="zn-channel_flow_matching is no classifier"):
        export(flow_run, tmp_path / "bundle", zero=flow_run)
    assert list(tmp_path.iterdir()) == []


def test_large_batches_are_compared_in_pieces():
    conditions, noise = np.arange(70, dtype=np.float32)[:, None], np.ones((70, 2), np.float32)
    seen = []

    def function(conditions, noise):
        seen.append(len(conditions))
        return conditions + noise

    np.testing.assert_array_equal(bundles.in_pieces(function, conditions, noise), conditions + noise)
    assert seen == [32, 32, 6]
    wanted = np.ones((3, 4))
    got = wanted.copy()
    got[1, 2] += 1e-3
    got[2, 0] += 1e-6
    np.testing.assert_array_equal(bundles._far(wanted, got), [1])
