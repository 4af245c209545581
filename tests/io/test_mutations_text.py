"""Text files and archives mutated at random: read, or refused with one line."""

import random
import tracemalloc
import warnings

import numpy as np
import pytest

from caloforge.detectors import ZN
from caloforge.io import create, open_data

EVENT = "E {} 1 3\nU GEV MM\nP 1 0 2212 0 0 6.8e3 6.8e3 0.938 4\nV -1 0 [1]\nP 2 -1 22 0 0 10 10 0 1\n"
EVENT += "P 3 -1 22 0 0 100 100 0 1\n"
HEPMC = "HepMC::Version 3.02.06\nHepMC::Asciiv3-START_EVENT_LISTING\n"
HEPMC += "".join(EVENT.format(number) for number in range(4)) + "HepMC::Asciiv3-END_EVENT_LISTING\n"
SUFFIXES = [".hepmc", ".csv", ".npz"]


def _valid(path, events):
    if path.suffix == ".hepmc":
        path.write_text(HEPMC)
    else:
        with create(path, ZN) as writer:
            writer.append(events)
    return path.read_bytes()


def _mutated(content, suffix, rng):
    kind = rng.choice(["flip", "cut", "insert", "header"] + (["drop", "twice"] if suffix != ".npz" else []))
    if kind == "cut":
        return content[: rng.randrange(1, len(content))]
    if kind in ("drop", "twice"):
        lines = content.splitlines(keepends=True)
        place = rng.randrange(len(lines))
        lines[place : place + 1] = [] if kind == "drop" else [lines[place]] * 2
        return b"".join(lines) or b"\n"
    changed = bytearray(content)
    if kind == "insert":
        place = rng.randrange(len(changed))
        changed[place:place] = rng.choice([b"1e999", b"\0", b"9" * 40, b"\n", b"nan", b'"', b"\xff"])
        return bytes(changed)
    for _ in range(rng.randrange(1, 9)):
        changed[rng.randrange(min(200, len(changed)) if kind == "header" else len(changed))] = rng.randrange(
            256
        )
    return bytes(changed)


def _check(path, content, suffix, times, seed):
    rng = random.Random(seed)
    for _ in range(times):
        path.write_bytes(_mutated(content, suffix, rng))
        try:
            rows = len(open_data(path, ZN))
        except (ValueError, OSError) as error:
            problem = str(error)
        else:
            problem = "none"
            assert rows > 0
            if suffix == ".hepmc":
                assert rows <= 2 * path.read_bytes().count(b"\nE ")
        assert len(problem.splitlines()) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_hundred_mutations(tmp_path, events, suffix):
    content = _valid(tmp_path / f"a{suffix}", events)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _check(tmp_path / f"a{suffix}", content, suffix, 100, 1)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_thousand_mutations(tmp_path, events, suffix):
    content = _valid(tmp_path / f"a{suffix}", events)
    tracemalloc.start()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            _check(tmp_path / f"a{suffix}", content, suffix, 2000, 2)
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()
