import pytest

from made_bundle import made_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return made_bundle(tmp_path_factory.mktemp("bundles") / "made")
