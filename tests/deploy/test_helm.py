"""The chart through the real Helm: what it renders is valid, what it refuses, and what the launcher makes of it.

No cluster was run: docs/helm.md says what that leaves open.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from jobs.config import load_config
from tests.support import crd
from tests.support.helm import (
    CHART,
    MISSING,
    NAMESPACE,
    SIZES,
    helm,
    of_kind,
    pods,
    refused,
    render,
    shapes,
    values,
)
from tests.support.paths import ROOT
from tests.support.secret_keys import SECRET_KEYS

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

KUBERNETES = "1.37"
FORMER = Path(__file__).parent / "former_values"
NO_CRON = ("cronJobs.run.enabled=false", "cronJobs.verify.enabled=false")
WITH_AIRFLOW = ("config=a = 1", "airflow.enabled=true", *NO_CRON)
CUSTOM = tuple(kind for kind in crd.FILES if kind not in ("RayJob", "SparkApplication"))


@pytest.fixture(autouse=True)
def _dags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "dags"))


def sized(size: str) -> list[dict[str, Any]]:
    return render((values(size),))


def made_by_the_launcher(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shapes as one job's resources."""
    from embedmill_airflow.launchers import Job
    from embedmill_airflow.launchers.manifests import render as fill

    job = Job("embedmill-embed-0123456789ab", ("step", "embed", "--json"), "ray", {"TRACEPARENT": "00-1-2-01"})
    return [fill(job, json.loads(text), NAMESPACE, "a-mark") for text in shapes(resources).values()]


# -- what is rendered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_helm_finds_no_fault_with_the_chart(size: str) -> None:
    said = helm("lint", CHART, "--strict", "--values", values(size))
    assert said.returncode == 0 and "0 chart(s) failed" in said.stdout, said.stdout + said.stderr


@pytest.mark.parametrize("size", SIZES)
def test_a_resource_of_kubernetes_is_valid_with_no_unknown_field(size: str) -> None:
    core = [one for one in sized(size) if one["kind"] not in crd.FILES]
    for resource in core:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    assert {"CronJob", "NetworkPolicy", "ServiceAccount", "ConfigMap"} <= {one["kind"] for one in core}


def test_an_unknown_field_of_kubernetes_is_found_out() -> None:
    [job, *_] = of_kind(json.loads(json.dumps(sized("1m"))), "CronJob")
    job["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError, match="concurencyPolicy"):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


@pytest.mark.parametrize("kind", CUSTOM)
@pytest.mark.parametrize("size", ["100m", "1b"])
def test_a_custom_resource_is_valid_against_its_published_schema(size: str, kind: str) -> None:
    found = of_kind(sized(size), kind)
    assert found
    assert [error for one in found for error in crd.errors(one)] == []


@pytest.mark.parametrize("size", ["100m", "1b"])
def test_what_the_launcher_starts_is_valid_against_the_published_schemas(size: str) -> None:
    found = made_by_the_launcher(sized(size))
    assert sorted(one["kind"] for one in found) == ["RayJob", "SparkApplication"]
    assert [error for one in found for error in crd.errors(one)] == []


@pytest.mark.parametrize("size", ["100m", "1b"])
def test_each_pod_that_an_operator_makes_is_a_valid_pod(size: str) -> None:
    resources = sized(size) + made_by_the_launcher(sized(size))
    found = [pod for one in resources for pod in pods(one)]
    for pod in found:
        kubernetes_validate.validate(pod.resource(), KUBERNETES, strict=True)
    parts = {"command", "ray", "ray-submitter", "spark-driver", "spark-executor", "serve", "serve-head"}
    assert {pod.part for pod in found} == parts


def test_alerts_and_dashboards_are_those_of_the_repository() -> None:
    resources = sized("100m")
    [rules] = of_kind(resources, "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/embedmill.rules.yaml").read_text())
    shown: dict[str, Any] = {}
    for one in of_kind(resources, "ConfigMap"):
        if one["metadata"]["labels"].get("grafana_dashboard"):
            shown |= {name.removeprefix("embedmill-"): json.loads(text) for name, text in one["data"].items()}
    files = {file.name: json.loads(file.read_text()) for file in (ROOT / "deploy/grafana").glob("*.json")}
    assert shown == files and len(files) == 4


