"""Files whose columns have names of their own, or that lack what other columns tell."""

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from caloforge.detectors import CRYSTALS, DS2, ZN
from caloforge.events import load
from caloforge.io import convert, open_data, open_events, open_primaries
from caloforge.io.columns import Layout, layout_of, layout_path, parse_columns, remember, remembered
from caloforge.particles import mass_and_charge

OTHERS = dict(
    zip(ZN.features, ("E", "prod_x", "prod_y", "prod_z", "p_x", "p_y", "p_z", "m", "q"), strict=True)
)
OTHERS |= {"pdg": "pid", "responses": "cells"}
LAYOUT = layout_of(OTHERS)


def columns_of(events):
    """Columns of events under other names."""
    columns = {OTHERS[name]: column for name, column in zip(ZN.features, events.conditions.T, strict=True)}
    return {**columns, "pid": events.pdg, "cells": events.responses.reshape(len(events), -1)}


def write_csv(path, columns):
    names = [name for name, column in columns.items() if column.ndim == 1]
    rows = zip(*(columns[name] for name in names), strict=True)
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n")


def write_parquet(path, columns):
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), path)


def write_root(path, columns):
    with uproot.recreate(path) as file:
        file["T"] = columns


def write_npz(path, columns):
    np.savez(path, **columns)


def write_hdf5(path, columns):
    with h5py.File(path, "w") as file:
        file.update(columns)


WRITERS = {
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".root": write_root,
    ".npz": write_npz,
    ".h5": write_hdf5,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_columns_of_other_names_are_read(tmp_path, events, suffix):
    path = tmp_path / f"a{suffix}"
    columns = columns_of(events)
    columns["event"] = np.arange(8) // 3
    WRITERS[suffix](path, columns)
    layout = layout_of(
        {name: source for name, source in OTHERS.items() if suffix != ".csv" or name != "responses"}
    )
    particles = open_primaries(path, ZN, layout)
    np.testing.assert_array_equal(particles.conditions, events.conditions)
    np.testing.assert_array_equal(particles.pdg, events.pdg)
    if suffix == ".csv":
        return
    source = open_events(path, ZN, layout)
    np.testing.assert_array_equal(load(source).responses, events.responses)
    np.testing.assert_array_equal(source.slices(np.array([5, 1])).responses, events.responses[[5, 1]])
    convert(path, tmp_path / "b.h5", ZN, layout=layout)
    np.testing.assert_array_equal(load(open_events(tmp_path / "b.h5")).responses, events.responses)
    with h5py.File(tmp_path / "b.h5") as file:
        np.testing.assert_array_equal(file["event"], columns["event"])  # goes with its rows


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_of_other_names_says_the_command_that_reads_it(tmp_path, events, suffix):
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, columns_of(events))
    with pytest.raises(ValueError, match=r"no .*; the file has .*E, .*try: caloforge data inspect") as error:
        open_data(path, ZN)
    command = str(error.value).partition(" --columns ")[2].split()[0]
    pairs = OTHERS if suffix != ".csv" else {k: v for k, v in OTHERS.items() if k != "responses"}
    assert parse_columns(command) == pairs
    assert str(error.value).endswith("--remember")


