"""Bundles with a zero response: right fractions, decided by the event alone, and nothing else changes."""

import numpy as np
import onnx
import pytest

from caloforge.detectors import ZN, ZP
from caloforge.events import Primaries, load
from caloforge.io import create, open_events, provenance
from caloforge.io.files import read_json
from caloforge.runtime import Surrogate
from caloforge.runtime.bundle import GRAPH, SUMS, ZERO, write_card
from made import made_events
from made_bundle import made_bundle, made_card, made_graph
from made_o2 import made_probabilities

CHANCE = (0.3, 0.2, 0.4)


def particles(detector=ZN, n=1000, chance=CHANCE):
    """Photons whose vertex holds the probabilities that the made-up zero response reads."""
    conditions = np.zeros((n, 9), np.float32)
    conditions[:, [0, 6]] = np.linspace(500, 1500, n)[:, None]
    conditions[:, 1:4] = chance
    return Primaries(detector, conditions, np.full(n, 22))


def zero_bundle(path, detector=ZN, **changes):
    path.mkdir()
    onnx.save(made_graph(detector), path / GRAPH)
    onnx.save(made_probabilities(), path / ZERO)
    write_card(path, {**made_card(detector), "zero": {"name": "made-zero"}, **changes})
    return path


@pytest.fixture(scope="module")
def surrogates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero")
    found = {d.name: Surrogate.load(zero_bundle(folder / d.name, d)) for d in (ZN, ZP)}
    return found | {"all": Surrogate.load(made_bundle(folder / "all"))}


def sample(surrogate, primaries, **options):
    return surrogate.sample(primaries, on_outside="flag", **options).responses


def test_fractions_and_coincidence(surrogates):
    n = 6000
    zn, zp = (sample(surrogates[d.name], particles(d, n), seed=2).any((1, 2)) for d in (ZN, ZP))
    first, second, either = CHANCE
    both = first + second - either
    for wanted, got in ((first, zn), (second, zp), (either, zn | zp), (both, zn & zp)):
        assert got.mean() == pytest.approx(wanted, abs=5 * np.sqrt(wanted * (1 - wanted) / n))


def test_a_response_that_is_there_is_the_one_without_zero_response(surrogates):
    with_zeros, without = (sample(surrogates[name], particles(), seed=5) for name in ("zn", "all"))
    lit = with_zeros.any((1, 2))
    assert 0 < lit.sum() < len(lit)
    np.testing.assert_array_equal(with_zeros[lit], without[lit])
    assert with_zeros.dtype == without.dtype == np.uint16


def test_shards_order_and_batches(surrogates):
    surrogate, primaries = surrogates["zn"], particles(n=200)
    whole = sample(surrogate, primaries, seed=1, exact=True)
    for start, stop in ((0, 50), (50, 51), (51, 200)):
        part = sample(surrogate, primaries.select(slice(start, stop)), seed=1, first_event=start, exact=True)
        np.testing.assert_array_equal(part, whole[start:stop])
    source = surrogate.source(primaries, seed=1, exact=True)
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(source.slices(order).responses, whole[order])
    np.testing.assert_array_equal(load(surrogate.source(primaries, seed=1, batch_size=7)).responses, whole)
    assert (sample(surrogate, primaries, seed=2) != whole).any()


def test_nothing_responds(surrogates):
    responses = sample(surrogates["zn"], particles(n=5, chance=(0, 0, 0)))
    assert responses.shape == (5, 44, 44)
    assert not responses.any()


def test_channel_sums(surrogates):
    surrogate, primaries = surrogates["zn"], particles(n=100)
    sums = surrogate.channel_sums(primaries, seed=3, on_outside="flag")
    np.testing.assert_array_equal(sums, ZN.readout(sample(surrogate, primaries, seed=3)))


@pytest.mark.parametrize("damage", ["lost", "changed", "unlisted"])
def test_a_damaged_zero_response_is_refused(tmp_path, damage):
    bundle = zero_bundle(tmp_path / "bundle")
    if damage == "lost":
        (bundle / ZERO).unlink()
    elif damage == "changed":
        (bundle / ZERO).write_bytes((bundle / ZERO).read_bytes() + b"x")
    else:
        lines = (bundle / SUMS).read_text().splitlines(keepends=True)
        (bundle / SUMS).write_text("".join(line for line in lines if ZERO not in line))
    with pytest.raises(ValueError, match=r"has no zero.onnx|is damaged"):
        Surrogate.load(bundle)


def test_the_provenance_says_so(caloforge, tmp_path):
    bundle = zero_bundle(tmp_path / "bundle")
    with create(tmp_path / "primaries.h5", ZN) as writer:
        writer.append(made_events(particles=10).primaries)
    words = ["sample", bundle, tmp_path / "primaries.h5", tmp_path / "events.h5", "--on-outside", "flag"]
    assert caloforge(*words)[0] == 0
    assert provenance(tmp_path / "events.h5")["zero_response"] == "made-zero"
    assert len(open_events(tmp_path / "events.h5")) == 40
    assert read_json(bundle / "card.json")["files"].keys() == {GRAPH, ZERO}
