"""Who asks, and what they may see: a bearer token's claims, signed by the company's identity provider.

A tenant is never taken from a request's body alone: the body may only choose among what the token names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedding.errors import ConfigError
from jobs.serve.requests import BadRequest

if TYPE_CHECKING:
    from jobs.config import Config
    from jobs.config_operation import Serve

_ASYMMETRIC = ("RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA", "PS256")
_SYMMETRIC = ("HS256", "HS384", "HS512")
_LEEWAY = 30  # seconds that clocks may differ by


class Unauthenticated(Exception):
    """There is no token, or none that counts. The message says why, without it."""


class Forbidden(Exception):
    """The token does not allow what is asked. The message names no team that the token does not."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request may see. None allows all: of teams where nothing is checked, of channels where no claim says.

    ``who`` keeps what is remembered for one apart from what is remembered for another.
    """

    who: str
    teams: frozenset[str] | None
    channels: frozenset[str] | None = None

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
        return host == "localhost"


class Access:
    """Checks requests by the section [serve]. Raises ConfigError for a key that cannot be used."""

    def __init__(self, config: Config) -> None:
        self._settings = settings = config.serve
        secret = settings.jwt_key.get_secret_value()
        self._key: str | None = secret or None
        self._algorithms: Sequence[str] = _SYMMETRIC
        if settings.jwt_public_key:
            try:
                self._key = config.path(settings.jwt_public_key).read_text()
            except OSError as error:
                raise ConfigError(f"serve.jwt_public_key: cannot read it: {error.strerror}") from None
            self._algorithms = _ASYMMETRIC

    def grant(self, authorization: str) -> Grant:
        """What the header ``Authorization`` allows. Raises Unauthenticated or Forbidden."""
        if self._key is None:
            return Grant("", None)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("give a bearer token in the header Authorization")
        return self._of(self._claims(token.strip()))

    def _claims(self, token: str) -> Mapping[str, Any]:
        import jwt

        settings = self._settings
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                self._key or "",
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
        return Grant(str(claims.get("sub", "")), teams, channels)


def _names(claim: Any) -> frozenset[str]:
    """The names of a claim that is one name or a list of them."""
    given = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(name for name in given if isinstance(name, str) and name)
