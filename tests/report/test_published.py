import pytest

from caloforge.report.published import PUBLISHED


@pytest.mark.parametrize(
    ("detector", "model", "expected"),
    [
        ("zn", "original data", (0.53, 16.41, None)),
        ("zn", "FM", (1.27, 16.99, 0.46)),
        ("zn", "NF (MAF)", (4.11, 19.36, 160)),
        ("zn", "diffusion (Kita)", (1.20, None, 109)),
        ("zp", "original data", (0.56, 13.00, None)),
        ("zp", "FM", (1.30, 13.69, 0.46)),
        ("zp", "latent FM", (2.87, 15.64, 0.026)),
        ("zp", "MLP", (3.22, None, None)),
    ],
)
def test_rows_are_the_publications(detector, model, expected):
    (row,) = [row for row in PUBLISHED[detector] if row.model == model]
    assert (row.w1, row.mae, row.ms) == expected


@pytest.mark.parametrize("detector", PUBLISHED)
def test_nothing_is_published_below_the_floor(detector):
    floor, *others = PUBLISHED[detector]
    assert floor.kind == "floor"
    assert all(row.w1 > floor.w1 for row in others)
