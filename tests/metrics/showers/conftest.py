import pytest

from caloforge.metrics.showers import Smeared, observe_showers
from made_showers import QUICK, made_showers


@pytest.fixture(scope="module")
def sets():
    """Simulated showers, others like them, and the first smeared."""
    source = made_showers(rows=120)
    reference = observe_showers(source, sizes=QUICK)
    others = observe_showers(made_showers(rows=120, seed=1), reference.edges, QUICK)
    return reference, others, observe_showers(Smeared(source), reference.edges, QUICK)
