import numpy as np
import pytest

from caloforge.metrics.showers import prdc


def test_prdc_by_hand():
    # radii to the nearest other: real 1, 1, 8; generated 0.25, 0.25, 39.5
    real, generated = np.array([[0.0], [1.0], [9.0]]), np.array([[0.25], [0.5], [40.0]])
    found = prdc(real, generated, k=1)
    # 0.25 and 0.5 lie within 1 of both 0 and 1, and 8.75 and 8.5 from 9: not within 8; 40 in none
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx(4 / 3)
    assert found["coverage"] == pytest.approx(2 / 3)
    # 0 is 0.25 from 0.25, not less; 1 is 39 from 40; 9 is 31 from 40
    assert found["recall"] == pytest.approx(2 / 3)


def test_prdc_agrees_with_loops():
    rng = np.random.default_rng(0)
    real, generated, k = rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) * 1.3, 5
    d = np.linalg.norm(real[:, None] - generated, axis=2)
    r = np.sort(np.linalg.norm(real[:, None] - real, axis=2), axis=1)[:, k]
    s = np.sort(np.linalg.norm(generated[:, None] - generated, axis=2), axis=1)[:, k]
    wanted = {
        "precision": (d < r[:, None]).any(0).mean(),
        "recall": (d < s).any(1).mean(),
        "density": (d < r[:, None]).sum() / (k * 30),
        "coverage": (d < r[:, None]).any(1).mean(),
    }
    assert prdc(real, generated, k) == pytest.approx(wanted)
