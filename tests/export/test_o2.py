"""The O2 drop-in: made-up graphs for the wiring, real weights for the whole (slow, since tracing is)."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from caloforge import samples
from caloforge.detectors import ZN, ZP
from caloforge.events import Primaries, split
from caloforge.export import o2
from caloforge.io import open_events, open_trials
from caloforge.io.files import read_json, sha256
from caloforge.io.run import Run
from caloforge.metrics.channels import mean_wasserstein
from caloforge.metrics.probability import fraction
from caloforge.models.parts.inference import as_function, probabilities_in_memory
from caloforge.runtime.expansion import SIZE, expand, words
from caloforge.runtime.hits import responds
from caloforge.runtime.noise import standard_normals
from caloforge.runtime.o2_host import (
    Host,
    channels_of,
    counts_of,
    features_of,
    parse_scales,
    shared_noise,
    turned,
)
from caloforge.runtime.session import Session
from caloforge.training.checkpoint import load_classifier, load_model
from made import made_events
from made_bundle import NOISE, made_graph
from made_o2 import made_probabilities
from made_run import made_run

BY_DETECTOR = pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda d: d.name)


def session(proto):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def conditions_with(probabilities, rows):
    """Particles whose vertex holds P(ZN), P(ZP), P(any), as the made-up zero response reads them."""
    conditions = np.tile(made_events().conditions[:1], (rows, 1))
    conditions[:, 1:4] = probabilities
    return conditions


def features(conditions):
    return features_of(Primaries(ZN, conditions, np.full(len(conditions), 22)))


def noise_of(rows, seed=0):
    return standard_normals(seed, np.arange(rows), SIZE)


@pytest.fixture(scope="module")
def graphs():
    model = {d.name: SimpleNamespace(detector=d, noise_dim=NOISE) for d in (ZN, ZP)}
    return {
        d.name: o2._generator_graph(made_graph(d), made_probabilities(), d.name, model[d.name])
        for d in (ZN, ZP)
    }


@BY_DETECTOR
def test_inputs_by_position_and_one_output(graphs, detector):
    graph = graphs[detector.name].graph

    def shape(value):
        return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]

    width, height = detector.shape
    assert [shape(value) for value in graph.input] == [["batch", 10], ["batch", 9]]
    assert [shape(value) for value in graph.output] == [["batch", height, width]]
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@BY_DETECTOR
@pytest.mark.parametrize("batch", [1, 7])
def test_the_graph_is_the_generator_on_expanded_noise(graphs, detector, batch, tmp_path):
    rng = np.random.default_rng(batch)
    probabilities = np.tile([0.5, 0.4, 0.7], (batch, 1)) if batch > 1 else np.ones((1, 3))
    conditions, noise = conditions_with(probabilities, batch), rng.standard_normal((batch, 10))
    noise = noise.astype(np.float32)
    (got,) = session(graphs[detector.name]).run(None, {"noise": noise, "features": features(conditions)})
    onnx.save(made_graph(detector), tmp_path / "made.onnx")
    u, normals = expand(noise, NOISE)
    wanted = np.asarray(Session(tmp_path / "made.onnx")(conditions, normals)).astype(float)
    hit = responds(detector.name, conditions[:, 1:4], u)
    wanted[~hit] = 0
    counts = np.stack([counts_of(image.ravel(), detector) for image in got])
    assert wanted.any()
    assert batch == 1 or 0 < hit.sum() < batch
    np.testing.assert_array_equal(counts, wanted)


@BY_DETECTOR
def test_the_share_of_empty_images_is_that_of_the_probabilities(graphs, detector):
    n, chosen = 20_000, {"zn": 0.3, "zp": 0.15}[detector.name]
    run = session(graphs[detector.name]).run
    probabilities = np.tile(np.array([0.3, 0.15, 0.4], np.float32), (n, 1))
    given = {"noise": noise_of(n), "features": features(conditions_with(probabilities, n))}
    lit = np.concatenate(
        [
            run(None, {name: value[start : start + 1000] for name, value in given.items()})[0].any((1, 2))
            for start in range(0, n, 1000)
        ]
    )
    assert lit.mean() == pytest.approx(chosen, abs=5 * np.sqrt(chosen * (1 - chosen) / n))


def test_equal_noise_gives_the_right_coincidence(graphs):
    n = 4000
    probabilities = np.tile(np.array([0.3, 0.2, 0.35], np.float32), (n, 1))
    given = {"noise": noise_of(n, 1), "features": features(conditions_with(probabilities, n))}
    zn, zp = (session(graphs[name]).run(None, given)[0].any((1, 2)) for name in ("zn", "zp"))
    for wanted, got in ((0.3, zn), (0.2, zp), (0.15, zn & zp), (0.35, zn | zp)):
        assert got.mean() == pytest.approx(wanted, abs=5 * np.sqrt(wanted * (1 - wanted) / n))


def test_counts_survive_float32_and_truncation():
    """n = 0..5000 through the very nodes that write counts, and O2's expm1 in float32."""
    counts = np.arange(5001, dtype=np.int32).reshape(-1, 1, 1)
    pixel = SimpleNamespace(
        detector=SimpleNamespace(shape=(1, 1), features=ZN.features, name="zn"), noise_dim=2
    )
    helper, kinds = onnx.helper, onnx.TensorProto
    # a generator whose count is the energy
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["conditions", "first"], ["energy"], axis=1),
            helper.make_node("Unsqueeze", ["energy", "last"], ["image"]),
            helper.make_node("Cast", ["image"], ["responses"], to=kinds.INT32),
            helper.make_node("Identity", ["noise"], ["unused"]),
        ],
        "made",
        [
            helper.make_tensor_value_info(n, kinds.FLOAT, ["batch", k])
            for n, k in (("conditions", 9), ("noise", 2))
        ],
        [helper.make_tensor_value_info("responses", kinds.INT32, ["batch", 1, 1])],
        [
            onnx.numpy_helper.from_array(np.array([0]), "first"),
            onnx.numpy_helper.from_array(np.array([2]), "last"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    given = np.zeros((5001, 9), np.float32)
    given[:, 0], given[:, 1:4] = counts[:, 0, 0], 1
    run = session(o2._generator_graph(proto, made_probabilities(), "zn", pixel)).run
    (written,) = run(None, {"noise": noise_of(5001), "features": given})
    assert written[0, 0, 0] == 0
    for back in (np.expm1(written), np.exp(written.astype(np.float64)) - 1):
        np.testing.assert_array_equal(np.trunc(back).astype(int), counts)
    # why the margin is there
    bare = np.expm1(np.log1p(counts.astype(np.float32)))
    assert (np.trunc(bare) != counts).mean() > 0.1


@pytest.mark.parametrize("threshold", [0.0, 0.25])
def test_the_classifier_excludes_what_is_below_its_threshold(threshold):
    rows = 8
    either = np.linspace(0, 1, rows)
    conditions = conditions_with(np.stack([either, either, either], 1), rows)
    run = session(o2._classifier_graph(made_probabilities(), ZN, threshold)).run
    (got,) = run(None, {"features": features(conditions)})
    assert got.shape == (rows, 1)
    np.testing.assert_array_equal(got[:, 0], (conditions[:, 3] >= np.float32(threshold)).astype(np.float32))


def test_the_hash_agrees_with_numpy_word_by_word():
    nodes = o2._Nodes("n")
    names = o2._halves(nodes, "noise", 300)
    kinds = onnx.TensorProto
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "made",
        [onnx.helper.make_tensor_value_info("noise", kinds.FLOAT, ["batch", 10])],
        [onnx.helper.make_tensor_value_info(name, kinds.FLOAT, ["batch", 300]) for name in names],
        nodes.initializers,
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    noise = np.concatenate([noise_of(200), np.array([[50.0] * 10, [-50.0] * 10, [0.0] * 10], np.float32)])
    high, low = session(proto).run(None, {"noise": noise})
    drawn = words(noise, 300)
    np.testing.assert_array_equal(high, (drawn >> np.uint64(32)).astype(np.float32))
    np.testing.assert_array_equal(low, (drawn & np.uint64(0xFFFFFFFF)).astype(np.float32))
    assert not {node.op_type for node in proto.graph.node} & {"RandomNormal", "RandomUniform", "BitCast"}


@BY_DETECTOR
def test_the_a_side_agrees_with_full_simulation_tower_by_tower(detector):
    """Full simulation negates x and y for pz > 0, and towers are numbered by them."""
    model = SimpleNamespace(detector=detector, noise_dim=NOISE)
    conditions = conditions_with(np.ones((2, 3)), 2)
    conditions[:, 6] = [-600, 600]
    primaries = Primaries(ZN, conditions, np.full(2, 22))
    given = {"noise": np.tile(noise_of(1), (2, 1)), "features": features_of(primaries)}
    images = {}
    for a_side in ("image", "full-simulation"):
        graph = o2._generator_graph(made_graph(detector), made_probabilities(), detector.name, model, a_side)
        (flat,) = session(graph).run(None, given)
        images[a_side] = np.stack([counts_of(image.ravel(), detector) for image in flat])
    plain, full = images["image"], images["full-simulation"]
    assert plain.any()
    np.testing.assert_array_equal(full[0], plain[0])
    np.testing.assert_array_equal(full[1], plain[1][::-1, ::-1])
    np.testing.assert_array_equal(full, turned(plain, primaries))
    common, *towers = channels_of(plain[1])
    swapped = towers[::-1]  # 1 <-> 4 and 2 <-> 3, quadrants as well as strips
    np.testing.assert_array_equal(channels_of(full[1]), [common, *swapped])


def test_unknown_species_are_dark_and_known_ones_are_not():
    species = o2.known_species(Run(shipped(ZERO)[0]).card())
    known = [(0, 0), (0.939565, 0), (0.938272, -1), (1.67245, -1)]  # gamma, n, p~, Omega-
    nuclei = [
        (1.87561, 1),
        (2.80892, 1),
        (3.72738, 2),
        (1.87561, 0),
    ]  # d, t, alpha, a deuteron without charge
    conditions = conditions_with(np.ones((8, 3)), 8)
    conditions[:, 7:9] = [*known, *nuclei]
    given = {"features": features(conditions)}
    for table, answers in ((species, [1] * 4 + [0] * 4), (None, [1] * 8)):
        (got,) = session(o2._classifier_graph(made_probabilities(), ZN, 0.5, table)).run(None, given)
        assert got[:, 0].tolist() == answers


def test_scales_files_leave_features_as_they_are():
    mean, scale = parse_scales(o2.scales_text(9))
    assert not mean.any()
    assert (scale == 1).all()


def test_a_graph_that_does_not_agree_is_refused(graphs, tmp_path):
    onnx.save(graphs["zn"], tmp_path / "neutron.onnx")
    _, classifier = load_classifier(*shipped(ZERO))
    _, model = load_model(*shipped("zn-flow_matching"))
    with pytest.raises(ValueError, match="the graph of zn does not agree with PyTorch"):
        o2._compare(tmp_path / "neutron.onnx", model, classifier)


# --- what is refused ---------------------------------------------------------------------------------------


def shipped(*names):
    found = samples.weights()
    return [found[name] for name in names]


ZERO = "zdc-zero_response"


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        (["zn-flow_matching"], "one run of each of zn, zp, got zn in 1 runs"),
        (["zn-flow_matching"] * 2, "one run of each of zn, zp, got zn in 2 runs"),
        (["zn-channel_flow_matching", "zp-flow_matching"], "predicts channel sums only"),
        ([ZERO, "zp-flow_matching"], "is a classifier"),
    ],
)
def test_other_runs_are_refused(tmp_path, runs, problem):
    with pytest.raises(ValueError, match=problem):
        o2.export_o2(shipped(*runs), *shipped(ZERO), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_arguments_are_refused(tmp_path):
    runs = shipped("zn-flow_matching", "zp-flow_matching")
    with pytest.raises(ValueError, match="is no classifier"):
        o2.export_o2(runs, runs[0], tmp_path / "out")
    with pytest.raises(ValueError, match="exists already"):
        o2.export_o2(runs, *shipped(ZERO), tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        o2.export_o2(runs, *shipped(ZERO), tmp_path / "no" / "out")
    with pytest.raises(ValueError, match="must be a probability below 1"):
        o2.export_o2(runs, *shipped(ZERO), tmp_path / "out", threshold=1.0)
    with pytest.raises(ValueError, match="a_side must be one of full-simulation, image, got 'left'"):
        o2.export_o2(runs, *shipped(ZERO), tmp_path / "out", a_side="left")
    with pytest.raises(ValueError, match="unknown must be one of dark, as-is, got 'bright'"):
        o2.export_o2(runs, *shipped(ZERO), tmp_path / "out", unknown="bright")
    unrounded = made_run(tmp_path / "unrounded", "factorized_flow_matching", rounding="none")
    with pytest.raises(ValueError, match="gives unrounded counts"):
        o2.export_o2([unrounded, runs[1]], *shipped(ZERO), tmp_path / "out")


# --- the whole ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    out = tmp_path_factory.mktemp("o2") / "models"
    runs = shipped("zn-flow_matching", "zp-flow_matching")
    o2.export_o2(runs[::-1], *shipped(ZERO), out)
    return out


@pytest.mark.slow
def test_the_folder_is_whole(exported):
    card = read_json(exported / "card.json")
    assert sorted(path.name for path in exported.iterdir()) == sorted(
        ["SHA256SUMS", "card.json", *card["files"]]
    )
    assert len(card["files"]) == 6
    for name in ("neutron", "proton"):
        found = card["models"][name]["agreement"]
        assert found["responses"] > 0
        assert found["different_counts"] <= 0.01 * found["lit_cells"]
    for line in (exported / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256(exported / name) == digest


@pytest.mark.slow
def test_the_host_gives_what_the_models_give(exported):
    """Thousands of primaries of both sides: O2's counts and channels against PyTorch and our own readout."""
    trials = open_trials(samples.sample(samples.TRIALS))
    rows = np.flatnonzero(trials.fold < 2)[::10]
    primaries = trials.primaries.select(rows)
    assert len(rows) > 2000
    assert 0.3 < (primaries.feature("pz") > 0).mean() < 0.7
    noise = shared_noise(0)
    found = Host.load(exported).simulate(primaries, noise)
    drawn = np.stack([noise(row, "zn") for row in range(len(rows))])
    _, classifier = load_classifier(*shipped(ZERO))
    probabilities = probabilities_in_memory(classifier, primaries.conditions)
    passed = probabilities[:, 2] >= o2.THRESHOLD
    for name, events in found.items():
        detector = events.detector
        _, model = load_model(*shipped(f"{name}-flow_matching"))
        u, normals = expand(drawn, model.noise_dim)
        hit = responds(name, probabilities, u) & passed
        lit = events.responses.any((1, 2))
        assert (lit != hit).sum() <= 2
        both = np.flatnonzero(lit & hit)
        wanted = as_function(model)(primaries.conditions[both], normals[both])
        wanted = turned(wanted, primaries.select(both))
        got = events.responses[both]
        # single photons on the edge of the rounding, as the export allows (there at most 1 %)
        assert np.abs(wanted - got.astype(np.float64)).max() <= 1
        assert (wanted != got).sum() < 2e-3 * np.count_nonzero(got)
        sums = [channels_of(image.astype(np.int64)) for image in got]
        np.testing.assert_array_equal(sums, detector.readout(got, "o2"))
        observed = fraction(
            np.ones(len(rows), int), lit.astype(int), probabilities[:, {"zn": 0, "zp": 1}[name]].astype(float)
        )
        assert abs(observed.pull) < 5


@pytest.mark.slow
def test_the_python_of_the_page_runs(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o2-models").symlink_to(exported)
    page = (Path(__file__).parents[2] / "docs" / "o2.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "page.py").write_text(code)
    runpy.run_path("page.py")
    zn, zp = map(float, capsys.readouterr().out.split())
    assert 0.02 < zn < 0.3
    assert 0.005 < zp < 0.1


@pytest.mark.slow
def test_expanded_noise_gives_the_same_physics():
    """Channel sums, with expanded noise against the runtime's, differ as two seeds of the latter do."""
    _, model = load_model(*shipped("zp-flow_matching"))
    events = open_events(samples.sample("zp_wide"))
    conditions = events.slices(split(events, "canonical")["test"]).conditions

    def sums(normals):
        forward = as_function(model)
        images = [
            forward(conditions[i : i + 128], normals[i : i + 128]) for i in range(0, len(conditions), 128)
        ]
        return model.detector.readout(np.concatenate(images), "o2")

    numbers = np.arange(len(conditions))
    plain = [sums(standard_normals(seed, numbers, model.noise_dim)) for seed in range(3)]
    expanded = sums(expand(noise_of(len(conditions)), model.noise_dim)[1])
    seeds = [mean_wasserstein(plain[i], plain[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert np.mean([mean_wasserstein(one, expanded) for one in plain]) < 1.5 * max(seeds)


@pytest.mark.slow
def test_the_command(caloforge, exported, tmp_path):
    out = Path(tmp_path / "models")
    words = ["export", "zn-flow_matching", "zp-flow_matching", "--target", "o2"]
    code, text, _ = caloforge(*words, "--zero", ZERO, "--out", out)
    assert code == 0
    assert "classifier, neutron and proton" in text
    assert read_json(out / "card.json")["files"] == read_json(exported / "card.json")["files"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--target", "o2"], "needs the zero response"),
        (["--target", "root"], "must be one of bundle, o2, geant4"),
        (["--threshold", "0.1"], "--threshold is for --target o2"),
        (["--a-side", "image"], "--a-side is for --target o2"),
        (["--unknown", "dark"], "--unknown is for --target o2"),
        (["--target", "geant4"], "needs a voxel detector, with the axes r, phi, z .* zn, with the axes x, y"),
        (["zp-flow_matching"], "--target bundle takes one run, got 2"),
        (
            ["--target", "o2", "--zero", ZERO, "--set", "dark=0"],
            "--set, --replica and --data are for a bundle",
        ),
    ],
)
def test_what_the_command_refuses(caloforge, words, problem, tmp_path):
    code, _, err = caloforge("export", "zn-flow_matching", *words, "--out", tmp_path / "out")
    assert code == 2
    assert re.search(problem, err)
    assert list(tmp_path.iterdir()) == []
