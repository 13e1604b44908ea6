"""Checks a resource as an API server with strict field validation does, against the published schemas of its kind.

The schemas are structural: a field that they do not name is pruned, or refused where validation is strict. So each
object is closed here. Their CEL rules are not evaluated. `crds/README.md` names the source of each;
`python -m tests.support.crd FOLDER` packs newer ones.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SCHEMAS = Path(__file__).parent / "crds"
FILES = {
    "SparkApplication": "sparkoperator.k8s.io_sparkapplications",
    "RayJob": "ray.io_rayjobs",
    "RayService": "ray.io_rayservices",
    "ClusterQueue": "kueue.x-k8s.io_clusterqueues",
    "LocalQueue": "kueue.x-k8s.io_localqueues",
    "ResourceFlavor": "kueue.x-k8s.io_resourceflavors",
    "ExternalSecret": "external-secrets.io_externalsecrets",
    "ServiceMonitor": "monitoring.coreos.com_servicemonitors",
    "PodMonitor": "monitoring.coreos.com_podmonitors",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules",
}
# What may be set of an object's own metadata; the schemas leave it to the API server.
_METADATA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253},
        "namespace": {"type": "string"},
        "uid": {"type": "string"},
        "creationTimestamp": {"type": "string"},
        "deletionTimestamp": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["name"],
}


def errors(resource: dict[str, Any]) -> list[str]:
    """What is wrong with a resource, each with its path; empty for a valid one."""
    found = _validator(resource["kind"], resource["apiVersion"]).iter_errors(resource)
    return sorted(f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}" for error in found)


@cache
def _validator(kind: str, version: str) -> Any:
    crd = json.loads(lzma.decompress((SCHEMAS / f"{FILES[kind]}.json.xz").read_bytes()))["spec"]
    assert crd["names"]["kind"] == kind
    served = {f"{crd['group']}/{one['name']}": one for one in crd["versions"] if one["served"]}
    schema = _closed(served[version]["schema"]["openAPIV3Schema"])
    schema["properties"] |= {
        "metadata": _METADATA,
        "kind": {"const": kind},
        "apiVersion": {"const": version},
    }
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    made = jsonschema.validators.extend(
        jsonschema.Draft202012Validator, {"x-kubernetes-list-map-keys": _unique, "x-kubernetes-list-type": _set}
    )
    return made(schema)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as a JSON schema that refuses what an API server prunes."""
    made = {name: value for name, value in schema.items() if name not in ("description", "default", "nullable")}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "items" in schema:
        made["items"] = _closed(schema["items"])
    if "properties" in schema:
        made["properties"] = {name: _closed(value) for name, value in schema["properties"].items()}
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _closed(schema["additionalProperties"])
    elif schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    if schema.get("nullable"):
        return {"anyOf": [made, {"type": "null"}]}
    return made


def _unique(_: Any, keys: list[str], value: Any, schema: dict[str, Any]) -> Iterator[jsonschema.ValidationError]:
    """Items of a list that is a map: no two have the same keys."""
    defaults = schema["items"].get("properties", {})
    seen = [tuple(item.get(key, defaults.get(key, {}).get("default")) for key in keys) for item in value]
    for one in {item for item in seen if seen.count(item) > 1}:
        yield jsonschema.ValidationError(f"{dict(zip(keys, one, strict=True))} is there twice")


def _set(_: Any, kind: str, value: Any, schema: dict[str, Any]) -> Iterator[jsonschema.ValidationError]:
    if kind == "set" and any(value.count(item) > 1 for item in value):
        yield jsonschema.ValidationError("an item of a set is there twice")


def _pack(folder: Path) -> None:
    """Write the published definitions (`NAME.yaml` in `folder`) as they are kept here: without their prose."""
    for name in FILES.values():
        definition = _without_prose(yaml.safe_load((folder / f"{name}.yaml").read_text()))
        packed = lzma.compress(json.dumps(definition, separators=(",", ":")).encode())
        (SCHEMAS / f"{name}.json.xz").write_bytes(packed)


def _without_prose(schema: Any, *, names: bool = False) -> Any:
    """A schema without its descriptions; `names` says that the keys are names of fields, of which one may be that."""
    if isinstance(schema, list):
        return [_without_prose(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_prose(value, names=key == "properties" and not names)
        for key, value in schema.items()
        if names or key != "description"
    }


if __name__ == "__main__":
    _pack(Path(sys.argv[1]))
