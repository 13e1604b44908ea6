"""Every role in every environment, evaluated once."""

from __future__ import annotations

import pytest

from tests.support.chef import Resource
from tests.support.chef_nodes import ENVIRONMENTS, ROLES, evaluated


@pytest.fixture(scope="session")
def nodes() -> dict[tuple[str, str], list[Resource]]:
    return {(role, where): evaluated(role, where) for role in ROLES for where in ENVIRONMENTS}


@pytest.fixture(params=[(role, where) for role in ROLES for where in ENVIRONMENTS], ids="-".join)
def resources(request: pytest.FixtureRequest, nodes: dict[tuple[str, str], list[Resource]]) -> list[Resource]:
    return nodes[request.param]
