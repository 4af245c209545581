import numpy as np
import pytest
import torch

from caloforge.nn.hyperbolic import arcsinh, sinh


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_what_their_names_say_and_undo_each_other(dtype):
    x = torch.linspace(-6, 6, 101, dtype=dtype)
    close = 1e-5 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(sinh(x), torch.sinh(x), rtol=close, atol=close)
    np.testing.assert_allclose(arcsinh(x), torch.asinh(x), rtol=close, atol=close)
    np.testing.assert_allclose(arcsinh(sinh(x)), x, rtol=close, atol=close)
