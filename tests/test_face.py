"""The names of the package, and what they do in a few lines."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

import caloforge as cf
from caloforge import samples
from caloforge.detectors import DETECTORS, ZN
from caloforge.io import create, provenance
from caloforge.io.scores import read_scores
from made import made_events
from made_bundle import made_bundle

NAMES = {
    "DETECTORS", "Detector", "Events", "Model", "Primaries", "Surrogate", "__version__", "evaluate", "export_bundle",
    "export_o2", "load", "plot", "primaries", "read", "sample", "simulate_events", "train", "weigh", "write",
    "write_report",
}  # fmt: skip


def test_the_names_are_these_and_every_one_is_there():
    assert set(cf.__all__) == NAMES
    assert set(dir(cf)) >= NAMES
    for name in NAMES:
        assert getattr(cf, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        cf.lod  # noqa: B018


def test_importing_it_imports_next_to_nothing():
    code = (
        "import sys, caloforge; heavy = {'numpy', 'torch', 'h5py', 'pydantic', 'onnxruntime'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def frame(events):
    """What a data frame looks like from here: keys, and columns by name."""
    return {**events.primaries.to_dict(), "remark": np.full(len(events), "text")}


@pytest.fixture(scope="module")
def model():
    return cf.load("zn-factorized_latent_flow_matching")


def test_columns_a_file_and_primaries_give_the_same_events(model, tmp_path):
    events = made_events(particles=4, repeats=2)
    with create(tmp_path / "a.h5", ZN) as writer:
        writer.append(events.primaries)
    forms = (events, events.primaries, frame(events), tmp_path / "a.h5", str(tmp_path / "a.h5"))
    first, *others = (model.sample(form, seed=3, on_outside="flag") for form in forms)
    for other in others:
        np.testing.assert_array_equal(first.responses, other.responses)
        np.testing.assert_array_equal(first.group, other.group)
    assert first.responses.any()


def test_a_run_and_a_bundle_say_what_they_are(model, tmp_path):
    bundle = made_bundle(tmp_path / "bundle")
    text = repr(model)
    assert text.startswith("<zn-factorized_latent_flow_matching: ")
    assert "44 x 44" in text
    of_bundle = cf.load(bundle)
    assert of_bundle.detector is ZN
    surrogate = cf.Surrogate.load(bundle)
    events = made_events(particles=60, repeats=2)
    wanted = surrogate.sample(events.primaries, seed=2)
    np.testing.assert_array_equal(of_bundle.sample(events, seed=2).responses, wanted.responses)


@pytest.mark.parametrize("value", [*DETECTORS.values(), made_events(), made_events().primaries])
def test_what_is_shown_fits_a_line(value):
    assert len(repr(value)) < 250


def test_particles_outside_are_refused_or_said(model):
    columns = frame(made_events(particles=4, repeats=1))
    columns["charge"] = columns["charge"] + 2
    with pytest.raises(ValueError, match="4 of 4 particles are outside"):
        model.sample(columns)
    with pytest.warns(UserWarning, match="outside the domain"):
        model.sample(columns, on_outside="warn")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda columns: columns.pop("px"), "no column 'px'"),
        (lambda columns: columns.update(px=np.full(4, "a")), "column px must hold one number a row"),
        (lambda columns: columns.update(px=np.zeros((4, 2))), "column px must hold one number a row"),
        (lambda columns: columns.update(px=np.zeros(3)), "px"),
    ],
)
def test_columns_that_are_wrong_are_named(change, message):
    columns = frame(made_events(particles=4, repeats=1))
    change(columns)
    with pytest.raises(ValueError, match=message):
        cf.primaries(columns, ZN)


def test_wrong_names():
    with pytest.raises(ValueError, match="did you mean 'zn-flow_matching'"):
        cf.load("zn-flow_match")
    with pytest.raises(ValueError, match="give one"):
        cf.primaries(frame(made_events()))
    with pytest.raises(ValueError, match="is a classifier"):
        cf.load("zdc-zero_response")


def test_events_as_columns_and_files(tmp_path):
    events = made_events(particles=4, repeats=2)
    columns = events.to_dict()
    assert list(columns)[:9] == list(ZN.features)
    np.testing.assert_array_equal(sum(events.channels("o2").values()), events.responses.sum((1, 2)))
    np.testing.assert_array_equal(columns["common"], events.channels()["common"])
    cf.write(events, tmp_path / "a.parquet")
    np.testing.assert_array_equal(cf.read(tmp_path / "a.parquet").responses, events.responses)


def test_train_and_evaluate(tmp_path):
    run = cf.train("zn-linear", tmp_path / "linear", settings=["seed=1"])
    scores = cf.evaluate(run, "sample:zn", repeats=1)
    assert scores.sets["zn"].all.metrics["w1"].mean > 0
    assert not (run / "scores.json").exists()
    again = cf.evaluate(run, "sample:zn", repeats=1, out=run / "scores.json")
    stored = read_scores(run / "scores.json")
    assert stored.sets == again.sets
    assert again.sets["zn"].all.metrics == scores.sets["zn"].all.metrics


def test_sums_are_those_of_the_responses_also_in_a_file(model, tmp_path):
    events = made_events(particles=6, repeats=2)
    responses = model.sample(events, seed=3, on_outside="flag")
    sums = model.channels(events, seed=3, on_outside="flag")
    for label, values in responses.channels().items():
        np.testing.assert_array_equal(sums[label], values)
    with create(tmp_path / "a.h5", ZN) as writer:
        writer.append(events.primaries)
    for readout in ("channels", "both"):
        out = tmp_path / f"{readout}.h5"
        options = {"seed": 3, "on_outside": "flag", "readout": readout}
        assert cf.sample(model, tmp_path / "a.h5", out, **options) == len(events)
        assert provenance(out)["readout"] == readout
        with h5py.File(out) as file:
            assert ("responses" in file) == (readout == "both")
            for label, values in sums.items():
                np.testing.assert_array_equal(file[f"paper_{label.replace(' ', '_')}"][:], values)
            assert file["in_domain"].shape == (len(events),)


def test_a_model_of_sums_gives_sums_and_says_that_it_has_no_responses(tmp_path):
    model = cf.load("zn-channel_flow_matching")
    events = made_events(particles=6, repeats=1)
    sums = model.channels(events, on_outside="flag")
    assert list(sums) == list(ZN.channel_map("paper").labels)
    cf.sample(model, events.primaries, tmp_path / "a.h5", readout="channels", on_outside="flag")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["paper_quadrant_1"][:], sums["quadrant 1"])
    for wrong in (
        lambda: model.sample(events),
        lambda: cf.sample(model, events.primaries, tmp_path / "b.h5"),
    ):
        with pytest.raises(ValueError, match="channel sums only: the readout is channels"):
            wrong()
    with pytest.raises(ValueError, match="readout must be one of responses, channels, both, got 'sums'"):
        cf.sample(model, events.primaries, tmp_path / "b.h5", readout="sums")
    assert not (tmp_path / "b.h5").exists()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_go_in_and_come_out(model, library):
    pytest.importorskip(library)
    events = made_events(particles=4, repeats=2)
    particles = events.primaries.to_dataframe(library)
    first = model.sample(particles, seed=3, on_outside="flag")
    np.testing.assert_array_equal(first.responses, model.sample(events, seed=3, on_outside="flag").responses)
    columns = first.to_dataframe(library)
    assert type(columns).__module__.startswith(library)
    np.testing.assert_array_equal(np.asarray(columns["common"]), first.channels()["common"])
    with pytest.raises(ValueError, match="pandas or polars, got 'arrow'"):
        events.to_dataframe("arrow")


def test_lit_cells_as_ragged_arrays():
    awkward = pytest.importorskip("awkward")
    events = made_events(particles=4, repeats=2)
    array = events.to_awkward()
    np.testing.assert_array_equal(awkward.sum(array.cells.value, axis=1), events.responses.sum((1, 2)))
    np.testing.assert_array_equal(awkward.num(array.cells), (events.responses > 0).sum((1, 2)))
    np.testing.assert_array_equal(cf.primaries(array, ZN).conditions, events.conditions)


def test_events_write_themselves(tmp_path):
    events = made_events(particles=4, repeats=2)
    for name, write in (
        ("a.h5", events.to_hdf5),
        ("a.root", events.to_root),
        ("a.parquet", events.to_parquet),
    ):
        write(tmp_path / name)
        np.testing.assert_array_equal(cf.read(tmp_path / name).responses, events.responses)
        with pytest.raises(ValueError, match="must end with"):
            write(tmp_path / "a.txt")
    events.primaries.to_hdf5(tmp_path / "p.h5")
    assert len(cf.primaries(tmp_path / "p.h5")) == len(events)


def test_what_a_notebook_shows_is_short_and_escaped(model):
    events = made_events(particles=20, repeats=2)
    for value in (events, events.primaries, model):
        assert value._repr_html_().startswith("<p>")
        assert len(value._repr_html_()) < 5000
    assert "32 more rows" in events._repr_html_()
    scores = read_scores(samples.weights()["zn-vqgan"] / "scores.json")
    assert "<td>w1</td>" in scores._repr_html_()
    assert len(repr(scores)) < 250
    assert "<script>" not in scores.model_copy(update={"name": "<script>"})._repr_html_()
