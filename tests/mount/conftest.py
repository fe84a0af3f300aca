"""Agents and worlds, each made once for all tests that look without changing anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.mount.worlds import Agent, MountWorld, ViewWorld


def _agent(role: str) -> Agent:
    if os.geteuid() != 0:
        if role == "root":
            pytest.skip("only root can be root")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            pytest.skip("this user may not open /dev/fuse, and only root can make a node that it may open")
    return Agent(role)


@pytest.fixture(scope="session")
def root_agent() -> Iterator[Agent]:
    """An agent with the rights of root."""
    agent = _agent("root")
    yield agent
    agent.close()


@pytest.fixture(scope="session")
def user_agent() -> Iterator[Agent]:
    """An agent with the rights of an ordinary user."""
    agent = _agent("user")
    yield agent
    agent.close()


@pytest.fixture(params=["root", "user"])
def agent(request: pytest.FixtureRequest) -> Agent:
    """Each of the agents in turn."""
    agent = request.getfixturevalue(f"{request.param}_agent")
    assert isinstance(agent, Agent)
    return agent


@pytest.fixture(scope="module", params=["view", "root", "root-distant", "user"])
def world(request: pytest.FixtureRequest) -> Iterator[ViewWorld | MountWorld]:
    """The sample history, in each of the places; `distant` is where nothing is in memory."""
    world: ViewWorld | MountWorld
    if request.param == "view":
        world = ViewWorld()
    else:
        role, _, distance = request.param.partition("-")
        world = MountWorld(request.getfixturevalue(f"{role}_agent"), is_distant=distance == "distant")
    yield world
    world.close()
