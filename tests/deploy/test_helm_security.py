"""What the chart's pods may do and reach: rights, network, secrets, and checkov's policies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_helm import made_by_the_launcher, sized
from tests.support import checkov
from tests.support.helm import MISSING, NAMESPACE, SIZES, Pod, of_kind, pods, render, values
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

REVIEWED = ROOT / "deploy" / "helm" / "checkov.yaml"


@pytest.fixture(autouse=True)
def _dags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "dags"))


def whole(size: str) -> list[dict[str, Any]]:
    """What the chart renders, and what the launcher starts beside it."""
    resources = sized(size)
    return resources + (made_by_the_launcher(resources) if size != "1m" else [])


def all_pods(size: str) -> list[Pod]:
    return [pod for one in whole(size) for pod in pods(one)]


# -- rights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_pod_runs_as_a_user_without_rights_on_a_read_only_root(size: str) -> None:
    for pod in all_pods(size):
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] == security["fsGroup"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod.spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"name": "scratch", "mountPath": "/tmp"} in container["volumeMounts"], pod.part
            assert container["resources"]["limits"]["memory"]
            variables = {one["name"]: one["value"] for one in container["env"]}
            assert variables["HOME"] == "/tmp"


def test_the_autoscaler_of_the_query_service_is_held_as_its_nodes_are() -> None:
    [service] = of_kind(sized("1b"), "RayService")
    options = service["spec"]["rayClusterConfig"]["autoscalerOptions"]
    assert options["securityContext"]["readOnlyRootFilesystem"] and options["resources"]["limits"]


def test_only_pods_that_ask_the_api_have_a_token() -> None:
    with_token = {pod.part for pod in all_pods("1b") if pod.spec["automountServiceAccountToken"]}
    assert with_token == {"spark-driver", "serve-head"}
    accounts = of_kind(sized("1b"), "ServiceAccount")
    assert len(accounts) == 3 and not any(one["automountServiceAccountToken"] for one in accounts)


def test_accounts_have_the_rights_that_they_use_and_no_more() -> None:
    resources = sized("100m")
    assert not of_kind(resources, "ClusterRole") and not of_kind(resources, "ClusterRoleBinding")
    roles = {one["metadata"]["name"]: one["rules"] for one in of_kind(resources, "Role")}
    for rules in roles.values():
        for rule in rules:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert not {"secrets", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])
    bound = {
        subject["namespace"] + "/" + subject["name"]: one["roleRef"]["name"]
        for one in of_kind(resources, "RoleBinding")
        for subject in one["subjects"]
    }
    assert bound == {  # the accounts of Ray's jobs and of the query service have none
        f"{NAMESPACE}/embedmill-spark": "embedmill-spark",
        "airflow/airflow-worker": "embedmill-launcher",
        "airflow/airflow-triggerer": "embedmill-launcher",
    }


def test_the_launcher_may_do_what_it_does() -> None:
    """Against the calls in the launcher's and the trigger's own text."""
    text = "".join(
        (ROOT / "dags/embedmill_airflow/launchers" / name).read_text() for name in ("kubernetes.py", "trigger.py")
    )
    verbs = {
        verb for verb in ("get", "create", "delete") if re.search(rf"\.{verb}_(namespaced_)?custom_object\(", text)
    }
    assert re.search(r"\.list_namespaced_pod\(", text) and re.search(r"\.read_namespaced_pod_log\(", text)
    [rules] = [
        one["rules"] for one in of_kind(sized("100m"), "Role") if one["metadata"]["name"] == "embedmill-launcher"
    ]
    may = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}
    assert may == {"rayjobs": verbs, "sparkapplications": verbs, "pods": {"list"}, "pods/log": {"get"}}


# -- network ----------------------------------------------------------------------------------------------------------


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector takes a pod; an empty one takes all."""
    exact = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    among = all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))
    assert all(one["operator"] == "In" for one in selector.get("matchExpressions", []))
    return exact and among


