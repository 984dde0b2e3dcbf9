"""The agent's configuration: its defaults, its mistakes, and the agent of a GID."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

from migrrdma_runtime.agent.peers import agent_config
from migrrdma_runtime.agent.peers.agent_config import AgentConfig, Deadlines
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import (
    AgentError,
    ConfigError,
)


def parse(text: str) -> AgentConfig:
    return agent_config.parse(tomllib.loads(text), "agent.toml", Path("/run/x"), Path("/var/x"))


def test_the_file_that_install_writes_is_the_defaults() -> None:
    given = parse(agent_config.DEFAULT_TEXT)
    assert given == parse("")
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith(("# ", '# "')) and " = " in line else line
        for line in agent_config.DEFAULT_TEXT.splitlines()
        if not line.startswith('# "198') and not line.startswith("# listen")
    )
    assert parse(uncommented) == given


def test_the_documentation_has_the_deadlines_of_the_code() -> None:
    text = (Path(__file__).parents[4] / "docs/protocol.md").read_text()
    documented = {
        name: float(seconds) for name, seconds in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.M)
    }
    assert documented == asdict(Deadlines())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = 0", "port: 0 is less than"),
        ('port = "x"', "port: 'x' is not of type"),
        ("prot = 1", ".*'prot' was unexpected"),
        ('listen = ["nowhere"]', "listen: 'nowhere' is not an IP address"),
        ("[deadlines]\ndrain = -1", "deadlines.drain: -1"),
        ("[deadlines]\ndarin = 1", "deadlines: .*'darin' was unexpected"),
        ('[peers]\n"10.0.0.0/33" = "h:1"', "peers: .*10.0.0.0/33"),
        ('[peers]\n"10.0.0.0/8" = "h"', ".*'h' is not host:port"),
        ('[tls]\nca = "relative"', "tls.ca: 'relative'"),
    ],
)
def test_a_mistake_in_the_settings_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"agent.toml: {message}"):
        parse(text)


def gid(address: str) -> str:
    return gids.from_address(ipaddress.ip_address(address))


def test_an_agent_is_found_from_a_gid() -> None:
    peers = '"198.51.100.0/24" = "a:1"\n"198.51.100.7" = "b:2"\n"2001:db8::/32" = "[::1]:3"'
    given = parse(f"port = 7\n[peers]\n{peers}")
    assert given.agent_for(gid("10.78.0.11")) == "10.78.0.11:7"
    assert given.agent_for(gid("198.51.100.8")) == "a:1"
    assert given.agent_for(gid("198.51.100.7")) == "b:2"
    assert given.agent_for(gid("2001:db8::1")) == "[::1]:3"
    assert given.agent_for(gid("2001:db9::1")) == "[2001:db9::1]:7"
    with pytest.raises(AgentError, match="no agent is known for GID fe80::1"):
        given.agent_for(gid("fe80::1"))