def test_a_package_holds_all_that_the_folder_does(tmp_path: Path) -> None:
    said = helm("package", CHART, "--destination", tmp_path)
    assert said.returncode == 0, said.stderr
    [package] = tmp_path.glob("*.tgz")
    assert render((values("1b"),), chart=package) == sized("1b")


def test_the_versions_are_those_of_the_package_and_of_the_launcher() -> None:
    from embedmill_airflow.launchers.manifests import Settings

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()
    assert defaults["ray"]["version"] == Settings("").ray_version
    assert defaults["spark"]["version"] == Settings("").spark_version


# -- the launcher -----------------------------------------------------------------------------------------------------


def test_the_launcher_s_own_shapes_are_the_chart_s_where_both_have_their_defaults() -> None:
    from embedmill_airflow.launchers.manifests import Settings
    from embedmill_airflow.launchers.shapes import shapes as own

    def mounted(*sets: str) -> dict[str, Any]:
        found = shapes(render((), (*WITH_AIRFLOW, *sets)))
        return {name.removesuffix(".json"): json.loads(text) for name, text in found.items()}

    settings = Settings(
        "embedmill-ray:0.2.0",
        service_account="embedmill-spark",
        ray_service_account="embedmill",
        config_map="embedmill-config",
    )
    assert mounted() == own(settings)
    sized = replace(settings, claim="a-claim", secret="a-secret", workers=3, worker_gpus=1, executors=5)
    sets = ("state.claim=a-claim", "secret=a-secret", "ray.worker.replicas=3", "ray.worker.gpus=1")
    assert mounted(*sets, "spark.executor.instances=5") == own(sized)
    assert mounted("ray.worker.replicas=0") == own(replace(settings, workers=0))


@pytest.mark.parametrize("size", ["100m", "1b"])
def test_the_launcher_reads_the_mounted_shapes_with_the_chart_s_variables(size: str, tmp_path: Path) -> None:
    from embedmill_airflow.launchers.manifests import Settings
    from embedmill_airflow.launchers.shapes import shapes as read

    resources = sized(size)
    [variables] = [one for one in of_kind(resources, "ConfigMap") if one["metadata"]["name"] == "embedmill-airflow"]
    assert variables["data"]["EMBEDMILL_LAUNCHER"] == "kubernetes"
    for name, text in shapes(resources).items():
        (tmp_path / name).write_text(text)
    settings = Settings.read(variables["data"] | {"EMBEDMILL_KUBERNETES_SHAPES": str(tmp_path)})
    assert settings.namespace == NAMESPACE
    assert read(settings) == {name.removesuffix(".json"): json.loads(text) for name, text in shapes(resources).items()}


def test_head_and_drivers_stay_on_demand_while_workers_are_on_spot() -> None:
    found: dict[str, list[str | None]] = {}
    for one in sized("1b") + made_by_the_launcher(sized("1b")):
        for pod in pods(one):
            found.setdefault(pod.part, []).append(pod.spec.get("nodeSelector", {}).get("embedmill/pool"))
    assert found["serve-head"] == ["head"] and found["serve"] == ["cpu"]
    assert found["ray"] == ["head", "gpu"]
    assert found["spark-driver"] == ["head"] and found["spark-executor"] == ["cpu"]


