"""Tests of cut bodies and of the end of a server, once more with two worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import Servers, servers_below
from tests.faults.test_bodies import (  # noqa: F401 - they run here
    test_a_body_that_is_cut_at_any_byte_leaves_nothing,
    test_a_refused_upload_leaves_nothing_on_the_disk,
    test_a_request_on_a_connection_that_was_just_made_outlives_the_signal,
    test_a_slow_download_outlives_the_signal,
    test_an_upload_in_flight_outlives_the_signal,
    test_uploads_that_come_while_a_server_ends_are_answered_or_not_begun,
)

pytestmark = pytest.mark.needs("a server in a process of its own")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with servers_below(tmp_path, workers=2) as servers:
        yield servers
