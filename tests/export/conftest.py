import pytest

from made_run import made_run


@pytest.fixture(scope="session")
def flow_run(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("export") / "run", "channel_flow_matching")
