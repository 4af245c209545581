import numpy as np
import pytest

from caloforge.runtime import noise
from caloforge.runtime.noise import philox, standard_normals, uniform_words


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # known answers of the Random123 distribution
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    np.testing.assert_array_equal(philox(counter, key), expected)


KNOWN = [0x3F7DBB33, 0xBF6CB6B0, 0xBF1E1B9F, 0xBEF6D1B2]
"""Bits of the first four normals of seed 0, event 0."""


def test_normals_give_the_known_answers():
    words = uniform_words(1, [2], 1)[0].astype(np.float64)
    u = (words + 0.5) / 2**32
    expected = [
        np.sqrt(-2 * np.log(u[0])) * np.cos(2 * np.pi * u[1]),
        np.sqrt(-2 * np.log(u[0])) * np.sin(2 * np.pi * u[1]),
        np.sqrt(-2 * np.log(u[2])) * np.cos(2 * np.pi * u[3]),
        np.sqrt(-2 * np.log(u[2])) * np.sin(2 * np.pi * u[3]),
    ]
    np.testing.assert_array_equal(standard_normals(1, [2], 4)[0], np.float32(expected))
    np.testing.assert_array_equal(
        standard_normals(0, [0], 4)[0].view(np.uint32), KNOWN, err_msg="the noise of every event has changed"
    )


def test_an_event_has_the_same_noise_in_any_batch():
    alone = standard_normals(7, [3], 10)
    np.testing.assert_array_equal(standard_normals(7, [5, 3, 2**40], 10)[1:2], alone)
    np.testing.assert_array_equal(standard_normals(7, [3], 7), alone[:, :7])


def test_seed_event_and_stream_all_matter():
    base = standard_normals(0, [0], 4)
    for other in (
        standard_normals(1, [0], 4),
        standard_normals(2**32, [0], 4),
        standard_normals(0, [1], 4),
        standard_normals(0, [2**32], 4),
        standard_normals(0, [0], 4, stream=1),
    ):
        assert (other != base).all()


def test_normals_are_standard_and_independent():
    normals = standard_normals(0, np.arange(2000), 50).astype(np.float64)
    n = normals.size
    assert abs(normals.mean()) < 4 / np.sqrt(n)
    assert abs(normals.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((normals**4).mean() - 3) < 4 * np.sqrt(96 / n)
    correlation = np.corrcoef(normals, rowvar=False) - np.eye(50)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)
    neighbours = (normals[1:] * normals[:-1]).mean()
    assert abs(neighbours) < 4 / np.sqrt(n)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_must_have_64_bits(seed):
    with pytest.raises(ValueError, match="seed must be"):
        standard_normals(seed, [0], 4)


def test_normals_are_those_of_the_formula_to_the_last_digit():
    seed, events, size = 3, np.arange(300), 1974
    words = uniform_words(seed, events, -(-size // 4))
    u = (words.astype(np.float64) + 0.5) * 2.0**-32
    radius, angle = np.sqrt(-2.0 * np.log(u[:, 0::2])), 2.0 * np.pi * u[:, 1::2]
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).astype(np.float32)
    np.testing.assert_array_equal(standard_normals(seed, events, size), normals.reshape(300, -1)[:, :size])


def test_where_last_digits_matter_the_formula_itself_is_taken():
    words = np.arange(2**20, dtype=np.uint64) * np.uint64(4093)
    radius = np.sqrt(-2.0 * np.log((words + 0.5) * 2.0**-32))
    angle = 2.0 * np.pi * ((words + 0.5) * 2.0**-32)
    pairs = noise._normals(words.copy(), words.copy())
    np.testing.assert_array_equal(pairs.real.astype(np.float32), (radius * np.cos(angle)).astype(np.float32))
    np.testing.assert_array_equal(pairs.imag.astype(np.float32), (radius * np.sin(angle)).astype(np.float32))


@pytest.mark.parametrize(("batch_size", "events"), [(1, 40), (3, 20), (32, 64), (5000, 2), (2, 0)])
def test_noise_in_batches_is_that_of_the_events(batch_size, events):
    numbers = np.arange(7, 7 + events)
    parts = list(noise.normals_in_batches(3, numbers, 1974, batch_size))
    assert [len(part) for part in parts[:-1]] == [batch_size] * (len(parts) - 1)
    together = np.concatenate(parts) if parts else np.empty((0, 1974), np.float32)
    np.testing.assert_array_equal(together, standard_normals(3, numbers, 1974))
