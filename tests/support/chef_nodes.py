"""Nodes of each role and environment, as the double of Chef evaluates them, and what is in their files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.support.chef import Resource, evaluate, label

ROLES = ("single", "head", "worker")
ENVIRONMENTS = ("staging", "production")
CANARY = "c4n\"4r\\y $HOME `id` 100% 'x"
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "EMBEDMILL__INDEX__TOKEN",
    "EMBEDMILL__STATE__HASH_KEY",
    "RAY_AUTH_TOKEN",
)
ATTRIBUTES: dict[str, Any] = {
    "release": {"url": "file:///srv/embedmill.tar.gz", "checksum": "0" * 64},
    "head": "10.0.0.10",
    "config": {"sources": [{"kind": "files", "uri": "/srv/files", "team_id": "T1"}]},
}


def bags() -> dict[str, dict[str, str]]:
    """A bag for each environment, each secret with a mark in it."""
    item = {name: f"{CANARY} {name}" for name in SECRETS}
    return {"data_bag/embedmill/staging": item, "vault/embedmill/production": item}


def evaluated(role: str, environment: str = "production", **more: Any) -> list[Resource]:
    """The resources of a node with the attributes that must be set, and others."""
    attributes = ATTRIBUTES | more
    if role == "single":
        attributes = {name: value for name, value in attributes.items() if name != "head"}
    found: list[Resource] = evaluate(role, environment, attributes, bags())["resources"]
    return found


def one(resources: list[Resource], name: str) -> Resource:
    """The resource of a label, as ``file[/x]``."""
    [found] = [resource for resource in resources if label(resource) == name]
    return found


def installation(resources: list[Resource]) -> str:
    """The folder of the installation that ``current`` is to point into."""
    return str(Path(one(resources, "link[/opt/embedmill/current]")["to"]).parent)


def units(resources: list[Resource]) -> dict[str, str]:
    """Text of systemd's files, by name."""
    return {Path(r["name"]).name: r["content"] for r in resources if r["name"].startswith("/etc/systemd/")}


def setting(unit: str, key: str) -> list[str]:
    """The values of a key in a file of systemd."""
    return re.findall(rf"^{key}=(.*)$", unit, re.M)
