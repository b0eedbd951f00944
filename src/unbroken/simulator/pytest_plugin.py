"""Fixtures for the tests of people who use this package.

`simulator` is a transport with a virtual clock: `Client(transport=simulator)`.
`simulator_server` is the URL of a real server.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from unbroken.simulator.transport import SimulatorTransport


@pytest.fixture
def simulator() -> "SimulatorTransport":
    """A provider without a network, on a clock of its own."""
    from unbroken.simulator.transport import SimulatorTransport  # only tests that use it pay

    return SimulatorTransport()


@pytest.fixture
def simulator_server() -> Iterator[str]:
    """The URL of a provider on a real socket, without `/v1`."""
    from unbroken.simulator.app import running  # only tests that use it pay

    with running() as url:
        yield url
