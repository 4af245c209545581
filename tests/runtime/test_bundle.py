"""Bundles: what they promise, and how they refuse what is wrong."""

import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import caloforge
from caloforge.detectors import DETECTORS, ZN, ZP
from caloforge.events import Primaries
from caloforge.io import create, open_events, provenance, root
from caloforge.io.files import read_json, sha256, write_json
from caloforge.runtime import Surrogate
from caloforge.runtime.bundle import BATCH, CARD, GRAPH, SUMS, is_bundle, read_card
from made import made_events
from made_bundle import made_bundle


@pytest.fixture(scope="module")
def surrogate(bundle):
    return Surrogate.load(bundle)


@pytest.fixture(scope="module")
def primaries():
    return made_events(particles=60, repeats=2).primaries


@pytest.fixture
def bundle_copy(tmp_path):
    return made_bundle(tmp_path / "bundle")


# --- promises ----------------------------------------------------------------------------------------------


def test_events_of_a_seed(surrogate, primaries):
    events = surrogate.sample(primaries, seed=3)
    assert events.responses.shape == (120, 44, 44)
    assert events.responses.dtype == np.uint16
    np.testing.assert_array_equal(events.conditions, primaries.conditions)
    again, other = (surrogate.sample(primaries, seed=seed).responses for seed in (3, 4))
    np.testing.assert_array_equal(events.responses, again)
    assert (events.responses != other).any()
    assert len(np.unique(events.responses.sum((1, 2)))) > 50


def test_threads_do_not_change_a_byte(bundle, surrogate, primaries):
    two = Surrogate.load(bundle, threads=2)
    np.testing.assert_array_equal(surrogate.sample(primaries).responses, two.sample(primaries).responses)


@pytest.mark.parametrize("cut", [1, 31, 32, 33, 100])
def test_shards_are_the_whole(surrogate, primaries, cut):
    whole = surrogate.sample(primaries, seed=1, first_event=7, exact=True).responses
    first = surrogate.sample(primaries.select(slice(cut)), seed=1, first_event=7, exact=True)
    rest = surrogate.sample(primaries.select(slice(cut, None)), seed=1, first_event=7 + cut, exact=True)
    np.testing.assert_array_equal(np.concatenate([first.responses, rest.responses]), whole)


def test_order_does_not_matter(surrogate, primaries):
    source = surrogate.source(primaries, seed=2)
    order = np.random.default_rng(0).permutation(len(primaries))
    np.testing.assert_array_equal(
        source.slices(order).responses, surrogate.sample(primaries, seed=2).responses[order]
    )


def test_batch_sizes_agree_but_for_few_counts(surrogate, primaries):
    reference = surrogate.sample(primaries).responses.astype(int)
    for batch_size in (1, 7, 120):
        other = surrogate.sample(primaries, batch_size=batch_size).responses
        assert (other != reference).mean() < 1e-5
        assert np.abs(other - reference).max() <= 1


def test_few_events_make_a_small_batch_unless_exact(surrogate, primaries):
    few = primaries.select(slice(3))
    assert surrogate.source(few).batch_size == 3
    assert surrogate.source(few, exact=True).batch_size == BATCH
    assert surrogate.source(primaries).batch_size == BATCH
    assert surrogate.source(primaries, batch_size=5).batch_size == 5
    with pytest.raises(ValueError, match="exact fixes the batch at 32 events, got a batch size of 5"):
        surrogate.source(few, batch_size=5, exact=True)


def test_channel_sums_are_those_of_the_responses(surrogate, primaries):
    sums = surrogate.channel_sums(primaries, seed=1)
    np.testing.assert_array_equal(sums, ZN.readout(surrogate.sample(primaries, seed=1).responses))


# --- the domain --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strange():
    conditions = made_events(particles=60, repeats=2).conditions.copy()
    conditions[5, 3] = 1e3
    return Primaries(ZN, conditions, made_events(particles=60, repeats=2).pdg)


