"""Broken text files and archives: read equal, or refused in one line."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from caloforge.detectors import ZN
from caloforge.io import convert, open_events, open_primaries

CASES = Path(__file__).parents[3] / "shared" / "cases"
HEADER = "HepMC::Version 3.02.06\nHepMC::Asciiv3-START_EVENT_LISTING\n"
FOOTER = "HepMC::Asciiv3-END_EVENT_LISTING\n"
EVENT = "E {} 1 3\nU GEV MM\nW 0.5\nP 1 0 2212 0 0 6.8e3 6.8e3 0.938 4\nV -1 0 [1]\nP 2 -1 22 0 0 10 10 0 1\n"
EVENT += "P 3 -1 22 0 0 100 100 0 1\n"
VALID = HEADER + "".join(EVENT.format(number) for number in range(4)) + FOOTER
LOOP = "E 0 2 3\nU GEV MM\nP 1 0 2212 0 0 6e3 6e3 0 4\nV -1 0 [1,2]\nP 2 -1 22 0 0 10 10 0 1\nV -2 0 [2]\n"
LOOP += "P 3 -2 22 0 0 10 10 0 1\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (VALID.replace("GEV MM", "TEV KM"), "event 0 .* line 4: units"),
        (VALID.replace("E 1 1 3", "E 1 1 2000000000"), "event 1 .*2000000000 particles declared, 3 found"),
        (VALID.replace("E 2", "X junk\nE 2"), "event 1 .* line 17: wanted a line"),
        (HEADER + LOOP + FOOTER, "event 0 .*loop"),
        (VALID.removeprefix(HEADER), "line 1: the header"),
        (VALID.removesuffix(FOOTER), "event 3 .*the end of the file is missing"),
        (VALID[:-60], "event 3 .*line 29"),
        (VALID.replace("0 0 10 10", "0 0 \0 10", 1), "event 0 .* line 8: .*NUL"),
        (VALID.replace("P 2 -1", "P 2 -7", 1), "comes from -7"),
        (VALID.replace("0 0 10 10", "0 0 nan 10", 1), "not finite"),
    ],
)
def test_a_broken_generator_file_names_event_and_line(tmp_path, text, problem, capfd):
    path = tmp_path / "a.hepmc"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem) as error:
        open_primaries(path, ZN)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("out", ["a.h5", "a.npz", "a.parquet", "a.root"])
def test_numbers_and_weights_of_events_go_along(tmp_path, out):
    for extra in {".parquet": ["pyarrow"], ".root": ["uproot"]}.get(Path(out).suffix, []):
        pytest.importorskip(extra)
    from caloforge.io import carried

    path = tmp_path / "in.hepmc3.gz"
    path.write_bytes(gzip.compress(VALID.encode()))
    convert(path, tmp_path / out, ZN)
    convert(tmp_path / out, tmp_path / f"again-{out}")
    columns = carried(tmp_path / f"again-{out}").read(0, 8)
    np.testing.assert_array_equal(columns["event"], np.repeat(np.arange(4), 2))
    np.testing.assert_array_equal(columns["weight"], np.full(8, 0.5))


def test_tables_with_repeated_names_or_large_cells(tmp_path):
    names, row = "energy,vx,vy,vz,px,py,pz,mass,charge,pdg", "10,0,0,0,0,0,10,0,0,22"
    path = tmp_path / "a.csv"
    path.write_text(f"{names},pdg\n{row},22\n")
    with pytest.raises(ValueError, match="'pdg' stands twice"):
        open_primaries(path, ZN)
    path.write_text(f"{names},note\n{row},{'x' * 200_000}\n")
    with pytest.raises(ValueError, match="line 2: field larger"):
        open_primaries(path, ZN)
    path.write_text(f"{names},note\r\n{row},{'x' * 100_000}\r\n" + f"{row},a\r\n" * 20)
    assert len(open_primaries(path, ZN)) == 21


@pytest.mark.parametrize("name", ["pdg", "conditions"])
@pytest.mark.parametrize("kind", ["scalar", "complex", "text"])
def test_archives_of_other_shapes_and_types(tmp_path, events, name, kind):
    columns = {"conditions": events.conditions, "pdg": events.pdg, "responses": events.responses}
    column = columns[name]
    columns[name] = {"scalar": np.array(3), "complex": column + 1j, "text": column.astype(str)}[kind]
    np.savez(tmp_path / "a.npz", **columns)
    with pytest.raises(ValueError, match=f"{name} must"):
        open_events(tmp_path / "a.npz")


def test_an_archive_that_declares_more_than_it_stores(tmp_path, events):
    import io
    import zipfile

    path = tmp_path / "a.npz"
    np.savez(path, pdg=events.pdg, responses=events.responses)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**15, 9)}
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("conditions.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"declares .* but 0 are stored"):
        open_events(path)


def _shared():
    lines = (CASES / "manifest.tsv").read_text().splitlines()[1:] if CASES.is_dir() else []
    rows = [line.split("\t")[:2] for line in lines]
    return [row for row in rows if row[0][:2] in ("c_", "m_", "n_") and row[0] != "n_detrel.npz"]


@pytest.mark.parametrize(("name", "verdict"), _shared())
def test_shared_cases(tmp_path, name, verdict):
    try:
        convert(CASES / name, tmp_path / "out.h5", None if name.endswith(".npz") else ZN)
    except (ValueError, OSError) as error:
        problem = str(error)
    else:
        problem = ""
    assert "\n" not in problem
    assert problem or verdict == "any"
    assert not problem or list(tmp_path.iterdir()) == []
