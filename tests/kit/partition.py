"""A partition as the tests of either rack look at it."""

from __future__ import annotations

import pytest
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.plan import DST
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell


def is_silent_and_heals(rack: Rack, src: Shell) -> None:
    """``dst`` is cut off while its link stays up, as behind a broken switch port, and is reached again afterwards."""
    ping = ("ping", "-c1", "-W2", DST.data_address)
    src.run(*ping)
    rack.partition(DST)
    try:
        with pytest.raises(NodeCommandError, match="100% packet loss"):
            src.run(*ping)
        assert "state UP" in rack.shell(DST).run("ip", "link", "show", "rd0").stdout
    finally:
        rack.heal(DST)
    src.run(*ping)