def test_particles_outside_are_refused_warned_of_or_flagged(surrogate, strange):
    with pytest.raises(ValueError, match=r"1 of 120 particles are outside .* vz .* first in row 5"):
        surrogate.sample(strange)
    with pytest.warns(UserWarning, match="1 of 120 particles are outside"):
        warned = surrogate.sample(strange, on_outside="warn")
    flagged = surrogate.sample(strange, on_outside="flag")
    np.testing.assert_array_equal(warned.responses, flagged.responses)
    assert np.flatnonzero(~surrogate.check(strange, "flag")).tolist() == [5]
    with pytest.raises(ValueError, match="on_outside must be one of"):
        surrogate.sample(strange, on_outside="ignore")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_never_reaches_the_network(surrogate, strange, value):
    conditions = strange.conditions.copy()
    conditions[3, 1] = value
    with pytest.raises(ValueError, match=r"finite.*row 3, vx"):
        Primaries(ZN, conditions, strange.pdg)


def test_particles_of_another_detector(surrogate):
    with pytest.raises(ValueError, match=r"the bundle is for zn .* got particles of zp"):
        surrogate.sample(made_events(ZP).primaries)


# --- what it refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CARD, GRAPH, SUMS])
def test_a_flipped_byte(bundle_copy, name):
    content = (bundle_copy / name).read_bytes()
    for position in (0, len(content) // 2, len(content) - 2):
        changed = bytearray(content)
        changed[position] ^= 1
        (bundle_copy / name).write_bytes(changed)
        with pytest.raises(ValueError, match=f"bundle .* is damaged: .*{SUMS}"):
            Surrogate.load(bundle_copy)


@pytest.mark.parametrize("name", [CARD, GRAPH, SUMS])
def test_a_missing_file(bundle_copy, name):
    (bundle_copy / name).unlink()
    assert is_bundle(bundle_copy)
    with pytest.raises(ValueError, match=f"has no {name}: it is incomplete"):
        Surrogate.load(bundle_copy)


def test_no_bundle(tmp_path):
    with pytest.raises(ValueError, match=r"no bundle .*nothing"):
        Surrogate.load(tmp_path / "nothing")


def test_a_newer_format(bundle_copy):
    card = read_json(bundle_copy / CARD)
    write_json(bundle_copy / CARD, {**card, "format": 2})
    lines = f"{sha256(bundle_copy / CARD)}  {CARD}\n{sha256(bundle_copy / GRAPH)}  {GRAPH}\n"
    (bundle_copy / SUMS).write_text(lines)
    with pytest.raises(ValueError, match=r"has format 2, .* reads up to 1: install a newer one"):
        Surrogate.load(bundle_copy)


def test_a_detector_this_installation_has_otherwise(bundle_copy, monkeypatch):
    swapped = replace(ZN, conditions=(ZN.conditions[1], ZN.conditions[0], *ZN.conditions[2:]))
    for other, message in (
        (swapped, "other features: energy, vx, .* here it has vx, energy"),
        (replace(ZN, unit="MeV"), "other unit: photons, here it has MeV"),
        (replace(ZN, channels={"paper": ZN.channels["o2"]}), "other channel maps"),
    ):
        monkeypatch.setitem(DETECTORS, "zn", other)
        with pytest.raises(ValueError, match=message):
            Surrogate.load(bundle_copy)


def test_an_unknown_detector(tmp_path):
    with pytest.raises(ValueError, match="no detector 'zq'"):
        Surrogate.load(made_bundle(tmp_path / "bundle", ZN, detector="zq"))


def test_a_card_of_another_graph(tmp_path):
    with pytest.raises(ValueError, match=r"the graph in .* does not fit its card"):
        Surrogate.load(made_bundle(tmp_path / "bundle", ZN, noise_dim=5))


def test_a_readout_has_no_responses(tmp_path, surrogate, primaries):
    readout = replace(surrogate, card={**surrogate.card, "kind": "readout"})
    with pytest.raises(ValueError, match="predicts channel sums only"):
        readout.sample(primaries)


def test_sums_are_read_by_sha256sum(bundle):
    wanted = "".join(f"{sha256(bundle / name)}  {name}\n" for name in (CARD, GRAPH))
    assert (bundle / SUMS).read_text() == wanted
    assert read_card(bundle)["files"] == {GRAPH: sha256(bundle / GRAPH)}


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def sample(caloforge):
    """Runs the verb; returns exit code and standard error."""

    def run(*arguments):
        code, _, err = caloforge("sample", *arguments)
        return code, err

    return run


@pytest.fixture
def particles_file(tmp_path, primaries):
    with create(tmp_path / "particles.h5", ZN) as writer:
        writer.append(primaries)
    return tmp_path / "particles.h5"


@pytest.fixture
def strange_file(tmp_path, strange):
    with create(tmp_path / "strange.h5", ZN) as writer:
        writer.append(strange)
    return tmp_path / "strange.h5"


def test_sample_writes_what_the_library_gives(sample, bundle, surrogate, primaries, particles_file, tmp_path):
    out = tmp_path / "out.h5"
    assert sample(bundle, particles_file, out, "--seed", 5, "--first-event", 9, "--threads", 2) == (0, "")
    events = open_events(out).slices(slice(None))
    np.testing.assert_array_equal(
        events.responses, surrogate.sample(primaries, seed=5, first_event=9).responses
    )
    origin = provenance(out)
    assert origin["bundle"] == sha256(bundle / CARD)
    assert [origin[key] for key in ("seed", "first_event", "batch_size", "split", "outside_domain")] == [
        5,
        9,
        BATCH,
        "canonical",
        0,
    ]


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".root"])
def test_the_column_in_domain(sample, bundle, strange_file, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    code, err = sample(bundle, strange_file, out)
    assert (code, "--on-outside warn or flag" in err, out.exists()) == (2, True, False)
    for choice in ("warn", "flag"):
        code, err = sample(bundle, strange_file, out, "--on-outside", choice)
        assert (code, "warning: 1 of 120" in err) == (0, choice == "warn")
        if suffix == ".h5":
            with h5py.File(out) as file:
                column = file["in_domain"][()]
        elif suffix == ".npz":
            column = np.load(out)["in_domain"]
        else:
            column = root.further(out).read(0, 120)["in_domain"]
        assert column.dtype == np.bool_
        assert np.flatnonzero(~column).tolist() == [5]
        assert provenance(out)["outside_domain"] == 1
        assert len(open_events(out)) == 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "solver.steps=2"), "settings and device are for a run"),
        (("--on-outside", "maybe"), "error, warn, flag, got 'maybe'"),
        (("--exact", "--batch-size", 3), "exact fixes the batch"),
    ],
)
def test_arguments_that_do_not_fit(sample, bundle, particles_file, tmp_path, arguments, message):
    code, err = sample(bundle, particles_file, tmp_path / "out.h5", *arguments)
    assert (code, message in err) == (2, True)
    assert not (tmp_path / "out.h5").exists()


