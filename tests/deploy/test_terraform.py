"""The Terraform modules: what the example makes of its values. Evaluated offline; no AWS account was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.session import Session

from tests.support import aws_provider, checkov
from tests.support.paths import ROOT
from tests.support.terraform import EXAMPLE, MODULES, TERRAFORM, Evaluated, evaluate, example_values, written

FOLDERS = [TERRAFORM / "modules" / name for name in MODULES] + [EXAMPLE]
KEY = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555"
CHART = ROOT / "deploy" / "helm" / "embedmill" / "values.yaml"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The example with the values of its terraform.tfvars.example."""
    return evaluate(EXAMPLE, example_values(), scratch=tmp_path_factory.mktemp("example"))


def test_the_bucket_is_encrypted_with_the_given_key_and_closed_to_the_public(example: Evaluated) -> None:
    encryption = example.resource("aws_s3_bucket_server_side_encryption_configuration")["rule"]
    assert encryption["apply_server_side_encryption_by_default"]["sse_algorithm"] == "aws:kms"
    key = example.resource("aws_kms_key", "data_key")
    assert encryption["apply_server_side_encryption_by_default"]["kms_master_key_id"] == key["id"]
    assert encryption["bucket_key_enabled"] is True
    block = example.resource("aws_s3_bucket_public_access_block")
    names = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    assert [block[name] for name in names] == [True] * 4
    assert example.resource("aws_s3_bucket_ownership_controls")["rule"]["object_ownership"] == "BucketOwnerEnforced"


def test_the_bucket_refuses_plain_http_old_tls_and_another_encryption(example: Evaluated) -> None:
    denied = {tuple(statement.conditions): statement for statement in example.statements("aws_s3_bucket_policy")}
    assert all(statement.effect == "Deny" and statement.principal == "*" for statement in denied.values())
    assert denied[("Bool",)].conditions == {"Bool": {"aws:SecureTransport": "false"}}
    assert denied[("NumericLessThan",)].conditions == {"NumericLessThan": {"s3:TlsVersion": "1.2"}}
    both = {"arn:aws:s3:::example-embedmill-prod", "arn:aws:s3:::example-embedmill-prod/*"}
    assert set(denied[("Bool",)].resources) == set(denied[("NumericLessThan",)].resources) == both


@pytest.mark.parametrize("days", [1, 7, 30])
def test_what_a_purge_removed_leaves_the_former_versions_within_the_days_that_were_promised(
    tmp_path: Path, days: int
) -> None:
    bucket = evaluate(
        TERRAFORM / "modules" / "bucket",
        {"name": "b-1", "kms_key_arn": KEY, "noncurrent_days": days, "expire_prefixes": {"batch/": 3}},
        scratch=tmp_path,
    )
    assert bucket.resource("aws_s3_bucket_versioning")["versioning_configuration"]["status"] == "Enabled"
    erase, batch = bucket.resource("aws_s3_bucket_lifecycle_configuration")["rule"]
    assert erase["noncurrent_version_expiration"]["noncurrent_days"] == days
    assert erase["expiration"]["expired_object_delete_marker"] is True
    assert "days" not in erase["expiration"]  # nothing of the state expires by age
    assert erase["abort_incomplete_multipart_upload"]["days_after_initiation"] == 1
    assert "prefix" not in erase["filter"]
    assert (batch["filter"]["prefix"], batch["expiration"]["days"]) == ("batch/", 3)


def test_neither_a_bucket_nor_a_key_goes_with_a_destroy(example: Evaluated) -> None:
    for module, kind in (("bucket", "aws_s3_bucket"), ("key", "aws_kms_key")):
        [body] = [body for _, labels, body in written(TERRAFORM / "modules" / module) if labels[:1] == (kind,)]
        assert body["lifecycle"][0]["prevent_destroy"] is True
    assert example.resource("aws_s3_bucket")["force_destroy"] is False
    assert {key["deletion_window_in_days"] for key in example.resources("aws_kms_key").values()} == {30}
    assert {key["enable_key_rotation"] for key in example.resources("aws_kms_key").values()} == {True}


def test_workers_are_spot_and_scale_from_nothing_and_the_head_is_on_demand(example: Evaluated) -> None:
    pools = {pool["node_group_name"]: pool for pool in example.resources("aws_eks_node_group").values()}
    assert {name: pool["capacity_type"] for name, pool in pools.items()} == {
        "system": "ON_DEMAND",
        "head": "ON_DEMAND",
        "cpu": "SPOT",
        "gpu": "SPOT",
    }
    assert {name: pool["scaling_config"]["min_size"] for name, pool in pools.items()} == {
        "system": 2,
        "head": 0,
        "cpu": 0,
        "gpu": 0,
    }
    assert pools["gpu"]["ami_type"] == "AL2023_x86_64_NVIDIA"
    # More than one type of instance: spot capacity of a single one is often gone.
    assert all(len(pools[name]["instance_types"]) > 1 for name in ("cpu", "gpu"))


