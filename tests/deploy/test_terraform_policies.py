"""Rights that the Terraform modules give: actions and resources that AWS knows, least, and to whom.

policy-sentry carries AWS's service authorization reference: actions, the resources and condition keys of each.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from policy_sentry.querying.actions import get_privilege_info

from tests.support.terraform import EXAMPLE, TERRAFORM, Evaluated, Statement, evaluate, example_values

IDENTITY = ("aws_iam_policy", "aws_iam_role_policy")
OF_RESOURCES = ("aws_s3_bucket_policy", "aws_sns_topic_policy", "aws_kms_key")
BUCKET = "arn:aws:s3:::example-embedmill-prod"
ISSUER = "oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF"
PROVIDER = f"arn:aws:iam::111122223333:oidc-provider/{ISSUER}"
UNKNOWN_ARN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The example, with an inference profile of Bedrock beside its own models."""
    return evaluate(EXAMPLE, example_values(), scratch=tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The module bedrock over an inference profile of two regions."""
    given = {
        "name": "embedmill",
        "account_id": "111122223333",
        "region": "eu-central-1",
        "models": [],
        "inference_profiles": {
            "eu.cohere.embed-v4:0": {"model": "cohere.embed-v4:0", "regions": ["eu-central-1", "eu-west-1"]}
        },
        "bucket": "example-embedmill-prod",
        "bucket_key_arn": "arn:aws:kms:eu-central-1:111122223333:key/data",
        "log_key_arn": "arn:aws:kms:eu-central-1:111122223333:key/logs",
        "own_invocation_logging": True,
    }
    return evaluate(TERRAFORM / "modules" / "bedrock", given, scratch=tmp_path_factory.mktemp("bedrock"))


@pytest.fixture(scope="module")
def statements(example: Evaluated, profiles: Evaluated) -> list[Statement]:
    """All that roles are allowed."""
    return [
        statement for evaluated in (example, profiles) for kind in IDENTITY for statement in evaluated.statements(kind)
    ]


def privilege(action: str) -> dict[str, Any]:
    """Return what AWS says of an action. Raises for one that there is not."""
    service, _, name = action.partition(":")
    found: dict[str, Any] = get_privilege_info(service, name)
    return found


def takes(action: str, resource: str) -> bool:
    """Whether an action can be allowed on a resource of this form."""
    known = privilege(action)
    for kind in known["resource_types"]:
        pattern = known["service_resources"].get(kind, {}).get("arn", "")
        form = "".join(
            ("[^/]+" if part == "${BucketName}" else ".+" if part.startswith("${") else re.escape(part))
            for part in re.split(r"(\$\{\w+\})", pattern)
        ).replace("arn:.+:", "arn:aws:")
        if kind and re.fullmatch(form.replace(":.+:.+:", ":[a-z0-9-]*:[0-9]*:"), resource):
            return True
    return False


def forms(resource: str) -> list[str]:
    """Return a resource as the actions name it: a key of which only AWS knows the ARN, a log group and its streams."""
    if UNKNOWN_ARN.fullmatch(resource):
        return ["arn:aws:kms:eu-central-1:111122223333:key/data"]
    if ":log-group:" in resource and resource.endswith(":*"):
        return [resource, f"{resource.removesuffix('*')}log-stream:*"]
    return [resource]


def keys_of(action: str) -> set[str]:
    """Return the condition keys of an action, without the tag or context that ends some."""
    return {
        re.sub(r"\$\{\w+\}$", "", key)
        for kind in privilege(action)["resource_types"].values()
        for key in kind["condition_keys"]
    }


def test_no_right_is_to_all_actions_and_each_is_one_that_aws_has(statements: list[Statement]) -> None:
    assert len(statements) > 25
    assert {statement.effect for statement in statements} == {"Allow"}
    for statement in statements:
        for action in statement.actions:
            assert "*" not in action, statement
            assert privilege(action)["privilege"] == action.partition(":")[2], statement


def test_all_resources_are_given_only_where_aws_takes_no_other(statements: list[Statement]) -> None:
    for statement in statements:
        if "*" in statement.resources:
            for action in statement.actions:
                assert set(privilege(action)["resource_types"]) == {""}, (statement.path, action)
    assert {statement.path for statement in statements if "*" in statement.resources} == {
        "aws_iam_policy.batch",
        "module.bedrock.aws_iam_policy.batch",
        "module.eks.aws_iam_policy.autoscaler",
        "module.sagemaker[0].aws_iam_role_policy.this",
    }


def test_each_action_takes_the_resources_that_it_is_given(statements: list[Statement]) -> None:
    for statement in statements:
        for resource in set(statement.resources) - {"*"}:
            assert any(takes(action, form) for action in statement.actions for form in forms(resource)), (
                statement,
                resource,
            )
        for action in statement.actions:
            of = [form for resource in statement.resources for form in forms(resource)]
            assert "*" in of or any(takes(action, form) for form in of), (statement, action)


def test_each_condition_is_one_that_its_actions_have(statements: list[Statement]) -> None:
    for statement in statements:
        for key in {key for operands in statement.conditions.values() for key in operands}:
            if key.startswith("aws:") and not key.startswith("aws:ResourceTag/"):
                continue  # of every request
            for action in statement.actions:
                assert any(
                    key == known or known.endswith("/") and key.startswith(known) for known in keys_of(action)
                ), (statement, key)


def test_a_misspelt_action_a_foreign_resource_and_a_foreign_condition_are_found() -> None:
    with pytest.raises(Exception, match="Unknown action"):
        privilege("s3:GetObjects")
    assert takes("s3:GetObject", f"{BUCKET}/state/*")
    assert not takes("s3:GetObject", BUCKET)
    assert not takes("s3:ListBucket", f"{BUCKET}/state/*")
    assert not takes("bedrock:InvokeModel", "arn:aws:bedrock:eu-central-1:111122223333:model-invocation-job/*")
    assert not takes("bedrock:InvokeModel", "arn:aws:sagemaker:eu-central-1:111122223333:endpoint/e")
    assert "s3:prefix" not in keys_of("s3:GetObject")


def test_what_a_resource_lets_in_is_said_in_words_that_aws_has(example: Evaluated) -> None:
    for kind in OF_RESOURCES:
        for statement in example.statements(kind):
            for action in statement.actions:
                if "*" not in action:
                    privilege(action)
            if "*" in "".join(statement.actions):  # to refuse, or the account's own rule of a key
                assert statement.effect == "Deny" or statement.principal == {"AWS": "arn:aws:iam::111122223333:root"}
            if statement.effect == "Allow" and "Service" in statement.principal:
                assert statement.conditions, statement


def rights(evaluated: Evaluated, role: str) -> set[tuple[str, str]]:
    """Return each action and resource that a role's own policy allows."""
    return {
        (action, resource)
        for statement in evaluated.statements("aws_iam_role_policy")
        if statement.path.startswith(f"module.{role}.")
        for action in statement.actions
        for resource in statement.resources
    }


def test_runs_write_the_state_and_request_files_and_only_read_models_and_sources(example: Evaluated) -> None:
    key = example.resource("aws_kms_key", "data_key")["id"]
    written = {f"{BUCKET}/state/*", f"{BUCKET}/batch/*"}
    assert rights(example, "run_role") == {
        *(("s3:ListBucket", bucket) for bucket in (BUCKET, "arn:aws:s3:::example-exports")),
        *(("s3:GetObject", path) for path in (*written, f"{BUCKET}/models/*", "arn:aws:s3:::example-exports/slack/*")),
        *((f"s3:{verb}", path) for verb in ("PutObject", "DeleteObject", "AbortMultipartUpload") for path in written),
        ("kms:Decrypt", key),
        ("kms:GenerateDataKey", key),
        ("kms:Decrypt", example_values()["source_buckets"]["exports"]["kms_key_arn"]),
    }


def test_what_serves_reads_the_state_and_models_and_writes_nothing(example: Evaluated) -> None:
    assert rights(example, "serve_role") == {
        ("s3:ListBucket", BUCKET),
        ("s3:GetObject", f"{BUCKET}/state/*"),
        ("s3:GetObject", f"{BUCKET}/models/*"),
        ("kms:Decrypt", example.resource("aws_kms_key", "data_key")["id"]),
    }
    attached = {
        path.split('"')[1]
        for path in example.resources("aws_iam_role_policy_attachment")
        if path.startswith("module.serve_role.")
    }
    assert attached == {"invoke", "sagemaker"}


def test_a_key_opens_what_s3_asks_for_and_listings_are_of_the_roles_prefixes(statements: list[Statement]) -> None:
    for statement in statements:
        if any(action.startswith("kms:") for action in statement.actions):
            assert list(statement.conditions) == ["StringEquals"]
            assert "s3.eu-central-1.amazonaws.com" in statement.conditions["StringEquals"]["kms:ViaService"]
        if "s3:ListBucket" in statement.actions:
            assert "*" not in statement.conditions["StringLike"]["s3:prefix"]


def test_a_role_is_for_named_service_accounts_of_one_namespace(tmp_path: Path) -> None:
    given = {
        "name": "embedmill-run",
        "description": "Runs",
        "region": "eu-central-1",
        "oidc_provider_arn": PROVIDER,
        "oidc_issuer": f"https://{ISSUER}",
        "namespace": "embedmill",
        "service_accounts": ["embedmill", "embedmill-spark"],
    }
    evaluated = evaluate(TERRAFORM / "modules" / "irsa", given, scratch=tmp_path)
    [statement] = json.loads(evaluated.resource("aws_iam_role")["assume_role_policy"])["Statement"]
    assert statement["Principal"] == {"Federated": PROVIDER}
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Condition"] == {
        "StringEquals": {
            f"{ISSUER}:aud": "sts.amazonaws.com",
            f"{ISSUER}:sub": [
                "system:serviceaccount:embedmill:embedmill",
                "system:serviceaccount:embedmill:embedmill-spark",
            ],
        }
    }
    assert not evaluated.resources("aws_iam_role_policy")  # nothing asked for, no right