def peers(resources: list[dict[str, Any]], labels: dict[str, str], way: str) -> Iterator[tuple[Any, Any]]:
    """Who a pod may hear ("ingress") or speak to ("egress"), each with the ports; None is any port."""
    for policy in of_kind(resources, "NetworkPolicy"):
        spec = policy["spec"]
        if selects(spec["podSelector"], labels):
            for rule in spec.get(way, []):
                for peer in rule["from" if way == "ingress" else "to"]:
                    yield peer, tuple(one["port"] for one in rule["ports"]) if "ports" in rule else None


def hears(resources: list[dict[str, Any]], pod: dict[str, str], other: dict[str, str], port: int) -> bool:
    """Whether a pod of the same namespace reaches a port of one of ours."""
    return any(
        set(peer) == {"podSelector"} and selects(peer["podSelector"], other) and (ports is None or port in ports)
        for peer, ports in peers(resources, pod, "ingress")
    )


@pytest.mark.parametrize("size", SIZES)
def test_everything_is_denied_to_every_pod_but_what_a_policy_allows(size: str) -> None:
    resources = sized(size)
    for pod in all_pods(size):
        denying = [
            one
            for one in of_kind(resources, "NetworkPolicy")
            if selects(one["spec"]["podSelector"], pod.labels) and not {"ingress", "egress"} & set(one["spec"])
        ]
        assert [sorted(one["spec"]["policyTypes"]) for one in denying] == [["Egress", "Ingress"]], pod.part
    for one in of_kind(resources, "NetworkPolicy"):  # an empty list of peers would mean everybody
        rules = [(rule, "from") for rule in one["spec"].get("ingress", [])]
        rules += [(rule, "to") for rule in one["spec"].get("egress", [])]
        assert all(rule.get(key) and {} not in rule[key] for rule, key in rules), one["metadata"]["name"]


def test_a_pod_hears_those_of_its_own_cluster_and_its_clients_alone() -> None:
    resources = sized("1b")
    labels = {pod.part: pod.labels for pod in all_pods("1b")}
    stranger, client = {"app": "other"}, {"embedmill/client": "true"}
    reached = {
        (part, name)
        for part, own in labels.items()
        for name, other in {**labels, "stranger": stranger, "client": client}.items()
        if hears(resources, own, other, 8000)
    }
    inside = [("ray", "ray-submitter"), ("serve", "serve-head"), ("spark-driver", "spark-executor")]
    expected = {(one, other) for pair in inside for one in pair for other in pair}
    assert reached == expected | {("serve", "client"), ("serve-head", "client")}
    assert not hears(resources, labels["serve"], client, 8265)  # Ray's dashboard runs what it is sent


def test_each_pod_reaches_what_it_needs_and_only_drivers_the_api_server() -> None:
    def ports(part_labels: dict[str, str]) -> set[int]:
        return {port for _, found in peers(resources, part_labels, "egress") for port in found or ()}

    resources = sized("1b")
    for pod in all_pods("1b"):
        expected = {53, 19530, 443, 9091} | ({6443} if pod.part in ("spark-driver", "serve-head") else set())
        assert ports(pod.labels) == expected, pod.part
    everywhere = [peer for peer, _ in peers(resources, {"app.kubernetes.io/part-of": "embedmill"}, "egress")]
    blocks = [peer["ipBlock"] for peer in everywhere if "ipBlock" in peer]
    assert blocks and all("169.254.0.0/16" in block["except"] for block in blocks)  # the node's own credentials


def test_an_emptied_list_of_peers_closes_a_door_and_opens_none(tmp_path: Path) -> None:
    file = tmp_path / "closed.yaml"
    file.write_text("networkPolicy: {serve: {from: []}, index: {to: []}}\n")
    resources = render((values("100m"), file))
    labels = {pod.part: pod.labels for pod in all_pods("100m")}
    assert not hears(resources, labels["serve"], {"embedmill/client": "true"}, 8000)
    assert 19530 not in {port for _, found in peers(resources, labels["ray"], "egress") for port in found or ()}


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_no_resource_holds_a_secret_and_pods_name_the_one_of_the_user(size: str) -> None:
    resources = whole(size)
    assert not of_kind(resources, "Secret")
    for pod in all_pods(size):
        for container in pod.spec["containers"]:
            assert all(set(one) == {"name", "value"} for one in container["env"])
            names = [one["name"] for one in container["env"]]
            assert not [name for name in names if re.search(r"TOKEN|SECRET|PASSWORD|HASH_KEY|API_KEY", name)]
            if size != "1m" and pod.part != "ray-submitter":
                assert container["envFrom"] == [{"secretRef": {"name": "embedmill-secrets"}}]
    config = [one for one in of_kind(resources, "ConfigMap") if one["metadata"]["name"] == "embedmill-config"]
    assert not re.search(r"^\s*(token|hash_key|password)\s*=", config[0]["data"]["embedmill.toml"], re.MULTILINE)


