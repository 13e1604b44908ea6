"""Who may ask `embedmill serve`: keys that are none are refused at the start, and nobody learns what others ask."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from embedding.errors import ConfigError
from jobs.config import load_config
from jobs.serve.access import Access, Forbidden, Unauthenticated
from tests.support.ports import free_ports
from tests.support.serving import SECRET, Serving, token
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")
CANARY = "zanzibar-harbour-4711"
PEM = serialization.Encoding.PEM
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    space = Workspace(tmp_path_factory.mktemp("access") / "ws")
    assert space.run().code == 0
    server = Serving(space.config, jwt_key=SECRET)
    yield server
    server.process.kill()
    server.process.wait()


def remembered(server: Serving) -> float:
    return server.told("cached_queries_total")


def private(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def public(key: PrivateKeyTypes) -> bytes:
    found = key.public_key()
    assert isinstance(found, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)
    return found.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def with_section(folder: Path, **settings: str) -> Path:
    """A configuration of a section [serve] that needs nothing else."""
    file = folder / "embedmill.toml"
    (folder / "docs").mkdir(exist_ok=True)
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    file.write_text("\n".join(['[[sources]]\nkind = "files"\nuri = "docs"\nteam_id = "T01"\n[serve]', *lines, ""]))
    return file


def checking(folder: Path, pem: bytes) -> Access:
    (folder / "key.pem").write_bytes(pem)
    return Access(load_config(with_section(folder, jwt_public_key="key.pem")))


# -- keys --------------------------------------------------------------------------------------------------------------

NO_KEYS = {
    "no PEM": b"no key\n",
    "binary": b"\xff\xfe",
    "empty": b"",
    "private": private(ec.generate_private_key(ec.SECP256R1())),
    "a certificate": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "two keys": 2 * public(ec.generate_private_key(ec.SECP256R1())),
    "RSA of 1,024 bits": public(rsa.generate_private_key(65537, 1024)),  # noqa: S505
    "a curve of no algorithm": public(ec.generate_private_key(ec.SECP256K1())),
}


@pytest.mark.parametrize("pem", NO_KEYS.values(), ids=list(NO_KEYS))
def test_a_public_key_that_is_none_is_refused_at_the_start(tmp_path: Path, pem: bytes) -> None:
    with pytest.raises(ConfigError, match="serve.jwt_public_key") as refused:
        checking(tmp_path, pem)
    assert "BEGIN" not in str(refused.value) and str(tmp_path / "key.pem") in str(refused.value)
    assert ("openssl x509 -pubkey" in str(refused.value)) == (b"CERTIFICATE" in pem)


def test_the_command_ends_with_2_for_a_key_that_is_none(ran: Workspace) -> None:
    (ran.root / "key.pem").write_text("no key\n")
    ran.config.write_text(ran.config.read_text() + '[serve]\njwt_public_key = "key.pem"\n')
    command = [sys.executable, "-m", "jobs.cli", "serve", "--config", str(ran.config), "--port", str(free_ports(1)[0])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2 and "serve.jwt_public_key" in ended.stderr and "Traceback" not in ended.stderr
    assert ended.stderr.count("\n") == 1, "nothing is said before it"


KEYS: dict[str, tuple[Key, str]] = {
    "RSA": (rsa.generate_private_key(65537, 2048), "RS256"),
    "P-256": (ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "P-521": (ec.generate_private_key(ec.SECP521R1()), "ES512"),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
}


@pytest.mark.parametrize(("key", "algorithm"), KEYS.values(), ids=list(KEYS))
def test_a_token_counts_by_the_key_of_its_kind_alone(tmp_path: Path, key: Key, algorithm: str) -> None:
    access = checking(tmp_path, public(key))
    claims = {"sub": "u1", "exp": time.time() + 60, "team": TEAM}
    assert access.grant(f"Bearer {jwt.encode(claims, key, algorithm)}", "").teams == frozenset([TEAM])
    for other, by in KEYS.values():
        if other is not key:
            with pytest.raises(Unauthenticated):
                access.grant(f"Bearer {jwt.encode(claims, other, by)}", "")


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_a_token_that_was_good_is_not_checked_again_and_counts_no_longer_than_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(load_config(with_section(tmp_path, jwt_key=SECRET)))
    good, bad = f"Bearer {token(TEAM, seconds=60)}", f"Bearer {token(TEAM, key='y' * 40)}"
    checked: list[str] = []
    decode = jwt.decode

    def check(given: str, *rest: Any, **more: Any) -> Any:
        checked.append(given)
        return decode(given, *rest, **more)

    monkeypatch.setattr(jwt, "decode", check)
    for _ in range(3):
        assert access.grant(good, "").teams == frozenset([TEAM])
        with pytest.raises(Unauthenticated):
            access.grant(bad, "")
    assert len(checked) == 1 + 3, "a bad one is checked each time"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60 + 31)  # its time, and what clocks may differ by
    access.grant(good, "")
    assert len(checked) == 1 + 3 + 1


def test_good_tokens_that_are_remembered_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.serve.access._REMEMBERED", 3)
    access = Access(load_config(with_section(tmp_path, jwt_key=SECRET)))
    for number in range(10):
        access.grant(f"Bearer {token(TEAM, sub=str(number))}", "")
    assert len(access._good) == 3


@pytest.mark.parametrize("claim", ["\ud800T", ["\ud800"], [""], 5])
def test_a_claim_that_names_no_team_allows_none(tmp_path: Path, claim: Any) -> None:
    """Half of a character's pair (UTF-16) cannot be asked of an index, which was then told to be away."""
    access = Access(load_config(with_section(tmp_path, jwt_key=SECRET, channel_claim="channels")))
    with pytest.raises(Forbidden):
        access.grant(f"Bearer {token(claim, channels=['C1'])}", "")
    good = token(TEAM, channels=["C1", "\udfff"])
    assert access.grant(f"Bearer {good}", "").channels == frozenset(["C1"])


