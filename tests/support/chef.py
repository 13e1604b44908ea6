"""The cookbook's resources, as ``tests/deploy/chef_double.rb`` evaluates them, and their equivalents in shell."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.paths import ROOT

CHEF = ROOT / "deploy" / "chef"
COOKBOOK = CHEF / "cookbooks" / "embedmill"
DOUBLE = ROOT / "tests" / "deploy" / "chef_double.rb"
NO_RUBY = "no ruby here; Debian: apt-get install ruby"
Resource = dict[str, Any]


class Refused(Exception):
    """The recipes raised; the text is Ruby's."""


def has_ruby() -> bool:
    """Whether recipes can be evaluated here."""
    return shutil.which("ruby") is not None


def evaluate(
    role: str,
    environment: str,
    attributes: Mapping[str, Any],
    bags: Mapping[str, Any] | None = None,
    address: str = "10.0.0.21",
) -> dict[str, Any]:
    """What Chef would hold of a node: ``metadata`` and ``resources``, in the order in which it would converge them.

    Raises Refused where the recipes raise, or say something that Chef does not have.
    """
    asked = {
        "chef": str(CHEF),
        "role": f"embedmill_{role}",
        "environment": environment,
        "attributes": {"embedmill": attributes},
        "automatic": {"ipaddress": address},
        "bags": bags or {},
    }
    ran = subprocess.run(["ruby", "-W", DOUBLE], input=json.dumps(asked), capture_output=True, text=True)
    if ran.returncode:
        raise Refused(ran.stderr)
    assert not ran.stderr, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def ruby(script: str, given: object) -> Any:
    """What a script makes of a value, with the cookbook's libraries loaded: ``given`` there, its answer the last value."""
    load = "require 'json'; Dir[ARGV[0] + '/libraries/*.rb'].sort.each { |file| require file }"
    whole = f"{load}\ngiven = JSON.parse($stdin.read)\nputs JSON.generate([begin\n{script}\nend])"
    ran = subprocess.run(["ruby", "-e", whole, COOKBOOK], input=json.dumps(given), capture_output=True, text=True)
    if ran.returncode:
        raise Refused(ran.stderr)
    return json.loads(ran.stdout)[0]


# -- shell -------------------------------------------------------------------------------------------------------------


def script(resources: Sequence[Resource]) -> str:
    """A bash script that does what Chef would do with these resources, and prints ``changed: TYPE[NAME]`` for each change.

    Notified commands run at once; services are enabled, and started by whoever boots the machine.
    """
    lines = ["set -euo pipefail", "umask 0022", 'changed() { echo "changed: $1"; }']
    lines += [f": {shlex.quote(label(one))}\n{_shell(one)}" for one in resources]
    return "\n".join(lines) + "\n"


def label(resource: Resource) -> str:
    return f"{resource['type']}[{resource['name']}]"


def _shell(one: Resource) -> str:
    if one["action"] == ["nothing"] or one["type"] == "embedmill_unit":
        return ":"
    return f"{_test(one)} || {{ {_do(one)} || exit 1; changed {shlex.quote(label(one))}; }}"


def _words(words: str | Sequence[str]) -> str:
    return words if isinstance(words, str) else shlex.join(map(str, words))


def _test(one: Resource) -> str:
    """A command that succeeds where nothing is to be done."""
    path, kind = shlex.quote(one["name"]), one["type"]
    if kind == "package":
        wanted = one["name_given"] if isinstance(one["name_given"], list) else [one["name_given"]]
        installed = "dpkg-query --show --showformat='${db:Status-Status}\\n'"
        return f'test "$({installed} {_words(wanted)} 2>/dev/null | grep -cx installed)" = {len(wanted)}'
    if kind == "apt_update":
        return "test -n \"$(find /var/lib/apt/lists -name '*Packages*' -print -quit)\""
    if kind in ("group", "user"):
        return f"getent {'group' if kind == 'group' else 'passwd'} {path} >/dev/null"
    if kind == "directory":
        return f"test -d {path} && {_owned(one)}"
    if kind in ("file", "template"):
        return f"cmp -s {path} - <<<{shlex.quote(one['content'].rstrip(chr(10)))} && {_owned(one)}"
    if kind == "remote_file":
        return f"test -f {path} && echo {one['checksum']}\\ \\ {path} | sha256sum --check --status && {_owned(one)}"
    if kind == "link":
        return f'test "$(readlink {path})" = {shlex.quote(one["to"])}'
    if kind == "service":
        return f"systemctl --quiet is-enabled {path} 2>/dev/null"
    assert kind == "execute", kind
    return f"{{ {one['not_if']}; }} 2>/dev/null"


def _owned(one: Resource) -> str:
    wanted = f"{one['owner']}:{one['group']} {int(one['mode'], 8):o}"
    return f"test \"$(stat -c '%U:%G %a' {shlex.quote(one['name'])})\" = {shlex.quote(wanted)}"


def _own(one: Resource) -> str:
    path = shlex.quote(one["name"])
    return f"chown {one['owner']}:{one['group']} {path} && chmod {one['mode']} {path}"


def _do(one: Resource) -> str:
    path, kind = shlex.quote(one["name"]), one["type"]
    if kind == "package":
        names = one["name_given"] if isinstance(one["name_given"], list) else [one["name_given"]]
        return f"DEBIAN_FRONTEND=noninteractive apt-get -qq --yes {one.get('options', '')} install {_words(names)} >&2"
    if kind == "apt_update":
        return "apt-get -qq update"
    if kind == "group":
        return f"groupadd --system --gid {one['gid']} {path}"
    if kind == "user":
        home = f"--home-dir {one['home']} --no-create-home --shell {one['shell']}"
        return f"useradd --system --uid {one['uid']} --gid {one['gid']} --comment {one['comment']} {home} {path}"
    if kind == "directory":
        return f"mkdir --parents {path} && {_own(one)}"
    if kind in ("file", "template"):
        new = f"{path}.new"
        check = one.get("verify", "true").replace("%{path}", new)
        return f"cat >{new} <<<{shlex.quote(one['content'].rstrip(chr(10)))} && {check} >&2 && mv {new} {path} && {_own(one)}"
    if kind == "remote_file":
        return f"cp {shlex.quote(one['source'].removeprefix('file://'))} {path} && {_own(one)} && {_test(one)}"
    if kind == "link":
        return f"ln --symbolic --force --no-dereference {shlex.quote(one['to'])} {path}"
    if kind == "service":
        return f"systemctl --quiet enable {path}"
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in one.get("environment", {}).items())
    return f"(cd {shlex.quote(one.get('cwd', '/'))} && env {variables} {_words(one['command'])}) >&2"
