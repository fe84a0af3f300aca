"""Agents and worlds, each made once for all tests that look without changing anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.mount.winfsp_world import WinFspWorld
from tests.mount.worlds import BINDINGS, Agent, MountWorld, ViewWorld


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


@pytest.fixture(params=BINDINGS)
def binding(request: pytest.FixtureRequest) -> str:
    """Each of the libraries that mount, in turn."""
    assert isinstance(request.param, str)
    return request.param


PLACES = ["view", "winfsp", *(f"{binding}-{rest}" for binding in BINDINGS for rest in ("root", "root-distant", "user"))]


@pytest.fixture(scope="module", params=PLACES)
def world(request: pytest.FixtureRequest) -> Iterator[ViewWorld | WinFspWorld | MountWorld]:
    """The sample history, in each of the places; `distant` is where nothing is in memory."""
    world: ViewWorld | WinFspWorld | MountWorld
    if request.param == "view":
        world = ViewWorld()
    elif request.param == "winfsp":
        world = WinFspWorld()
    else:
        binding, role, *distance = request.param.split("-")
        world = MountWorld(request.getfixturevalue(f"{role}_agent"), binding, is_distant=bool(distance))
    yield world
    world.close()
