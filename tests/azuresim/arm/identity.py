"""Who calls and what they may do: service principals, tokens, role assignments.

The token endpoint answers what azure-identity (MSAL) asks with `authority` and `disable_instance_discovery`: OpenID
configuration, then a client-credentials grant with a secret, a certificate's assertion or a federated token.
Source: learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow; AD FS by the same protocol under
/adfs.
"""

from __future__ import annotations

import base64
import fnmatch
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.azuresim.arm.errors import ArmError


@dataclass
class Principal:
    """A service principal: how it proves itself. `federated` are tokens of a workload identity that are trusted."""

    client_id: str
    object_id: str
    secret: str = ""
    certificates: list[bytes] = field(default_factory=list)
    """PEM."""
    federated: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Grant:
    """A role assignment: patterns of actions at a scope (an id; what lies below it inherits)."""

    client_id: str
    scope: str
    actions: tuple[str, ...] = ("*",)
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()

    def covers(self, scope: str) -> bool:
        mine = self.scope.lower().rstrip("/")
        return scope.lower() == mine or scope.lower().startswith(mine + "/")

    def permits(self, action: str) -> bool:
        return _any(self.actions, action) and not _any(self.not_actions, action)


def _any(patterns: tuple[str, ...], action: str) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), one.lower()) for one in patterns)


@dataclass
class Roles:
    """Role assignments (source: learn.microsoft.com/azure/role-based-access-control/overview: additive, inherited;
    an action of one role is not taken away by NotActions of another)."""

    grants: list[Grant] = field(default_factory=list)

    def allowed(self, who: Principal, action: str, scope: str) -> bool:
        return any(one.client_id == who.client_id and one.covers(scope) and one.permits(action) for one in self.grants)

    def at(self, who: Principal, scope: str) -> list[Grant]:
        return [one for one in self.grants if one.client_id == who.client_id and one.covers(scope)]


@dataclass
class Token:
    text: str
    who: Principal
    audience: str
    expires: float


class Refused(Exception):
    """The token endpoint says no, in OAuth's words."""

    def __init__(self, error: str, description: str, status: int = 401) -> None:
        super().__init__(error)
        self.status, self.body = status, {"error": error, "error_description": description}


