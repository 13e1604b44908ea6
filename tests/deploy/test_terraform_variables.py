"""Variables of the Terraform modules: wrong values are refused, right ones are not."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.terraform import EXAMPLE, MODULES, TERRAFORM, example_values, refused, written

FOLDERS = {name: TERRAFORM / "modules" / name for name in MODULES} | {"complete": EXAMPLE}
KEY = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555"
ACCOUNT = {"account_id": "111122223333", "region": "eu-central-1", "partition": "aws"}
SYSTEM = {"capacity": "ON_DEMAND", "instance_types": ["m7i.large"], "min": 2, "max": 4, "dedicated": False}
SOURCES = {"arn": "arn:aws:s3:::exports", "read_prefixes": ["slack/"]}
PROFILE = {"model": "cohere.embed-v4:0", "regions": ["eu-west-1"]}
ENDPOINT = {"model": "chat", "version": 3, "image": "i", "repository_arn": "r"}
# A name with a wildcard, an alias in place of a key, a region for an account: what a hand mistypes.
WRONG_KEYS = ["alias/data", "arn:aws:kms:eu-central-1:111122223333:alias/data", ""]
WRONG_PREFIXES = ["state", "/state/", "*/", "", "models/*/"]

RIGHT: dict[str, dict[str, Any]] = {
    "key": ACCOUNT | {"name": "embedmill-data", "description": "The state", "services": ["budgets.amazonaws.com"]},
    "bucket": {"name": "embedmill-prod", "kms_key_arn": KEY, "expire_prefixes": {"batch/": 3}, "partition": "aws"},
    "irsa": {
        "name": "embedmill-run",
        "description": "Runs",
        "region": "eu-central-1",
        "oidc_provider_arn": "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/0",
        "oidc_issuer": "https://oidc.eks.eu-central-1.amazonaws.com/id/0",
        "namespace": "embedmill",
        "service_accounts": ["embedmill"],
        "buckets": {"data": {"arn": "arn:aws:s3:::b", "kms_key_arn": KEY, "write_prefixes": ["state/"]}},
        "secrets": ["arn:aws:secretsmanager:eu-central-1:111122223333:secret:embedmill/index-??????"],
        "policies": {"invoke": "arn:aws:iam::111122223333:policy/invoke"},
    },
    "network": ACCOUNT | {"name": "embedmill", "zones": ["eu-central-1a", "eu-central-1b"], "kms_key_arn": KEY},
    "eks": ACCOUNT
    | {
        "name": "embedmill",
        "subnet_ids": {"eu-central-1a": "subnet-1", "eu-central-1b": "subnet-2"},
        "admin_role_arns": {"platform": "arn:aws:iam::111122223333:role/platform"},
        "kms_key_arn": KEY,
        "kubernetes_version": "1.33",
        "public_access_cidrs": ["203.0.113.0/24"],
    },
    "registry": {"kms_key_arn": KEY},
    "sagemaker": ACCOUNT
    | {
        "name": "embedmill-chat",
        "bucket": "embedmill-prod",
        "model_prefix": "models/chat/3/",
        "model_key_arn": KEY,
        "kms_key_arn": KEY,
        "image": "111122223333.dkr.ecr.eu-central-1.amazonaws.com/embeddings:1.0",
        "repository_arn": "arn:aws:ecr:eu-central-1:111122223333:repository/embeddings",
        "environment": {"POOLING": "mean"},
    },
    "bedrock": ACCOUNT
    | {
        "name": "embedmill",
        "models": ["amazon.titan-embed-text-v2:0", "cohere.embed-multilingual-v3"],
        "inference_profiles": {"eu.cohere.embed-v4:0": PROFILE},
        "bucket": "embedmill-prod",
        "bucket_key_arn": KEY,
        "log_key_arn": KEY,
        "own_invocation_logging": True,
    },
    "budget": ACCOUNT | {"name": "embedmill", "monthly_usd": 100, "emails": ["a@example.com"], "kms_key_arn": KEY},
    "complete": example_values(),
}

# By variable, in whatever module; "module.variable" where a module means something else by the name.
WRONG: dict[str, list[Any]] = {
    "account_id": ["1111222233", "1111-2222-3333", ""],
    "actual_percents": [[], [0], [10, 20, 30, 40, 50], [2000]],
    "admin_role_arns": [{}, {"me": "arn:aws:iam::111122223333:user/me"}],
    "alarm_emails": [[], ["nobody"]],
    "batch_prefix": [*WRONG_PREFIXES, "state/batch/"],
    "bedrock_models": [["amazon.titan-text-express-v1"], ["*"]],
    "bucket": ["s3://bucket", "Bucket", "a"],
    "bucket_key_arn": WRONG_KEYS,
    "bucket_name": ["s3://bucket", "Bucket", "my.bucket", "ab"],
    "buckets": [
        {"data": {"arn": "arn:aws:s3:::b/state", "read_prefixes": ["state/"]}},
        {"data-1": {"arn": "arn:aws:s3:::b", "read_prefixes": ["state/"]}},
        {"data": {"arn": "arn:aws:s3:::b"}},
        *({"data": {"arn": "arn:aws:s3:::b", "write_prefixes": [prefix]}} for prefix in WRONG_PREFIXES),
    ],
    "cidr": ["10.0.0.0/24", "10.0.0.0", "::/16"],
    "description": [""],
    "emails": [[], ["nobody"]],
    "encode_on": ["head", "spot"],
    "environment": ["production"],
    "expire_prefixes": [{"batch": 3}, {"batch/": 0}, {"batch/": 1.5}, {"": 3}, {"state/": 3}, {"state/work/": 1}],
    "image": [
        "embeddings:1.0",
        "111122223333.dkr.ecr.eu-central-1.amazonaws.com/embeddings",
        "111122223333.dkr.ecr.eu-central-1.amazonaws.com/embeddings:latest",
    ],
    "images": [[], ["Ray"]],
    "inference_profiles": [
        {"eu.cohere.embed-v4:0": PROFILE | {"regions": []}},
        {"cohere.embed-v3": PROFILE},
        {"eu.anthropic.model": {"model": "anthropic.model", "regions": ["eu-west-1"]}},
    ],
    "instance_type": ["g5.xlarge", "ml.g5"],
    "interface_endpoints": [["s3"], ["com/ecr"]],
    "keep_images": [9, 1001],
    "kms_key_arn": WRONG_KEYS,
    "kubernetes_version": ["1.33.2", "33"],
    "log_days": [0, 2, 10],
    "log_key_arn": WRONG_KEYS,
    "max_instances": [0],
    "min_instances": [0, 1.5],
    "model_key_arn": WRONG_KEYS,
    "model_prefix": WRONG_PREFIXES,
    "models": [["amazon.titan-text-express-v1"], ["*"]],
    "monthly_usd": [0, -1],
    "name": ["", "a b", "x" * 256],
    "namespace": ["*", "a_b", ""],
    "noncurrent_days": [0, 31, 1.5],
    "oidc_issuer": [
        "oidc.eks.eu-central-1.amazonaws.com/id/0",
        "https://",
        "https:///id/0",
        "https://oidc.eks.eu-central-1.amazonaws.com/id/0/",
        "https://oidc.eks.eu-central-1.amazonaws.com/id/1",  # of another cluster
    ],
    "oidc_provider_arn": [
        "https://oidc.eks.eu-central-1.amazonaws.com/id/0",
        "arn:aws:iam::111122223333:oidc-provider/",
    ],
    "partition": ["aws-cn", ""],
    "policies": [{"all": f"arn:aws:iam::aws:policy/{name}"} for name in ("AdministratorAccess", "PowerUserAccess")],
    "pools": [
        {"system": SYSTEM, "Big": SYSTEM},
        {"system": SYSTEM, "cpu": SYSTEM | {"capacity": "spot"}},
        {"system": SYSTEM, "cpu": SYSTEM | {"min": 5}},
        {"system": SYSTEM, "cpu": SYSTEM | {"min": 0, "max": 0}},
        {"system": SYSTEM, "cpu": SYSTEM | {"instance_types": []}},
        {"system": SYSTEM, "gpu": SYSTEM | {"gpu": True, "dedicated": True}},
        {"system": SYSTEM, "gpu": SYSTEM | {"gpus": 1}},
        {"system": SYSTEM, "cpu": SYSTEM | {"disk_gb": 20}},
        {"system": SYSTEM | {"capacity": "SPOT"}},  # a cluster whose own pods may lose all their nodes at once
        {"system": SYSTEM | {"dedicated": True}},
        {"system": SYSTEM | {"min": 0}},
    ],
    "prefix": ["Embedmill", "embedmill/", ""],
    "public_access_cidrs": [["0.0.0.0/0"], ["203.0.113.7"]],
    "region": ["Frankfurt", "eu-central-1a", ""],
    "repository_arn": ["embeddings", "arn:aws:ecr:eu-central-1:111122223333:repository/*"],
    "requests_per_minute": [0],
    "sagemaker": [ENDPOINT | {"model": "Chat"}, ENDPOINT | {"version": 0}, ENDPOINT | {"version": 1.5}],
    "sagemaker.environment": [{"HF_TOKEN": "x"}, {"api_key": "x"}],
    "sagemaker.log_days": [0, 365],
    "secret_arns": [["embedmill/index"], ["arn:aws:secretsmanager:eu-central-1:111122223333:secret:*"]],
    "secrets": [["embedmill/index"], ["arn:aws:secretsmanager:eu-central-1:111122223333:secret:*"]],
    "secrets_account": [{"namespace": "*", "name": "a"}, {"namespace": "a", "name": "*"}],
    "service_accounts": [[], ["*"], ["embedmill", "a*"]],
    "complete.service_accounts": [{"run": ["embedmill"], "serve": ["embedmill"]}],
    "services": [["budgets"], ["*"]],
    "source_buckets": [{"data": SOURCES}, {"exports": SOURCES | {"write_prefixes": ["slack/"]}}],
    "subnet_ids": [{"eu-central-1a": "subnet-1"}],
    "untagged_days": [0],
    "zones": [["eu-central-1a"], ["eu-central-1a", "eu-central-1"], ["eu-central-1a", "eu-central-1a"]],
    "complete.zones": [["eu-central-1a"], ["eu-central-1a", "us-east-1a"]],
}
# Nothing can be said of their values: booleans, tags, what may be null and is of the organisation.
FREE = {
    "cost_tag",
    "deletion_protection",
    "logs",
    "nat_per_zone",
    "own_invocation_logging",
    "permissions_boundary",
    "tags",
}


def validated(folder: Path) -> Mapping[str, int]:
    """Return how many validations each variable of a folder has."""
    return {
        labels[0]: len(body.get("validation", [])) for keyword, labels, body in written(folder) if keyword == "variable"
    }


@functools.cache
def wrong_values() -> list[tuple[str, str, Any]]:
    """Return each wrong value with its module and variable."""
    return [
        (module, name, value)
        for module, folder in FOLDERS.items()
        for name in validated(folder)
        for value in WRONG.get(f"{module}.{name}", WRONG.get(name, []))
    ]


@pytest.mark.parametrize("module", FOLDERS)
def test_right_values_are_taken(tmp_path: Path, module: str) -> None:
    assert refused(FOLDERS[module], RIGHT[module], scratch=tmp_path) == set()


@pytest.mark.parametrize(("module", "name", "value"), wrong_values())
def test_a_wrong_value_is_refused_by_its_own_variable(tmp_path: Path, module: str, name: str, value: Any) -> None:
    found = refused(FOLDERS[module], RIGHT[module] | {name: value}, scratch=tmp_path)
    assert name in found
    assert found <= {name, "max_instances", "oidc_issuer", "zones"}  # these look at another variable as well


@pytest.mark.parametrize("module", FOLDERS)
def test_every_variable_has_a_validation_with_a_wrong_value_here_or_takes_anything(module: str) -> None:
    tried = {name for where, name, _ in wrong_values() if where == module}
    for name, validations in validated(FOLDERS[module]).items():
        assert (name in tried) == (validations > 0), name
        assert (validations == 0) == (name in FREE), name
    assert not [name for name in WRONG if not any(name in (f"{where}.{of}", of) for where, of, _ in wrong_values())]


@pytest.mark.parametrize("module", FOLDERS)
def test_what_a_validation_says_names_what_is_wrong(module: str) -> None:
    for keyword, labels, body in written(FOLDERS[module]):
        for validation in body.get("validation", []) if keyword == "variable" else []:
            assert str(validation["error_message"]).strip('"').endswith("."), labels