def test_the_queue_has_room_for_a_run_beside_the_query_service() -> None:
    def gigabytes(text: str) -> float:
        number, unit = re.fullmatch(r"(\d+)([A-Z])i", text).groups()  # type: ignore[union-attr]
        return float(number) * {"M": 1 / 1024, "G": 1.0}[unit]

    for size in ("100m", "1b"):
        resources = sized(size)
        asked: dict[str, list[float]] = {}
        for one in made_by_the_launcher(resources):
            assert one["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "embedmill"
            for pod in pods(one):
                count = 1
                if pod.part == "spark-executor":
                    count = one["spec"]["executor"]["instances"]
                elif pod.spec["containers"][0]["name"] == "ray-worker":
                    count = one["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"]
                limits = pod.spec["containers"][0]["resources"]["limits"]
                pool = asked.setdefault(pod.spec["nodeSelector"]["embedmill/pool"], [0.0, 0.0, 0.0])
                pool[0] += count * float(limits["cpu"])
                pool[1] += count * gigabytes(limits["memory"])
                pool[2] += count * float(limits.get("nvidia.com/gpu", 0))
        [queue] = of_kind(resources, "ClusterQueue")
        labels = {one["metadata"]["name"]: one["spec"]["nodeLabels"] for one in of_kind(resources, "ResourceFlavor")}
        room = {}
        for flavor in queue["spec"]["resourceGroups"][0]["flavors"]:
            quota = {one["name"]: one["nominalQuota"] for one in flavor["resources"]}
            room[labels[flavor["name"]]["embedmill/pool"]] = [
                float(quota["cpu"]),
                gigabytes(quota["memory"]),
                float(quota.get("nvidia.com/gpu", 0)),
            ]
        assert all(want <= have for pool in asked for want, have in zip(asked[pool], room[pool], strict=True))


# -- values -----------------------------------------------------------------------------------------------------------


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """The dotted paths of a mapping's ends."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path


def test_the_schema_and_the_defaults_name_the_same_keys() -> None:
    def of_schema(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        if "properties" in schema:
            for name, inner in schema["properties"].items():
                yield from of_schema(inner, f"{path}.{name}" if path else name)
        else:
            yield path

    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    defaults["monitoring"]["dashboardLabels"] = {}  # a mapping of any names
    assert set(of_schema(schema)) == set(leaves(defaults)) | {"global"}


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("ray.worker.replica=2", "at '/ray/worker': additional properties 'replica' not allowed"),
        ("servee.enabled=true", "additional properties 'servee' not allowed"),
        ("ray.worker.replicas=two", "at '/ray/worker/replicas': got string, want integer"),
        ("image.name=registry/embedmill:latest", "at '/image/name'"),
        ("image.name=registry/embedmill", "at '/image/name'"),
        ("image.name=registry/embedmill@sha256:abc", "at '/image/name'"),
        ("image.name=registry/embedmill:1@sha256:abc", "at '/image/name'"),
        ("nameOverride=Bad_Name", "at '/nameOverride'"),
        ("fullnameOverride=a..b", "at '/fullnameOverride'"),
        ("secret=a.-b", "at '/secret'"),
        ("cronJobs.priorityClassName=High_", "at '/cronJobs/priorityClassName'"),
        ("cronJobs.timeZone=Etc UTC", "at '/cronJobs/timeZone'"),
        ("cronJobs.timeZone=UTC/", "at '/cronJobs/timeZone'"),
        ("objectStore.endpoint=http://u:p@store:9000", "at '/objectStore/endpoint'"),
        ("airflow.pagesUrl=http://u:p@pages", "at '/airflow/pagesUrl'"),
        ("objectStore.uri=gs://bucket", "at '/objectStore/uri'"),
        ("networkPolicy.index.ports[0]=0", "at '/networkPolicy/index/ports/0'"),
        ("spark.driver.memory=8Gi", "at '/spark/driver/memory'"),
    ],
)
def test_a_misspelt_or_wrong_value_is_refused_with_its_place(sets: str, said: str) -> None:
    assert said in refused([values("1m")], [sets])


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["config="], "config: give the text of embedmill.toml, or existingConfigMap"),
        (["existingConfigMap=other"], "config and existingConfigMap: give one of the two"),
        (['config=token = "abc"'], "config: a secret stands in it"),
        (["env.EMBEDMILL__INDEX__URI=http://u:abc@h:1"], "env.EMBEDMILL__INDEX__URI: variables are shown to all"),
        (["env.EMBEDMILL__SERVE__JWT_KEY=abc"], "env.EMBEDMILL__SERVE__JWT_KEY: variables are shown to all"),
        (["env.AWS_SECRET_ACCESS_KEY=abc"], "env.AWS_SECRET_ACCESS_KEY: variables are shown to all"),
        (["airflow.enabled=true"], "set cronJobs.run.enabled and cronJobs.verify.enabled to false"),
        (["externalSecret.enabled=true"], "externalSecret.enabled: needs secret"),
        (["kueue.create=true"], "kueue.create: needs kueue.queue"),
        (["serve.worker.minReplicas=9"], "serve.worker.minReplicas: is above serve.worker.maxReplicas"),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_the_way_out(sets: list[str], said: str) -> None:
    found = refused([values("1m")], sets)
    assert said in found and "abc" not in found


@pytest.mark.parametrize(
    "schedule",
    ["99 99 * * *", "60 * * * *", "0 24 * * *", "0 2 0 * *", "0 2 32 * *", "0 2 * 13 *", "0 2 * * 7", "0 2 * * FRO"]
    + ["0 9,99 * * *", "1-99 * * * *", "*/0 * * * *", "0, * * * *", "0 2 * * 1,", "0 2 * *", "0 2 * * * *", "@reboot"],
)
def test_a_schedule_that_kubernetes_refuses_is_refused(schedule: str, tmp_path: Path) -> None:
    assert "at '/cronJobs/run/schedule'" in refused([values("1m"), scheduled(tmp_path, schedule)])


@pytest.mark.parametrize(
    "schedule",
    ["@daily", "*/15 * * * *", "0,30 2-4,22 * * *", "5 4 1-31/2 JAN-mar,12 mon-FRI", "59 23 31 12 6", "00 09 01 01 0"],
)
def test_a_schedule_of_kubernetes_is_taken(schedule: str, tmp_path: Path) -> None:
    jobs = of_kind(render((values("1m"), scheduled(tmp_path, schedule))), "CronJob")
    assert schedule in [one["spec"]["schedule"] for one in jobs]


def scheduled(folder: Path, schedule: str) -> Path:
    (folder / "mine.yaml").write_text(json.dumps({"cronJobs": {"run": {"schedule": schedule}}}))
    return folder / "mine.yaml"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1", "EST5EDT"])
def test_a_time_zone_is_taken(zone: str) -> None:
    jobs = of_kind(render((values("1m"),), (f"cronJobs.timeZone={zone}",)), "CronJob")
    assert {one["spec"]["timeZone"] for one in jobs} == {zone}


DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize("image", [f"reg:5000/x@{DIGEST}", f"reg/x:1@{DIGEST}", "reg:5000/x:1.2-cpu"])
def test_an_image_by_its_digest_or_tag_is_taken(image: str) -> None:
    [job, *_] = of_kind(render((values("1m"),), (f"image.name={image}",)), "CronJob")
    assert job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"] == image


# -- secrets in the configuration -------------------------------------------------------------------------------------


def configured(folder: Path, config: str) -> Path:
    (folder / "mine.yaml").write_text(json.dumps({"config": config}))
    return folder / "mine.yaml"


def spelt(path: tuple[str, ...]) -> Iterator[str]:
    """The ways to write a key and its value in TOML."""
    *sections, key = path
    heading, dotted = ".".join(sections), ".".join(path)
    yield f'[{heading}]\n{key} = "C4NARY"'
    yield f"[{heading}]\n{key}='C4NARY'"
    yield f'[{heading}]\n"{key}" = "C4NARY"'
    yield f"[{heading}]\n'{key}'\t= 'C4NARY'"
    yield f'[{heading}]\n{key} = """\nC4NARY"""'
    yield f'{dotted} = "C4NARY"'
    yield f'{heading} . "{key}" = "C4NARY"'
    yield f'{heading} = {{a = 1, {key} = "C4NARY"}}'


@pytest.mark.parametrize("path", SECRET_KEYS, ids=".".join)
def test_a_secret_of_the_configuration_is_refused_however_it_is_written(path: tuple[str, ...], tmp_path: Path) -> None:
    for text in spelt(path):
        tomllib.loads(text)
        said = refused([configured(tmp_path, text)])
        assert "config: a secret stands in it" in said and "C4NARY" not in said, text


@pytest.mark.parametrize(
    "text",
    [
        '[index]\nuri = "http://u:C4NARY@h:1"',
        "[index]\nuri = 'https://C4NARY@h'",
        '[spark.properties]\n"spark.hadoop.fs.s3a.secret.key" = "C4NARY"',
        '[spark.properties]\n"fs.azure.account.key.x" = "C4NARY"',
    ],
)
def test_a_password_in_an_address_or_a_property_is_refused(text: str, tmp_path: Path) -> None:
    said = refused([configured(tmp_path, text)])
    assert "config: a secret stands in it" in said and "C4NARY" not in said


def test_what_only_looks_like_a_secret_is_taken(tmp_path: Path) -> None:
    text = """
[model]
name = "models:/chat@champion"
max_tokens = 128
[model.remote]
api_key_env = "A_VARIABLE"
[index]
token = ""
tls_key = "/tls/key.pem"
uri = "http://h:19530"
[serve]
jwt_public_key = "/keys/public.pem"
[[sources]]
permalink = "https://x.example/archives/a@b?p={ts}"
columns = {id = "token", text = "password"}
"""
    [found] = [
        one
        for one in of_kind(render((configured(tmp_path, text),)), "ConfigMap")
        if one["metadata"]["name"] == "embedmill-config"
    ]
    assert tomllib.loads(found["data"]["embedmill.toml"]) == tomllib.loads(text)


def test_the_least_values_of_the_page_render_and_are_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "helm.md").read_text()
    [text] = [one for one in re.findall(r"```yaml\n(# mine\.yaml\n.*?)```", page, re.S) if "config: |" in one]
    (tmp_path / "mine.yaml").write_text(text)
    assert len(of_kind(render((tmp_path / "mine.yaml",)), "CronJob")) == 3
    (tmp_path / "embedmill.toml").write_text(yaml.safe_load(text)["config"])
    assert load_config(tmp_path / "embedmill.toml").index.uri == "http://milvus.milvus.svc:19530"


# -- names ------------------------------------------------------------------------------------------------------------


def named(release: str, *sets: str) -> set[str]:
    said = helm("template", release, CHART, "--values", values("1m"), *[w for one in sets for w in ("--set", one)])
    assert said.returncode == 0, said.stderr[-500:]
    return {one["metadata"]["name"] for one in yaml.safe_load_all(said.stdout) if one}


def test_releases_with_long_names_share_no_resource() -> None:
    long = "a-release-whose-name-is-as-long-as-can-be-"
    first, second = named(f"{long}one"), named(f"{long}two")
    assert not first & second
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 63 for name in first | second)
    prefixes = {name.removesuffix("-run") for name in first if name.endswith("-run")}
    assert max(map(len, prefixes)) <= 40
    override = f"{'x' * 31}.{'y' * 30}"
    cut = named("a", f"fullnameOverride={'x' * 30}.{'y' * 30}")
    assert all(".-" not in name for name in cut) and not cut & named("a", f"fullnameOverride={override}")


def test_a_name_of_40_characters_stays_as_it_is() -> None:
    for release, kept in (
        ("a" * 30, f"{'a' * 30}-embedmill"),
        ("my-embedmill", "my-embedmill"),
        ("a.b", "a.b-embedmill"),
    ):
        assert f"{kept}-run" in named(release)
    assert f"{'b' * 40}-run" in named("a", f"fullnameOverride={'b' * 40}")


@pytest.mark.parametrize("release", ["my.release.v1", "1st"])
def test_a_name_that_kuberay_s_services_cannot_have_is_refused(release: str) -> None:
    words = (release, CHART, "--values", values("1m"), "--set", "serve.enabled=true")
    said = helm("template", *words)
    assert (
        said.returncode == 1 and f"serve.enabled: KubeRay makes Services by the name {release}-embedmill" in said.stderr
    )
    assert helm("template", *words, "--set", "fullnameOverride=mine").returncode == 0


def test_the_values_of_every_former_release_still_render() -> None:
    former = sorted(FORMER.glob("*.yaml"))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert FORMER / f"{version}.yaml" in former, f"save values.yaml of {version} for those who upgrade from it"
    for file in former:
        resources = render((file,), ("config=a = 1",))
        for resource in resources:
            if resource["kind"] not in crd.FILES:
                kubernetes_validate.validate(resource, KUBERNETES, strict=True)
        assert len(of_kind(resources, "CronJob")) == 3


def test_the_saved_values_have_every_key_of_their_release() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    saved = yaml.safe_load((FORMER / f"{version}.yaml").read_text())
    assert set(leaves(saved)) == set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))


def test_an_install_ends_with_what_is_to_be_done_next() -> None:
    # `helm install --dry-run=client` renders the notes as well, and asks no cluster.
    place = ("--namespace", NAMESPACE, "--values", values("100m"), "--dry-run=client")
    said = helm("install", "embedmill", CHART, *place)
    notes = said.stdout.partition("NOTES:")[2]
    assert "mount\nembedmill-shapes at /etc/embedmill/shapes" in notes, said.stderr
    assert f"http://embedmill-serve.{NAMESPACE}:8000" in notes