def test_each_role_of_the_example_is_for_its_own_accounts(example: Evaluated) -> None:
    modules = example.resources("module")
    of = {
        name: (modules[f"module.{name}"]["namespace"], modules[f"module.{name}"]["service_accounts"])
        for name in ("run_role", "serve_role", "secrets_role[0]")
    }
    assert of == {
        "run_role": ("embedmill", ["embedmill", "embedmill-spark"]),
        "serve_role": ("embedmill", ["embedmill-serve"]),
        "secrets_role[0]": ("external-secrets", ["external-secrets"]),
    }


def test_a_service_takes_a_role_for_this_account_alone(example: Evaluated) -> None:
    trusted = {}
    for path, role in example.resources("aws_iam_role").items():
        for statement in json.loads(role["assume_role_policy"])["Statement"] or []:
            service = statement["Principal"]["Service"]
            trusted[path] = service
            if service != "ec2.amazonaws.com":  # an instance profile is of the account that starts the instance
                assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] == "111122223333", path
    assert len(trusted) == 6


def test_a_profile_is_allowed_with_its_model_in_each_of_its_regions(profiles: Evaluated) -> None:
    [invoke] = [found for found in profiles.statements("aws_iam_policy") if found.actions == ("bedrock:InvokeModel",)]
    assert set(invoke.resources) == {
        "arn:aws:bedrock:eu-central-1:111122223333:inference-profile/eu.cohere.embed-v4:0",
        "arn:aws:bedrock:eu-central-1::foundation-model/cohere.embed-v4:0",
        "arn:aws:bedrock:eu-west-1::foundation-model/cohere.embed-v4:0",
    }


def test_the_role_of_batch_jobs_is_passed_to_bedrock_alone_and_has_its_prefix_alone(example: Evaluated) -> None:
    [passed] = [found for found in example.statements("aws_iam_policy") if "iam:PassRole" in found.actions]
    role = example.resource("aws_iam_role", "bedrock.aws_iam_role.batch")
    assert passed.resources == (f"arn:aws:iam::111122223333:role/{role['name']}",)
    assert passed.conditions == {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}}
    files = {
        resource
        for statement in example.statements("aws_iam_role_policy")
        if statement.path == "module.bedrock.aws_iam_role_policy.batch" and "s3:PutObject" in statement.actions
        for resource in statement.resources
    }
    assert files == {f"{BUCKET}/batch/*"}