def test_a_remembered_layout_is_read_with_the_file(tmp_path, events):
    path = tmp_path / "a.root"
    write_root(path, columns_of(events))
    with uproot.update(path) as file:
        file["other"] = {"x": np.arange(3)}
    layout = layout_of(OTHERS | {"fold": 3}, "T", "zn")
    assert remember(path, layout) == layout_path(path) == tmp_path / "a.root.columns.toml"
    assert remembered(path) == layout
    found = load(open_events(path))
    np.testing.assert_array_equal(found.responses, events.responses)
    np.testing.assert_array_equal(found.fold, 3)
    with pytest.raises(ValueError, match="no tree 'events'"):
        open_events(path, ZN, Layout())  # what is given counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns = 3", "columns are names or numbers"),
        ("[columns]\nenergy = true", "columns are names or numbers"),
        ("tree = 1", "tree and detector names"),
        ("trees = 'a'", "no key 'trees'; there are columns, tree, detector"),
        ("detector = 'os:system'", "no detector 'os:system'.*: give it by --detector"),
        ("detector = ", r"columns\.toml: Invalid value"),
    ],
)
def test_a_layout_that_is_none_is_named(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text("energy,pdg\n1,22\n")
    layout_path(path).write_text(text)
    with pytest.raises(ValueError, match=message):
        open_primaries(path, DS2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("enrgy=E", r"zn has no column 'enrgy', did you mean 'energy'\?"),
        ("energy=F", r"no column 'F'; the file has E, prod_x, .*"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(tmp_path, events, columns, message):
    write_csv(tmp_path / "a.csv", columns_of(events))
    with pytest.raises(ValueError, match=message):
        open_primaries(tmp_path / "a.csv", ZN, layout_of(parse_columns(columns)))


def test_columns_are_parsed():
    assert parse_columns("energy=E, pdg=-22,vx=1e-3") == {"energy": "E", "pdg": -22.0, "vx": 1e-3}
    for text, message in (
        ("energy", "got 'energy'"),
        ("energy=E,", "got ''"),
        ("a=b,a=c", "column a is given twice"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_columns(text)


# --- what other columns tell ---------------------------------------------------------------------------------


def test_mass_and_charge_follow_from_the_pdg_id(tmp_path, events):
    columns = columns_of(events)
    pdg = np.where(np.arange(8) % 2, 211, 2112)
    layout = layout_of({name: OTHERS[name] for name in (*ZN.features[:-2], "pdg")})
    write_csv(
        tmp_path / "a.csv", {name: columns[name] for name in columns if name not in ("m", "q")} | {"pid": pdg}
    )
    found = open_primaries(tmp_path / "a.csv", ZN, layout)
    np.testing.assert_array_equal(
        found.conditions[:, -2:], np.float32([mass_and_charge(int(one)) for one in pdg])
    )
    np.testing.assert_array_equal(found.conditions[:, :-2], events.conditions[:, :-2])
    write_csv(tmp_path / "a.csv", {**columns_of(events), "pid": np.full(8, 99999)})
    with pytest.raises(ValueError, match=r"no column 'mass', and the PDG tables do not know 99999 in row 0"):
        open_primaries(tmp_path / "a.csv", ZN, layout)


def test_momentum_follows_from_energy_and_angles(tmp_path):
    mass = mass_and_charge(2112)[0]
    energy, theta, phi = np.array([2.0, 50.0]), np.array([0.1, 3.0]), np.array([0.5, -2.0])
    write_csv(tmp_path / "a.csv", {"energy": energy, "theta": theta, "phi": phi})
    layout = layout_of({"pdg": 2112, "vx": 0, "vy": 0, "vz": 0})
    found = open_primaries(tmp_path / "a.csv", ZN, layout)
    px, py, pz = (found.feature(name).astype(float) for name in ("px", "py", "pz"))
    np.testing.assert_allclose(px**2 + py**2 + pz**2 + mass**2, energy**2, rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(py, px), phi, rtol=1e-6)
    np.testing.assert_allclose(np.arccos(pz / np.sqrt(energy**2 - mass**2)), theta, rtol=1e-5)
    write_csv(tmp_path / "b.csv", {"energy": energy / 10, "theta": theta, "phi": phi})
    with pytest.raises(ValueError, match=r"at least the mass 0\.939565, got 0\.2 in row 0"):
        open_primaries(tmp_path / "b.csv", ZN, layout)


def test_energy_and_angles_follow_from_momentum(tmp_path):
    columns = {
        name: np.array([value]) for name, value in zip(("px", "py", "pz"), (0.3, 0.4, -1.2), strict=True)
    }
    write_csv(tmp_path / "a.csv", {**columns, "pdg": np.array([22])})
    found = open_primaries(tmp_path / "a.csv", ZN, layout_of({"vx": 0, "vy": 0, "vz": 0}))
    assert found.feature("energy")[0] == pytest.approx(1.3)
    write_csv(tmp_path / "b.csv", {**columns, "energy": np.array([1300.0]), "pdg": np.array([22])})
    angles = open_primaries(tmp_path / "b.csv", CRYSTALS)
    assert angles.feature("theta")[0] == pytest.approx(np.pi - np.arctan2(0.5, 1.2))
    assert angles.feature("phi")[0] == pytest.approx(np.arctan2(0.4, 0.3))


def test_a_misspelt_column_is_not_made_up(tmp_path, events):
    write_csv(tmp_path / "a.csv", {**columns_of(events), "mas": np.zeros(8)})
    layout = layout_of({name: OTHERS[name] for name in (*ZN.features[:-2], "pdg")})
    with pytest.raises(ValueError, match=r"no column 'mass'; .* did you mean 'mas'\?"):
        open_primaries(tmp_path / "a.csv", ZN, layout)


SHOWERS = {
    "energy": np.linspace(50, 900, 8),
    "theta": np.full((8, 1), 0.1),
    "phi": np.linspace(-3, 3, 8),
    "showers": np.random.default_rng(0).random((8, 20, 20, 1), np.float32),
}


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_showers_that_know_energy_and_angles_only(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, SHOWERS)
    with pytest.raises(ValueError, match=r"did you mean 'showers'\? try: .* --columns responses=showers"):
        open_events(path, CRYSTALS)
    with pytest.raises(ValueError, match=r"no column 'pdg'; .* --columns pdg=ID --remember"):
        open_events(path, CRYSTALS, layout_of({"responses": "showers"}))
    found = load(open_events(path, CRYSTALS, layout_of({"responses": "showers", "pdg": 22})))
    np.testing.assert_array_equal(found.responses, SHOWERS["showers"][..., 0])
    np.testing.assert_array_equal(found.feature("theta"), np.float32(0.1))
    np.testing.assert_array_equal(found.pdg, 22)


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_conditions_without_a_pdg_id(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    conditions = np.column_stack([SHOWERS["energy"], SHOWERS["theta"], SHOWERS["phi"]])
    columns = {"conditions": conditions, "responses": SHOWERS["showers"], "fold": np.zeros((8, 1), int)}
    WRITERS[suffix](path, columns)
    with pytest.raises(
        ValueError, match=r"no column 'pdg'; the file has conditions, .* --columns pdg=ID --remember"
    ):
        open_events(path)
    found = load(open_events(path, None, layout_of({"pdg": 22})))
    np.testing.assert_array_equal(found.conditions, conditions.astype(np.float32))
    assert found.responses.shape == (8, 20, 20)
    assert (found.fold == 0).all()


def test_showers_of_the_challenges_names_for_another_detector(tmp_path):
    path = tmp_path / "a.hdf5"
    columns = {"incident_energies": SHOWERS["energy"][:, None], "showers": SHOWERS["showers"].reshape(8, -1)}
    write_hdf5(path, {**columns, "theta": SHOWERS["theta"], "phi": SHOWERS["phi"]})
    with pytest.raises(
        ValueError,
        match=r"--detector crystals --columns energy=incident_energies,responses=showers --remember",
    ):
        open_events(path, CRYSTALS)
    layout = layout_of({"energy": "incident_energies", "responses": "showers", "pdg": 22})
    found = load(open_events(path, CRYSTALS, layout))
    np.testing.assert_array_equal(found.responses, SHOWERS["showers"][..., 0])


def test_the_pdg_id_of_a_detector_of_one_particle(tmp_path):
    write_csv(tmp_path / "a.csv", {"incident_energy": np.array([1000.0, 2000.0])})
    np.testing.assert_array_equal(open_primaries(tmp_path / "a.csv", DS2).pdg, 11)
