"""Who is asking: tenants by their keys, and by headers of callers that are trusted."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from fairshare.errors import SpecError
from fairshare.gateway.settings import GatewaySettings
from fairshare.scheduling.names import Names
from fairshare.wire.headers import FAIRNESS_HEADERS

DEFAULT_TENANT = "default"
KEY_HEADER = "x-fairshare-key"
TENANT_HEADERS = ("x-fairshare-tenant", *FAIRNESS_HEADERS)
MAX_NAME_CHARACTERS = 128


class UnauthorizedError(Exception):
    """The caller has to have a key, and has none that is known."""


class BadNameError(ValueError):
    """A name that no tenant, application or interaction can have."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys themselves; they appear in no text."""

    tenants: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Key by tenant."""
    trusted: str | None = field(default=None, repr=False)
    upstream: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        all_of_them = [*self.tenants.values(), *([self.trusted] if self.trusted else [])]
        if len(set(all_of_them)) < len(all_of_them):
            raise SpecError("two tenants (or a tenant and the trusted caller) have the same key")


def keys_of(settings: GatewaySettings, environ: Mapping[str, str] = os.environ) -> Keys:
    """The keys that the settings name.

    Raises:
        SpecError: a variable is not set, or two callers have the same key.
    """

    def value(variable: str, whose: str) -> str:
        if not (key := environ.get(variable, "").strip()):
            raise SpecError(
                f"the key of {whose} is not set", hint=f"export {variable}=... and start again"
            )
        return key

    tenants = {
        name: value(tenant.key_env, f"tenant {name}")
        for name, tenant in settings.tenants.items()
        if tenant.key_env
    }
    trusted, upstream = settings.trusted_key_env, settings.upstream_key_env
    return Keys(
        tenants,
        value(trusted, "trusted callers") if trusted else None,
        value(upstream, "the server") if upstream else None,
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who presented which key. ``tenant`` is the key's; ``known`` that there was a good one."""

    tenant: str | None = None
    trusted: bool = False

    @property
    def known(self) -> bool:
        """Whether the caller showed a key."""
        return self.trusted or self.tenant is not None


class Identity:
    """Tells callers apart by their keys, and finds the tenant of each request."""

    def __init__(self, settings: GatewaySettings, keys: Keys) -> None:
        self._salt = os.urandom(32)
        self._callers = {
            self._digest(key): (key, Caller(tenant=tenant)) for tenant, key in keys.tenants.items()
        }
        if keys.trusted is not None:
            self._callers[self._digest(keys.trusted)] = (keys.trusted, Caller(trusted=True))
        self.guarded = bool(self._callers)
        """Whether there are keys at all; without, callers' own keys are the server's business."""
        self._anonymous = settings.allow_anonymous or not self._callers
        self._body_user = settings.allow_body_user
        self._names = Names(settings.max_tenants, {*settings.tenants, DEFAULT_TENANT})

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Who presents the key in these headers.

        Raises:
            UnauthorizedError: nobody whom we know, and everybody must be known.
        """
        key = headers.get(KEY_HEADER) or _bearer(headers) or headers.get("x-api-key")
        # Found by a digest that nobody outside can compute, so that the time a look-up takes says
        # nothing of the keys.
        found = self._callers.get(self._digest(key)) if key else None
        if found is not None and hmac.compare_digest(found[0].encode(), _encoded(key)):
            return found[1]
        if not self._anonymous:
            raise UnauthorizedError
        return Caller()

    def tenant(self, caller: Caller, headers: Mapping[str, str], user: object = None) -> str:
        """Whose request it is: the key says it, or a trusted header, or (if allowed) the body.

        Raises:
            BadNameError: the header names what no tenant can be called.
        """
        if caller.tenant is not None:
            return caller.tenant
        if caller.trusted:
            for header in TENANT_HEADERS:
                if name := headers.get(header):
                    return self._names.told_apart(checked_name(name))
        elif self._body_user and user is not None:
            return self._names.told_apart(checked_name(user))
        return DEFAULT_TENANT

    def _digest(self, key: str | None) -> bytes:
        return hashlib.blake2b(_encoded(key), key=self._salt).digest()


def checked_name(name: object) -> str:
    """A name as a header or a body gives it, if it can be one.

    Raises:
        BadNameError: it is empty, too long, or holds what cannot be printed.
    """
    if not isinstance(name, str) or not name.strip():
        raise BadNameError("a name must be a text that is not empty")
    name = name.strip()
    if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise BadNameError(f"a name has at most {MAX_NAME_CHARACTERS} characters, all printable")
    return name


def _encoded(key: str | None) -> bytes:
    return (key or "").encode("utf-8", "surrogateescape")


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None
