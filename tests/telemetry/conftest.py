"""One set of running tiers for all tests that look at what they export."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.observed_tiers import Observed, observed_tiers


@pytest.fixture(scope="session")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    with observed_tiers(tmp_path_factory.mktemp("observed")) as running:
        yield running