@dataclass
class Tokens:
    """The token endpoint and the tokens it has given out. `lifetime` in seconds.

    Source of the numbers: "Microsoft Entra authentication and authorization error codes" (AADSTS...); of the codes that
    Resource Manager answers: Azure docs, azure-resource-manager/troubleshooting/common-deployment-errors; that a token
    it never gave out is `InvalidAuthenticationToken` is [inf].
    """

    tenant: str
    audiences: set[str] = field(default_factory=set)
    principals: dict[str, Principal] = field(default_factory=dict)
    given: dict[str, Token] = field(default_factory=dict)
    lifetime: int = 3600
    managed: dict[str, Principal] = field(default_factory=dict)
    """Principals that are managed identities, by the secret header of their host."""
    asked: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_mine(self, path: str) -> bool:
        first = path.strip("/").split("/")[0].lower()
        return first in (self.tenant, "adfs", "common", "organizations", "msi")

    def answer(self, base: str, path: str, form: dict[str, str]) -> dict[str, Any]:
        """Answer a request below `base`. Raises Refused."""
        words = path.strip("/").split("/")
        if words[-1] == "openid-configuration":
            root = f"{base}/{words[0]}"
            middle = "oauth2" if words[0].lower() == "adfs" else "oauth2/v2.0"
            return {
                "issuer": f"{root}/v2.0", "authorization_endpoint": f"{root}/{middle}/authorize",
                "token_endpoint": f"{root}/{middle}/token",
            }  # fmt: skip
        if words[-1] != "token":
            raise Refused("invalid_request", "AADSTS90014: unknown endpoint", 404)
        self.asked += 1
        who = self.principals.get(form.get("client_id", ""))
        if who is None:
            raise Refused(
                "unauthorized_client", f"AADSTS700016: Application with identifier '{form.get('client_id')}' was not "
                "found in the directory.", 400,
            )  # fmt: skip
        if form.get("grant_type") != "client_credentials":
            raise Refused("unsupported_grant_type", "AADSTS70003: unsupported grant", 400)
        self._prove(who, form)
        return self._give(who, form.get("scope", "").split()[0].removesuffix("/.default"))

    def managed_identity(self, query: dict[str, str], secret: str) -> dict[str, Any]:
        """The endpoint of a host's managed identity (source: "How to use managed identities for App Service", REST
        reference, api-version 2019-08-01). Raises Refused."""
        self.asked += 1
        who = self.managed.get(secret)
        if who is None or query.get("client_id", who.client_id) != who.client_id:
            raise Refused("invalid_request", "No managed identity was found.", 400)
        given = self._give(who, query.get("resource", ""))
        return {**given, "expires_on": str(int(time.time()) + self.lifetime), "resource": query.get("resource", "")}

    def _prove(self, who: Principal, form: dict[str, str]) -> None:
        if "client_assertion" in form:
            if form["client_assertion"] in who.federated or _signed(form["client_assertion"], who.certificates):
                return
            raise Refused(
                "invalid_client",
                "AADSTS700027: The certificate used to sign the client assertion is not registered on application.",
            )
        if not who.secret or not secrets.compare_digest(form.get("client_secret", ""), who.secret):
            raise Refused("invalid_client", "AADSTS7000215: Invalid client secret provided.")

    def _give(self, who: Principal, audience: str) -> dict[str, Any]:
        if audience.rstrip("/") not in {one.rstrip("/") for one in self.audiences}:
            raise Refused(
                "invalid_resource", f"AADSTS500011: The resource principal named {audience} was not found.", 400
            )
        token = Token(secrets.token_urlsafe(24), who, audience, time.time() + self.lifetime)
        with self._lock:
            self.given[token.text] = token
        return {
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "ext_expires_in": self.lifetime,
            "access_token": token.text,
        }

    def revoke_all(self) -> None:
        with self._lock:
            self.given.clear()

    def check(self, header: str, base: str) -> Principal:
        """Who the bearer token stands for. Raises ArmError 401 with the challenge that ARM sends."""
        kind, _, text = header.partition(" ")
        challenge = f'Bearer authorization_uri="{base}/{self.tenant}", error="invalid_token", error_description='
        if kind.lower() != "bearer" or not text:
            raise ArmError(
                401, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.",
                headers={"WWW-Authenticate": challenge + '"The \'Authorization\' header is missing."'},
            )  # fmt: skip
        token = self.given.get(text)
        if token is None:
            raise ArmError(
                401, "InvalidAuthenticationToken", "The access token is invalid.",
                headers={"WWW-Authenticate": challenge + '"The access token is invalid."'},
            )  # fmt: skip
        if time.time() > token.expires:
            raise expired(challenge)
        return token.who


def expired(challenge: str) -> ArmError:
    return ArmError(
        401, "ExpiredAuthenticationToken", "The access token has expired: check the machine's clock.",
        headers={"WWW-Authenticate": challenge + '"The access token expiry is over."'},
    )  # fmt: skip


def _signed(assertion: str, certificates: list[bytes]) -> bool:
    """Whether a JWT is signed by one of the certificates (RS256 or PS256) and still valid."""
    try:
        head, claims, signature = assertion.split(".")
        expires = json.loads(_decoded(claims))["exp"]
        algorithm = json.loads(_decoded(head))["alg"]
    except (ValueError, KeyError):
        return False
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if algorithm == "PS256" else padding.PKCS1v15()
    for pem in certificates:
        key = x509.load_pem_x509_certificate(pem).public_key()
        if isinstance(key, rsa.RSAPublicKey) and _verified(
            key, _decoded(signature), f"{head}.{claims}".encode(), scheme
        ):
            return bool(expires > time.time())
    return False


def _verified(key: rsa.RSAPublicKey, signature: bytes, data: bytes, scheme: Any) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data, scheme, hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