@pytest.mark.parametrize("name", ["Host", "Authorization"])
def test_a_header_that_says_who_asks_is_given_once(serving: Serving, name: str) -> None:
    """What stands in front of this may have looked at the other one."""
    given = {"Host": "localhost", "Authorization": f"Bearer {token(TEAM)}"}
    with closing(http.client.HTTPConnection("127.0.0.1", serving.port, timeout=20)) as client:
        client.putrequest("POST", "/embed", skip_host=True)
        for key, value in [*given.items(), (name, given[name]), ("Content-Length", "15")]:
            client.putheader(key, value)
        client.endheaders(b'{"inputs": "a"}')
        answer = client.getresponse()
        assert answer.status == 400 and name.lower() in answer.read().decode()


# -- memory ------------------------------------------------------------------------------------------------------------


def test_tokens_without_a_subject_share_no_memory_between_teams(serving: Serving) -> None:
    before = remembered(serving)
    for team in ("T01", "T02", "T02"):
        nobody = token(team, sub="")
        assert serving.post("/embed", {"inputs": f"what {CANARY} asks"}, nobody).status == 200
    assert remembered(serving) == before, "T02 learns by time that T01 has asked the same"


def test_subjects_of_two_teams_share_no_memory(serving: Serving) -> None:
    before = remembered(serving)
    for team in ("T01", "T02"):
        assert serving.post("/embed", {"inputs": f"what {CANARY} wants"}, token(team, sub="bot")).status == 200
    assert remembered(serving) == before
    assert serving.post("/embed", {"inputs": f"what {CANARY} wants"}, token("T02", sub="bot")).status == 200
    assert remembered(serving) == before + 1, "one that asks again is answered from memory"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"team": ["a", "b"], "sub": "c"}, {"team": ["a"], "sub": "b"}),
        ({"team": ['a", "b'], "sub": "c"}, {"team": ["a", "b"], "sub": "c"}),
        ({"team": ["a"], "sub": "b\na"}, {"team": ["a"], "sub": "b"}),
        ({"team": ["a"], "sub": "b", "iss": "x"}, {"team": ["a"], "sub": "b", "iss": "y"}),
    ],
)
def test_no_two_subjects_have_one_memory(tmp_path: Path, one: dict[str, object], other: dict[str, object]) -> None:
    access = Access(load_config(with_section(tmp_path, jwt_key=SECRET)))
    keys = []
    for claims in (one, other):
        signed = jwt.encode({"exp": time.time() + 60} | claims, SECRET, "HS256")
        grant = access.grant(f"Bearer {signed}", "")
        keys += [grant.memory(), grant.memory("a"), grant.memory("b")]
    assert len(set(keys)) == 6


# -- without a key -----------------------------------------------------------------------------------------------------


def test_without_a_key_a_page_of_another_site_cannot_ask_through_the_browser(ran: Workspace) -> None:
    """Its name resolves to 127.0.0.1 (DNS rebinding): the Host that the browser sends is not ours."""
    server = Serving(ran.config)
    try:
        asked = {"query": "lockers", "team": TEAM}
        refused = server.post("/search", asked, host="evil.example")
        answered = [server.post("/search", asked, host=f"{name}:{server.port}") for name in ("localhost", "127.0.0.1")]
    finally:
        server.process.kill()
        server.process.wait()
    assert (refused.status, refused.body["error"]["code"]) == (403, "forbidden")
    assert [answer.status for answer in answered] == [200, 200]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "127.9.9.9", "[::1]", "[::1]:8000"])
def test_without_a_key_names_of_this_machine_are_answered(tmp_path: Path, host: str) -> None:
    assert Access(load_config(with_section(tmp_path))).grant("", host).teams is None


@pytest.mark.parametrize("host", ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"])
def test_without_a_key_no_other_name_is(tmp_path: Path, host: str) -> None:
    with pytest.raises(Forbidden):
        Access(load_config(with_section(tmp_path))).grant("", host)
    file = with_section(tmp_path)
    file.write_text(file.read_text() + "open = true\n")
    assert Access(load_config(file)).grant("", host).teams is None, "a proxy checks, and has a name of its own"
