"""One random model for all tests of training."""

import pytest

from tests.stages.initialize.tiny import make_model


@pytest.fixture(scope="session")
def falcon(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("falcon"))