def test_a_bundle_that_is_refused_writes_nothing(sample, bundle_copy, particles_file, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    graph = (bundle_copy / GRAPH).read_bytes()
    (bundle_copy / GRAPH).write_bytes(graph[:100] + bytes([graph[100] ^ 1]) + graph[101:])
    code, err = sample(bundle_copy, particles_file, out)
    assert (code, f"is damaged: {GRAPH} is not what {SUMS} says" in err, out.exists()) == (2, True, False)
    (bundle_copy / GRAPH).unlink()
    code, err = sample(bundle_copy, particles_file, out)
    assert (code, f"has no {GRAPH}: it is incomplete" in err, out.exists()) == (2, True, False)
    other = made_bundle(tmp_path / "other", ZP)
    code, err = sample(other, particles_file, out)
    assert (code, "the file is of detector zn, wanted zp" in err, out.exists()) == (2, True, False)
    newer = made_bundle(tmp_path / "newer")
    monkeypatch.setattr("caloforge.runtime.bundle.FORMAT", 0)
    code, err = sample(newer, particles_file, out)
    assert (code, "has format 1, this version of caloforge reads up to 0" in err) == (2, True)


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e-3"])
def test_what_is_no_particle_never_reaches_the_network(
    sample, bundle, primaries, tmp_path, monkeypatch, value, suffix
):
    """Not a number, without bound, or an energy below the momentum; in whatever slice of the file."""
    monkeypatch.setattr("caloforge.io.source.SLICE", 16)
    path = tmp_path / f"particles{suffix}"
    with create(path, ZN) as writer:
        writer.append(primaries)
    if suffix == ".csv":
        lines = path.read_text().splitlines()
        lines[41] = ",".join([value, *lines[41].split(",")[1:]])
        path.write_text("\n".join(lines))
    else:
        with h5py.File(path, "a") as file:
            file["conditions"][40, 0] = float(value)
    called = []
    monkeypatch.setattr(
        "caloforge.runtime.session.Session.__call__", lambda *arguments: called.append(arguments)
    )
    code, err = sample(bundle, path, tmp_path / "out.h5", "--on-outside", "flag")
    assert (code, "row 40" in err, "energy" in err, called) == (2, True, True, [])
    assert not (tmp_path / "out.h5").exists()


def test_particles_come_slice_by_slice(
    sample, bundle, surrogate, strange, strange_file, tmp_path, monkeypatch
):
    for module in ("caloforge.io.source", "caloforge.runtime.domain"):
        monkeypatch.setattr(f"{module}.SLICE", 16)
    out = tmp_path / "out.h5"
    code, err = sample(bundle, strange_file, out, "--seed", 4)
    assert (code, "1 of 120 particles are outside" in err, "first in row 5" in err) == (2, True, True)
    assert sample(bundle, strange_file, out, "--seed", 4, "--on-outside", "flag") == (0, "")
    events = open_events(out).slices(slice(None))
    wanted = surrogate.sample(strange, seed=4, on_outside="flag")
    np.testing.assert_array_equal(events.responses, wanted.responses)
    np.testing.assert_array_equal(events.group, wanted.group)


def test_sampling_needs_no_torch(bundle, particles_file, tmp_path):
    code = (
        "import sys\n"
        "for name in ('torch', 'safetensors', 'sklearn', 'lightning_fabric', 'onnx'): sys.modules[name] = None\n"
        f"sys.argv = ['caloforge', 'sample', {str(bundle)!r}, {str(particles_file)!r}, {str(tmp_path / 'out.h5')!r}]\n"
        "from caloforge import cli; cli.main()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    assert len(open_events(tmp_path / "out.h5")) == 120


@pytest.mark.slow
def test_a_fresh_environment_samples_from_a_bundle(bundle, surrogate, primaries, particles_file, tmp_path):
    """Installs the wheel alone, no extras, with what pip finds by its own configuration."""
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    source = Path(caloforge.__file__).parents[2]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command, code=0):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    pip = [programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", "dist", source)
    (wheel,) = (tmp_path / "dist").iterdir()
    run(*pip, "install", wheel)
    for absent in ("torch", "onnx", "safetensors", "sklearn"):
        assert f"No module named '{absent}'" in run(programs / "python", "-c", f"import {absent}", code=1)
    assert str(tmp_path / "venv") in run(
        programs / "python", "-c", "import caloforge; print(caloforge.__file__)"
    )
    run(programs / "caloforge", "sample", bundle, particles_file, "out.h5")
    events = open_events(tmp_path / "out.h5").slices(slice(None))
    np.testing.assert_array_equal(events.responses, surrogate.sample(primaries).responses)
