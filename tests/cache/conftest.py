from __future__ import annotations

from pathlib import Path

import pytest
from tests.cache.toy import ToyCache


@pytest.fixture
def cache(tmp_path: Path) -> ToyCache:
    return ToyCache(tmp_path / "cache")


@pytest.fixture
def built(cache: ToyCache) -> ToyCache:
    cache.build()
    return cache
