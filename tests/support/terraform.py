"""Terraform without Terraform: modules evaluated offline by tfparse, and read as they are written by python-hcl2.

What only AWS knows (a key's ARN, a cluster's issuer) is an id of tfparse's in what is evaluated, or None inside of
`jsonencode`. Nothing is planned or applied, and arguments are not checked: that is `tests/support/aws_provider.py`.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hcl2

from tests.support.paths import ROOT

TERRAFORM = ROOT / "deploy" / "terraform"
EXAMPLE = TERRAFORM / "examples" / "complete"
# tfparse brings Go's runtime, which takes over signals: beside Java's, or Ray's, it ends the process that it is in.
# Reads a folder a line, and ends with its standard input, or with a folder that cannot be read.
_PARSE = """
import json, sys, tfparse
for line in sys.stdin:
    found = tfparse.load_from_path(json.loads(line), stop_on_hcl_error=True, vars_paths=["given.tfvars.json"])
    print(json.dumps(found), flush=True)
"""
MODULES = sorted(path.name for path in (TERRAFORM / "modules").iterdir())


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of an IAM policy, where it is, and its lists as tuples."""

    path: str
    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    principal: Any
    conditions: Mapping[str, Mapping[str, Any]]


class Evaluated:
    """What tfparse makes of a folder: blocks by type, each with its address."""

    def __init__(self, blocks: Mapping[str, list[dict[str, Any]]]) -> None:
        self._blocks = blocks

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the resources of a type by address; a nested block is a dict, several are a list."""
        return {block["__tfmeta"]["path"]: _without_meta(block) for block in self._blocks.get(kind, [])}

    def resource(self, kind: str, within: str = "") -> dict[str, Any]:
        """Return the one resource of a type whose address contains ``within``."""
        [found] = [block for path, block in self.resources(kind).items() if within in path]
        return found

    def kinds(self) -> set[str]:
        """Return the types of resources and data sources."""
        return {kind for kind in self._blocks if kind.startswith("aws_")}

    def output(self, name: str) -> Any:
        """Return the value of an output of the folder itself."""
        return self.resources("output")[f"output.{name}"].get("value")

    def statements(self, kind: str, attribute: str = "policy") -> list[Statement]:
        """Return the statements of the policies of a type of resource. One that cannot be evaluated is an error."""
        found = []
        for path, block in self.resources(kind).items():
            for statement in json.loads(block[attribute])["Statement"]:
                found.append(
                    Statement(
                        path,
                        statement["Effect"],
                        _several(statement["Action"]),
                        _several(statement.get("Resource", [])),
                        statement.get("Principal"),
                        statement.get("Condition", {}),
                    )
                )
        return found


def evaluate(folder: Path, variables: Mapping[str, Any] | None = None, *, scratch: Path) -> Evaluated:
    """Evaluate a folder with variables; the tree is copied to ``scratch``, where the variables can be written."""
    tree = scratch / "terraform"
    if not tree.exists():
        shutil.copytree(TERRAFORM, tree)
    copied = tree / folder.relative_to(TERRAFORM)
    (copied / "given.tfvars.json").write_text(json.dumps(variables or {}))
    return Evaluated(_parsed(copied))


def refused(folder: Path, variables: Mapping[str, Any], *, scratch: Path) -> set[str]:
    """Return the variables of a folder that refuse their values. Its variables.tf alone is evaluated, in ``scratch``."""
    shutil.copy(folder / "variables.tf", scratch)
    (scratch / "given.tfvars.json").write_text(json.dumps(variables))
    return {
        block["__tfmeta"]["label"]
        for block in _parsed(scratch)["variable"]
        if any(validation["condition"] is not True for validation in _blocks_of(block.get("validation")))
    }


def _parsed(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What tfparse says of a folder. Raises CalledProcessError where it cannot read it."""
    parser = _parser()
    assert parser.stdin is not None and parser.stdout is not None
    parser.stdin.write(json.dumps(str(folder)) + "\n")
    parser.stdin.flush()
    said = parser.stdout.readline()
    if not said:
        _parser.cache_clear()
        raise subprocess.CalledProcessError(parser.wait(), f"tfparse of {folder}")
    found: dict[str, list[dict[str, Any]]] = json.loads(said)
    return found


@functools.cache
def _parser() -> subprocess.Popen[str]:
    """A process in which tfparse is, for all parses: to start it takes longer than to parse."""
    parser = subprocess.Popen([sys.executable, "-c", _PARSE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(parser.communicate, timeout=10)
    return parser


def example_values() -> dict[str, Any]:
    """Return the values of the example's terraform.tfvars.example."""
    return {
        name: _literal(value) for name, value in hcl2.loads((EXAMPLE / "terraform.tfvars.example").read_text()).items()
    }


@functools.cache  # python-hcl2 takes a second for the larger folders
def written(folder: Path) -> tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...]:
    """Return the blocks of a folder's files as they are written: keyword, labels, body."""
    found = []
    for file in sorted(folder.glob("*.tf")):
        for keyword, blocks in hcl2.loads(file.read_text()).items():
            for block in [] if keyword.startswith("__") else blocks:  # comments
                labels: list[str] = []
                while not block.get("__is_block__"):
                    [(label, block)] = [(name, body) for name, body in block.items() if name != "__comments__"]
                    labels.append(label.strip('"'))
                found.append((keyword, tuple(labels), block))
    return tuple(found)


def _blocks_of(block: Any) -> list[dict[str, Any]]:
    return [] if block is None else block if isinstance(block, list) else [block]


def _several(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _without_meta(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_meta(item) for name, item in value.items() if name != "__tfmeta"}
    return [_without_meta(item) for item in value] if isinstance(value, list) else value


def _literal(value: Any) -> Any:
    """A value of python-hcl2, whose strings keep their quotes."""
    if isinstance(value, dict):
        return {name.strip('"'): _literal(item) for name, item in value.items() if not name.startswith("__")}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value.strip('"') if isinstance(value, str) else value
