"""Files of trials: what is written is read, what is broken is refused with its row."""

import h5py
import numpy as np
import pytest

from caloforge.detectors import ZN
from caloforge.io import open_primaries, open_trials, provenance, write_trials
from caloforge.samples import TRIALS, sample
from made_o2 import made_trials

NAMES = ("conditions", "pdg", "group", "fold", "trials", "hits")


@pytest.fixture
def path(tmp_path):
    write_trials(tmp_path / "made.h5", made_trials(), {"made": True})
    return tmp_path / "made.h5"


def change(path, **columns):
    with h5py.File(path, "a") as file:
        for name, values in columns.items():
            del file[name]
            if values is not None:
                file[name] = values


def test_what_is_written_is_read(path):
    wanted, got = made_trials(), open_trials(path)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
    assert provenance(path) == {"made": True}
    assert len(open_primaries(path)) == len(wanted)


def test_rows_that_were_never_shot_are_left_out(path):
    wanted = made_trials()
    trials, hits = wanted.trials.copy(), wanted.hits.copy()
    trials[3], hits[3] = 0, 0
    change(path, trials=trials, zn_hits=hits[:, 0], zp_hits=hits[:, 1], any_hits=hits[:, 2])
    np.testing.assert_array_equal(open_trials(path).group, np.delete(wanted.group, 3))
    change(path, trials=np.zeros_like(trials))
    with pytest.raises(ValueError, match=r"made.h5: no primary was shot"):
        open_trials(path)


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("zp_hits", None, r"no key 'zp_hits'; the file has .*, did you mean 'z[np]_hits'"),
        ("trials", np.full(7, 5), r"different length: conditions 200, trials 7"),
        ("trials", np.full(200, 4.5), r"trials must be whole 32-bit numbers, got 4.5 in row 0"),
        ("trials", np.full(200, -1), r"trials must not be negative, got -1 in row 0"),
        ("any_hits", np.full(200, 9), r"hits in any must not exceed the trials, .* in row 0"),
    ],
)
def test_broken_files_are_refused(path, name, values, problem):
    change(path, **{name: values})
    with pytest.raises(ValueError, match=f"made.h5: .*{problem}"):
        open_trials(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_trials(tmp_path / "none.h5")
    with pytest.raises(ValueError, match=r"trials are kept in .h5"):
        open_trials(tmp_path / "made.csv")


def test_a_file_that_names_no_detector(path):
    with h5py.File(path, "a") as file:
        del file.attrs["detector"]
    assert len(open_trials(path, ZN)) == 200
    with pytest.raises(ValueError, match="does not say its detector"):
        open_trials(path)


def test_the_sample_holds_every_part_and_every_kind_of_hit():
    trials = open_trials(sample(TRIALS))
    fold = trials.fold
    assert min((fold < 2).sum(), (fold == 2).sum(), (fold >= 3).sum()) > 10_000
    assert (trials.hits[fold < 2].sum(0) > 1000).all()
    assert set(np.unique(trials.trials)) == {1, 15}
    assert sample(TRIALS).stat().st_size < 2_000_000