def test_each_pool_has_the_taints_that_its_pods_are_told_to_tolerate(example: Evaluated) -> None:
    told = example.output("pools")
    for pool in example.resources("aws_eks_node_group").values():
        taints = pool.get("taint", [])
        taints = taints if isinstance(taints, list) else [taints]
        tolerated = [(taint["key"], taint["value"]) for taint in told[pool["node_group_name"]]["tolerations"]]
        assert [(taint["key"], taint["value"]) for taint in taints] == tolerated
        assert {taint["effect"] for taint in taints} <= {"NO_SCHEDULE"}
        assert pool["labels"] == told[pool["node_group_name"]]["node_labels"]
        assert told[pool["node_group_name"]]["node_selector"].items() <= pool["labels"].items()
    assert told["gpu"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"}
    ]
    assert told["system"]["tolerations"] == []


def test_the_autoscaler_knows_a_gpu_node_before_there_is_one(example: Evaluated) -> None:
    template = "k8s.io/cluster-autoscaler/node-template"
    tags = example.resources("aws_autoscaling_group_tag")
    gpu = {tag["tag"]["key"]: tag["tag"]["value"] for path, tag in tags.items() if '["gpu/' in path}
    assert gpu == {
        f"{template}/label/embedmill/pool": "gpu",
        f"{template}/label/nvidia.com/gpu.present": "true",
        f"{template}/taint/nvidia.com/gpu": "present:NoSchedule",
        f"{template}/resources/nvidia.com/gpu": "1",
    }


def test_a_pod_cannot_ask_for_its_nodes_role_and_disks_are_encrypted(example: Evaluated) -> None:
    templates = example.resources("aws_launch_template").values()
    assert len(templates) == 4
    for template in templates:
        assert template["metadata_options"]["http_tokens"] == "required"
        assert template["metadata_options"]["http_put_response_hop_limit"] == 1
        assert template["block_device_mappings"]["ebs"]["encrypted"] is True


def test_the_cluster_encrypts_secrets_tells_all_and_enforces_network_policies(example: Evaluated) -> None:
    cluster = example.resource("aws_eks_cluster")
    assert cluster["encryption_config"]["provider"]["key_arn"] == example.resource("aws_kms_key", "platform_key")["id"]
    assert cluster["vpc_config"]["endpoint_private_access"] is True
    assert cluster["vpc_config"]["public_access_cidrs"] == ["203.0.113.0/24"]
    assert cluster["deletion_protection"] is True
    assert len(cluster["enabled_cluster_log_types"]) == 5
    network = example.resource("aws_eks_addon", "addon.network")
    assert json.loads(network["configuration_values"]) == {"enableNetworkPolicy": "true"}


def test_without_addresses_the_clusters_api_is_not_on_the_internet(tmp_path: Path) -> None:
    cluster = evaluate(EXAMPLE, example_values() | {"public_access_cidrs": []}, scratch=tmp_path)
    assert cluster.resource("aws_eks_cluster")["vpc_config"]["endpoint_public_access"] is False


@pytest.mark.parametrize(("per_zone", "gateways"), [(False, 1), (True, 3)])
def test_each_private_subnet_leaves_by_a_gateway_and_reaches_s3_without_one(
    tmp_path: Path, per_zone: bool, gateways: int
) -> None:
    network = evaluate(EXAMPLE, example_values() | {"nat_per_zone": per_zone}, scratch=tmp_path)
    found = network.resources("aws_nat_gateway")
    assert len(found) == gateways
    routes = [route for path, route in network.resources("aws_route").items() if ".nat[" in path]
    assert len(routes) == 3
    assert {route["nat_gateway_id"] for route in routes} == {gateway["id"] for gateway in found.values()}
    [s3] = [end for path, end in network.resources("aws_vpc_endpoint").items() if path.endswith(".s3")]
    private = [table["id"] for path, table in network.resources("aws_route_table").items() if ".private[" in path]
    assert (s3["vpc_endpoint_type"], sorted(s3["route_table_ids"])) == ("Gateway", sorted(private))
    subnets = [subnet["cidr_block"] for subnet in network.resources("aws_subnet").values()]
    assert len(set(subnets)) == 6


