"""The arguments of the AWS provider's resources, by which those that we write are checked.

`python -m tests.support.aws_provider` makes build/aws-provider.json (some 100 kB) of npm's @cdktf/provider-aws, which
is generated from the provider's schema: 37 MB are fetched, and 131 MB are on the disk while it works.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tests.support.paths import ROOT

PACKAGE = "@cdktf/provider-aws@21.22.1"
PROVIDER = "6.25.0"  # the provider's version that it was made of
SCHEMA = ROOT / "build" / "aws-provider.json"
MISSING = "" if SCHEMA.exists() else f"{SCHEMA.name} is not there; `python -m tests.support.aws_provider` makes it"
_PREFIX = "@cdktf/provider-aws."
# Of Terraform itself, in any resource.
_META = {"count", "depends_on", "for_each", "lifecycle", "provider"}

# By name: {"required": bool, "block": None or what is in it}.
Arguments = Mapping[str, Any]


def read_schema() -> dict[str, Arguments]:
    """Return the arguments of each type of resource, as `make_schema` wrote them."""
    schema: dict[str, Arguments] = json.loads(SCHEMA.read_text())
    return schema


def mistakes(body: Mapping[str, Any], arguments: Arguments, where: str) -> list[str]:
    """Return what is wrong in a resource of python-hcl2's: unknown arguments, missing ones, blocks that are none."""
    return _mistakes({name: value for name, value in body.items() if name not in _META}, arguments, where)


def _mistakes(body: Mapping[str, Any], arguments: Arguments, where: str) -> list[str]:
    given = {name: value for name, value in body.items() if not name.startswith("__") and name != "dynamic"}
    for dynamic in body.get("dynamic", []):
        [(name, block)] = [(name, block) for name, block in dynamic.items() if not name.startswith("__")]
        given[name.strip('"')] = block["content"]
    needed = [name for name, known in arguments.items() if known["required"]]
    found = [f"{where}: {name} is missing" for name in needed if name not in given]
    for name, value in given.items():
        blocks = [item for item in value if _is_block(item)] if isinstance(value, list) else []
        if name not in arguments:
            found.append(f"{where}: there is no {name}")
        elif (inside := arguments[name]["block"]) is None:
            found += [f"{where}: {name} is an argument, not a block"] if blocks else []
        else:
            found += [] if blocks else [f"{where}: {name} is a block"]
            for block in blocks:
                found += _mistakes(block, inside, f"{where}.{name}")
    return found


def make_schema(jsii: bytes, kinds: set[str]) -> dict[str, Arguments]:
    """Return the arguments of the types ``kinds`` from the package's .jsii."""
    types: dict[str, Any] = orjson.loads(jsii)["types"]
    schema = {}
    for kind in types.values():
        if "cdktf.TerraformMetaArguments" in kind.get("interfaces", []) and kind.get("properties"):
            resource = _link(kind["properties"][0], r"docs/resources/(\w+)#")
            if resource and f"aws_{resource}" in kinds:
                schema[f"aws_{resource}"] = _arguments(kind, types)
    return schema


def _arguments(kind: Mapping[str, Any], types: Mapping[str, Any]) -> Arguments:
    found = {}
    for item in kind.get("properties", []):
        name = _link(item, r"docs/resources/\w+#(\w+)")
        if name is None:  # of Terraform itself
            continue
        inner = re.search(rf'"({re.escape(_PREFIX)}[\w.]+)"', json.dumps(item["type"]))
        block = _arguments(types[inner[1]], types) if inner else None
        found[name] = {"required": not item.get("optional", False), "block": block}
    return found


def _link(item: Mapping[str, Any], pattern: str) -> str | None:
    """The name that the provider's own documentation has for an argument or resource."""
    docs = item.get("docs", {})
    found = re.search(pattern, docs.get("summary", "") + docs.get("remarks", ""))
    return found[1] if found else None


def _is_block(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.get("__is_block__"))


def main() -> int:
    """Fetch the package, and keep what the modules use of it."""
    from tests.support.terraform import MODULES, TERRAFORM, written

    kinds = {
        labels[0]
        for module in MODULES
        for keyword, labels, _ in written(TERRAFORM / "modules" / module)
        if keyword == "resource"
    }
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        [archive] = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            [jsii, description] = [package.extractfile(f"package/{name}") for name in (".jsii", "package.json")]
            assert jsii is not None and description is not None
            version = json.load(description)["cdktf"]["provider"]["version"]
            if version != PROVIDER:
                raise ValueError(f"{PACKAGE} is of the provider {version}, not {PROVIDER}")
            schema = make_schema(jsii.read(), kinds)
    SCHEMA.parent.mkdir(exist_ok=True)
    SCHEMA.write_text(json.dumps(schema))
    print(f"{SCHEMA}: {len(schema)} of {len(kinds)} types of resources, {SCHEMA.stat().st_size} bytes")
    return 0 if kinds == set(schema) else 1


if __name__ == "__main__":
    sys.exit(main())