def test_an_external_secret_makes_the_secret_that_pods_read() -> None:
    [made] = of_kind(sized("100m"), "ExternalSecret")
    assert made["spec"]["target"]["name"] == "embedmill-secrets"
    assert [one["secretKey"] for one in made["spec"]["data"]] == ["EMBEDMILL__INDEX__TOKEN"]


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_monitors_ask_ports_that_exist_and_that_the_network_lets_them_reach() -> None:
    resources = sized("1b")
    [service] = of_kind(resources, "RayService")
    [monitor] = of_kind(resources, "ServiceMonitor")
    made = service["spec"]["serveService"]
    assert selects(monitor["spec"]["selector"], made["metadata"]["labels"])
    [target] = made["spec"]["ports"]
    assert [one["port"] for one in monitor["spec"]["endpoints"]] == [target["name"]]
    [nodes] = of_kind(resources, "PodMonitor")
    watched = [pod for pod in all_pods("1b") if selects(nodes["spec"]["selector"], pod.labels)]
    assert {pod.part for pod in watched} == {"ray", "serve", "serve-head"}
    for pod in watched:
        ports = {one["name"]: one["containerPort"] for one in pod.spec["containers"][0]["ports"]}
        asked = [ports[one["port"]] for one in nodes["spec"]["podMetricsEndpoints"]]
        asked += [ports["serve"]] if pod.part.startswith("serve") else []
        heard = {
            port
            for peer, found in peers(resources, pod.labels, "ingress")
            if "namespaceSelector" in peer
            and peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
            for port in found or ()
        }
        assert heard == set(asked), pod.part


# -- checkov ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> checkov.Looked:
    """Checkov over what three value sets render, and over the pods of custom resources, which it does not know."""
    if checkov.missing():
        pytest.skip(checkov.missing())
    folder = tmp_path_factory.mktemp("rendered")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "dags"))
        for size in SIZES:
            resources = whole(size)
            known = [
                one for one in resources if "." not in one["apiVersion"].split("/")[0] or "k8s.io" in one["apiVersion"]
            ]
            made = [pod.resource() for one in resources if one["kind"] != "CronJob" for pod in pods(one)]
            (folder / f"{size}.yaml").write_text(yaml.safe_dump_all(known + made))
    return checkov.look(folder, "kubernetes")


def test_checkov_finds_nothing_but_what_was_reviewed(looked: checkov.Looked) -> None:
    reviewed = checkov.reviewed(REVIEWED)
    assert [one for one in looked.failed if one.check not in reviewed] == []
    assert looked.passed > 300 and all(len(reason) > 20 for reason in reviewed.values())


def test_each_reviewed_check_is_still_needed(looked: checkov.Looked) -> None:
    assert set(checkov.reviewed(REVIEWED)) == {one.check for one in looked.failed}


def test_checkov_finds_a_pod_with_rights(tmp_path: Path) -> None:
    if checkov.missing():
        pytest.skip(checkov.missing())
    [pod] = [pod.resource() for one in whole("100m") for pod in pods(one) if pod.part == "spark-driver"]
    pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
    found = checkov.look(tmp_path, "kubernetes", skip=list(checkov.reviewed(REVIEWED)))
    assert ("CKV_K8S_22", f"Pod.{NAMESPACE}.sparkapplication-spark-driver", "pod.yaml") in {
        (one.check, one.resource, one.file) for one in found.failed
    }
