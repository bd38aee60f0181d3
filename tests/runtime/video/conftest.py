"""For all tests of videos."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from coded_frames import decoding_threads


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not decoding_threads()