def test_images_are_scanned_and_their_tags_do_not_move(example: Evaluated) -> None:
    repositories = example.resources("aws_ecr_repository").values()
    assert {repository["name"] for repository in repositories} == {
        f"embedmill/{image.parent.name}" for image in (ROOT / "docker").glob("*/Dockerfile")
    }
    for repository in repositories:
        assert repository["image_tag_mutability"] == "IMMUTABLE"
        assert repository["image_scanning_configuration"]["scan_on_push"] is True
        assert repository["encryption_configuration"]["encryption_type"] == "KMS"
    for policy in example.resources("aws_ecr_lifecycle_policy").values():
        untagged, rest = json.loads(policy["policy"])["rules"]
        assert (untagged["selection"]["tagStatus"], untagged["selection"]["countNumber"]) == ("untagged", 7)
        assert rest["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 50}


def test_the_endpoint_serves_a_version_of_a_model_from_s3_and_captures_no_text(example: Evaluated) -> None:
    model = example.resource("aws_sagemaker_model")
    source = model["primary_container"]["model_data_source"]["s3_data_source"]
    assert source["s3_uri"] == "s3://example-embedmill-prod/models/chat/3/"
    assert model["enable_network_isolation"] is True
    configuration = example.resource("aws_sagemaker_endpoint_configuration")
    assert "data_capture_config" not in configuration
    assert configuration["kms_key_arn"] == example.resource("aws_kms_key", "platform_key")["id"]
    assert configuration["production_variants"]["model_name"] == model["name"]
    target = example.resource("aws_appautoscaling_target")
    assert (target["min_capacity"], target["max_capacity"]) == (1, 4)
    assert target["resource_id"] == "endpoint/embedmill-chat/variant/main"
    assert configuration["production_variants"]["variant_name"] == "main"


def test_another_version_of_the_model_is_another_configuration(example: Evaluated, tmp_path: Path) -> None:
    values = example_values()
    values["sagemaker"] |= {"version": 4}
    later = evaluate(EXAMPLE, values, scratch=tmp_path)
    for kind in ("aws_sagemaker_model", "aws_sagemaker_endpoint_configuration"):
        assert later.resource(kind)["name"] != example.resource(kind)["name"]
    assert later.resource("aws_sagemaker_endpoint")["name"] == example.resource("aws_sagemaker_endpoint")["name"]


def test_bedrock_logs_no_text_and_no_vector(example: Evaluated) -> None:
    logging = example.resource("aws_bedrock_model_invocation_logging_configuration")["logging_config"]
    told = {name: value for name, value in logging.items() if name.endswith("_data_delivery_enabled")}
    assert told == dict.fromkeys(
        (f"{kind}_data_delivery_enabled" for kind in ("text", "embedding", "image", "video")), False
    )


def test_the_budget_tells_of_what_was_spent_and_of_a_forecast(example: Evaluated) -> None:
    budget = example.resource("aws_budgets_budget")
    assert (budget["limit_amount"], budget["limit_unit"], budget["time_unit"]) == ("2500", "USD", "MONTHLY")
    assert budget["cost_filter"]["values"] == ["user:project$embedmill"]
    assert [(told["notification_type"], told["threshold"]) for told in budget["notification"]] == [
        ("ACTUAL", 50),
        ("ACTUAL", 80),
        ("ACTUAL", 100),
        ("FORECASTED", 100),
    ]
    topic = example.resource("aws_sns_topic")
    assert all(told["subscriber_sns_topic_arns"] == [topic["id"]] for told in budget["notification"])
    assert topic["kms_master_key_id"] == example.resource("aws_kms_key", "platform_key")["id"]
    assert example.resource("aws_sns_topic_subscription")["endpoint"] == "platform@example.com"


def test_without_an_endpoint_and_secrets_there_are_none(tmp_path: Path) -> None:
    plain = evaluate(EXAMPLE, example_values() | {"sagemaker": None, "secret_arns": []}, scratch=tmp_path)
    assert not {kind for kind in plain.kinds() if "sagemaker" in kind}
    assert not [path for path in plain.resources("aws_iam_role") if "secrets_role" in path]


def test_words_that_aws_has_a_list_of_are_on_it(example: Evaluated) -> None:
    eks = Session().get_service_model("eks")
    known = {
        name: set(eks.shape_for(shape).enum)
        for name, shape in (("ami_type", "AMITypes"), ("capacity_type", "CapacityTypes"))
    }
    for pool in example.resources("aws_eks_node_group").values():
        assert pool["ami_type"] in known["ami_type"] and pool["capacity_type"] in known["capacity_type"]
    logs = set(eks.shape_for("LogType").enum)
    assert set(example.resource("aws_eks_cluster")["enabled_cluster_log_types"]) == logs
    variant = Session().get_service_model("sagemaker").shape_for("ProductionVariantInstanceType").enum
    assert example.resource("aws_sagemaker_endpoint_configuration")["production_variants"]["instance_type"] in variant
    metrics = Session().get_service_model("application-autoscaling").shape_for("MetricType").enum
    policy = example.resource("aws_appautoscaling_policy")["target_tracking_scaling_policy_configuration"]
    assert policy["predefined_metric_specification"]["predefined_metric_type"] in metrics


@pytest.mark.skipif(not CHART.exists(), reason="no chart to compare with")
def test_values_for_the_chart_are_values_that_it_has(example: Evaluated) -> None:
    def unknown(given: Any, known: Any, where: str) -> list[str]:
        if not isinstance(given, dict) or not known:  # {} takes any
            return []
        return [f"{where}.{name}" for name in given if name not in known] + [
            line for name in given if name in known for line in unknown(given[name], known[name], f"{where}.{name}")
        ]

    assert not unknown(example.output("helm_values"), yaml.safe_load(CHART.read_text()), "")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_module_pins_terraform_and_its_provider_and_says_what_it_takes_and_gives(folder: Path) -> None:
    blocks = written(folder)
    [terraform] = [body for keyword, _, body in blocks if keyword == "terraform"]
    assert terraform["required_version"] == '">= 1.9, < 2.0"'
    assert (
        terraform["required_providers"][0]["aws"]["version"]
        == f'">= {aws_provider.PROVIDER.rpartition(".")[0]}, < 7.0"'
    )
    for keyword, labels, body in blocks:
        if keyword in ("variable", "output"):
            assert len(body.get("description", "")) > 10, labels
            assert keyword == "output" or "type" in body, labels
    taken = {labels[0] for keyword, labels, _ in blocks if keyword == "variable"}
    text = "".join(file.read_text() for file in folder.glob("*.tf") if file.name != "variables.tf")
    assert not [name for name in taken if f"var.{name}" not in text]  # each is used


@pytest.mark.skipif(bool(aws_provider.MISSING), reason=aws_provider.MISSING)
def test_each_argument_of_each_resource_is_one_that_the_provider_has() -> None:
    schema = aws_provider.read_schema()
    found = []
    for module in MODULES:
        for keyword, labels, body in written(TERRAFORM / "modules" / module):
            if keyword == "resource":
                found += aws_provider.mistakes(body, schema[labels[0]], f"{module}/{'.'.join(labels)}")
    assert not found


def test_an_argument_that_the_provider_has_not_is_found() -> None:
    names = {"required": False, "block": None}
    schema = {"name": names | {"required": True}, "tags": names, "rule": {"required": False, "block": {"id": names}}}
    block = {"__is_block__": True}
    body = {"nmae": '"x"', "tags": [block], "rule": [block | {"ip": 1}], "count": 1}
    assert aws_provider.mistakes(body, schema, "r") == [
        "r: name is missing",
        "r: there is no nmae",
        "r: tags is an argument, not a block",
        "r.rule: there is no ip",
    ]
    assert aws_provider.mistakes({"name": '"x"', "rule": {"id": 1}}, schema, "r") == ["r: rule is a block"]


@pytest.mark.slow
@pytest.mark.skipif(bool(checkov.missing()), reason=checkov.missing())
def test_checkov_finds_what_was_reviewed_and_nothing_else() -> None:
    reviewed = yaml.safe_load((TERRAFORM / "checkov.yaml").read_text())
    assert all(len(entry["reason"]) > 30 for entry in reviewed)
    looked = checkov.look(TERRAFORM, "terraform")
    assert looked.passed > 200
    expected = sorted((entry["check"], entry["resource"]) for entry in reviewed)
    assert [(failed.check, failed.resource) for failed in looked.failed] == expected


@pytest.mark.slow
@pytest.mark.skipif(bool(checkov.missing()), reason=checkov.missing())
def test_checkov_finds_an_open_bucket(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text('resource "aws_s3_bucket" "open" {\n  bucket = "open"\n}\n')
    looked = checkov.look(tmp_path, "terraform")
    assert ("CKV2_AWS_6", "aws_s3_bucket.open") in [(failed.check, failed.resource) for failed in looked.failed]
