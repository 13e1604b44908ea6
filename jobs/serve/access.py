"""Who asks, and what they may see: a bearer token's claims, signed by the company's identity provider.

A tenant is never taken from a request's body alone: the body may only choose among what the token names.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding.errors import ConfigError
from jobs.serve.requests import BadRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from jobs.config import Config
    from jobs.config_operation import Serve

_SYMMETRIC = ("HS256", "HS384", "HS512")
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_RSA_BITS = 2048  # below, a key counts as breakable
_PUBLIC_KEY = "serve.jwt_public_key"
_SURROGATE = re.compile("[\ud800-\udfff]")
_LEEWAY = 30  # seconds that clocks may differ by
_REMEMBERED = 4096  # tokens; checking a signature takes 40 to 200 µs of the one thread that all requests share


class Unauthenticated(Exception):
    """There is no token, or none that counts. The message says why, without it."""


class Forbidden(Exception):
    """The token does not allow what is asked. The message names no team that the token does not."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request may see. None allows all: of teams where nothing is checked, of channels where no claim says.

    ``who`` is the subject with its teams, None where a token names no subject, and "" where nothing is checked.
    """

    who: str | None
    teams: frozenset[str] | None
    channels: frozenset[str] | None = None

    def memory(self, team: str = "") -> str | None:
        """Whose questions are remembered together, those that search ``team``; None where none may be."""
        return None if self.who is None else f"{team}\n{self.who}"  # ``who`` has no line break

    def team(self, asked: str | None) -> str:
        """The team that is searched. Raises Forbidden, and BadRequest where none is named and several may be."""
        if self.teams is None:
            if not asked:
                raise BadRequest("team: name the team to search")
            return asked
        if asked:
            if asked not in self.teams:
                raise Forbidden("team: the token does not allow it")
            return asked
        if len(self.teams) != 1:
            raise BadRequest("team: name one of those that the token allows")
        return next(iter(self.teams))

    def within(self, asked: Sequence[str], public: bool) -> tuple[tuple[str, ...], bool]:
        """The channels that are searched, and whether public ones are found beside them. Raises Forbidden."""
        if self.channels is None:
            return tuple(asked), public
        if not self.channels.issuperset(asked):
            raise Forbidden("channels: the token does not allow all of them")
        return (tuple(asked), public) if asked else (tuple(sorted(self.channels)), True)


def check_reach(config: Config, host: str = "") -> Serve:
    """The section [serve] of a service that listens on ``host``, "" for all addresses.

    Raises ConfigError where anybody on the network could ask as any tenant.
    """
    settings = config.serve
    if not (settings.jwt_key.get_secret_value() or settings.jwt_public_key or settings.open or _is_loopback(host)):
        raise ConfigError(
            f"serve: {host or 'every address'} is reached from elsewhere, and nothing says who asks; set "
            "serve.jwt_public_key, or serve.open = true where a proxy in front of it checks each request and its team"
        )
    return settings


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@lru_cache(64)
def _names_this_machine(host: str) -> bool:
    """Whether a header ``Host``, a name or an address with or without a port, is of the loopback interface."""
    return _is_loopback(host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0])


def _pem(file: Path) -> bytes:
    """What is in the file of a public key. Raises ConfigError for what is something else."""
    try:
        pem = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{_PUBLIC_KEY}: {file}: cannot read it: {error.strerror}") from None
    fault = ""
    if b"PRIVATE KEY" in pem:
        fault = "it is a private key; give the public one, and keep that one elsewhere"
    elif b"BEGIN CERTIFICATE" in pem:
        fault = "it is a certificate; give the key in it, as `openssl x509 -pubkey -noout -in FILE` writes it"
    elif pem.count(b"-----BEGIN ") > 1:
        fault = "it holds several keys, and one alone would count; leave one in it"
    if fault:
        raise ConfigError(f"{_PUBLIC_KEY}: {file}: {fault}")
    return pem


def _public_key(file: Path) -> tuple[PublicKeyTypes, Sequence[str]]:
    """The key of a PEM file, and the algorithms that it checks. Raises ConfigError for one that is not to be used."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_pem(file))
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{_PUBLIC_KEY}: {file}: it holds no public key in PEM") from None
    if isinstance(key, RSAPublicKey) and key.key_size >= _RSA_BITS:
        return key, _RSA
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key, _CURVES[key.curve.name]
    if isinstance(key, Ed25519PublicKey):
        return key, ("EdDSA",)
    raise ConfigError(
        f"{_PUBLIC_KEY}: {file}: give RSA of {_RSA_BITS:,} bits or more, EC (P-256, P-384, P-521) or Ed25519"
    )


class Access:
    """Checks requests by the section [serve]. Raises ConfigError for a public key that cannot be used.

    The key is read once: another one takes a restart. A token that was good is so until it expires.
    """

    def __init__(self, config: Config) -> None:
        self._settings = settings = config.serve
        self._key: str | PublicKeyTypes | None = settings.jwt_key.get_secret_value() or None
        self._algorithms: Sequence[str] = _SYMMETRIC
        if settings.jwt_public_key:
            self._key, self._algorithms = _public_key(config.path(settings.jwt_public_key))
        self._good: OrderedDict[bytes, tuple[Grant, float]] = OrderedDict()  # by the token's hash, the newest last

    def grant(self, authorization: str, host: str) -> Grant:
        """What the headers ``Authorization`` and ``Host`` allow. Raises Unauthenticated or Forbidden."""
        if self._key is None:
            # A page of another site whose name resolves to 127.0.0.1 could else ask through a browser of this machine.
            if not self._settings.open and not _names_this_machine(host):
                raise Forbidden("host: without a key only localhost and loopback addresses are answered")
            return Grant("", None)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("give a bearer token in the header Authorization")
        return self._remembered(token.strip())

    def _remembered(self, token: str) -> Grant:
        key = blake2b(token.encode(), digest_size=32).digest()
        grant, until = self._good.get(key, (None, 0.0))
        if grant is None or time.time() >= until:
            self._good.pop(key, None)
            claims = self._claims(token)
            grant = self._of(claims)
            self._good[key] = grant, int(claims["exp"]) + _LEEWAY
            if len(self._good) > _REMEMBERED:
                self._good.popitem(last=False)
        return grant

    def _claims(self, token: str) -> Mapping[str, Any]:
        import jwt

        settings = self._settings
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                self._key or "",  # type: ignore[arg-type]
                algorithms=list(self._algorithms),
                audience=settings.jwt_audience or None,
                issuer=settings.jwt_issuer or None,
                leeway=_LEEWAY,
                options={"require": ["exp"], "verify_aud": bool(settings.jwt_audience)},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is refused ({type(error).__name__})") from None
        return claims

    def _of(self, claims: Mapping[str, Any]) -> Grant:
        settings = self._settings
        teams = _names(claims.get(settings.team_claim))
        if not teams:
            raise Forbidden(f"the token names no team (claim {settings.team_claim!r})")
        channels = None
        if settings.channel_claim:
            channels = _names(claims.get(settings.channel_claim))
        subject = claims.get("sub")
        # As JSON, so that no two of them are one: a name may have any character.
        who = json.dumps([claims.get("iss"), subject, sorted(teams)]) if subject else None
        return Grant(who, teams, channels)


def _names(claim: Any) -> frozenset[str]:
    """The names of a claim that is one name or a list of them. Half of a pair of UTF-16 is no text."""
    given = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(name for name in given if isinstance(name, str) and name and not _SURROGATE.search(name))
