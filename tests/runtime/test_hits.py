"""Zero responses: each module as often as its probability says, both together as often as they should."""

import numpy as np
import pytest

from caloforge.runtime.hits import responds, uniforms
from caloforge.runtime.noise import standard_normals

CASES = [(0.3, 0.2, 0.4), (0.5, 0.1, 0.5), (0.2, 0.6, 0.8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.7, 0.7)]


@pytest.mark.parametrize("case", CASES)
def test_both_modules_and_their_coincidence(case):
    n = 40_000
    u = uniforms(3, np.arange(n))
    probabilities = np.tile(np.array(case, np.float32), (n, 1))
    zn, zp = (responds(module, probabilities, u) for module in ("zn", "zp"))
    first, second, either = case
    for wanted, got in ((first, zn), (second, zp), (either, zn | zp), (first + second - either, zn & zp)):
        assert abs(got.mean() - wanted) <= 5 * np.sqrt(wanted * abs(1 - wanted) / n) + 1e-6


def test_the_uniforms_are_those_of_the_event_and_not_of_the_generators_noise():
    numbers = np.arange(1000)
    u = uniforms(1, numbers)
    np.testing.assert_array_equal(uniforms(1, numbers[::-1])[::-1], u)
    assert (uniforms(2, numbers) != u).all()
    assert 0 < u.min() < u.max() < 1
    assert abs(np.corrcoef(u, standard_normals(1, numbers, 1)[:, 0])[0, 1]) < 0.15


def test_another_module():
    with pytest.raises(ValueError, match="no zero response of 'zem' is known; there are zn, zp"):
        responds("zem", np.zeros((1, 3)), np.zeros(1))
