"""Registration keys: issued by an administrator, revoked by deleting a Secret, read from a file by an appliance."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import yaml

from farshore_engine.contract.faults import StopFault
from farshore_operator.decide.naming import EXPIRES_ANNOTATION, KEY_TYPE, SITE_LABEL, bounded, label, registrar
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.resources import ROLE_BINDING, SECRET, SITE

API_VERSION = "farshore.dev/registration/v1"
LIFE = timedelta(days=5)
_FIELDS = ("server", "certificateAuthority", "namespace", "site", "name", "expires", "token")


@dataclass(frozen=True)
class RegistrationKey:
    """A key: the API server (URL) and its CA (PEM), its site, when it ends, and a token bound to its Secret."""

    server: str
    authority: str
    namespace: str
    site: str
    name: str
    expires: datetime
    token: str = field(repr=False)

    def dump(self) -> str:
        """Return the key as the file's text."""
        body = {
            "apiVersion": API_VERSION,
            "server": self.server,
            "certificateAuthority": self.authority,
            "namespace": self.namespace,
            "site": self.site,
            "name": self.name,
            "expires": f"{self.expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "token": self.token,
        }
        return yaml.safe_dump(body, sort_keys=False)

    @classmethod
    def parse(cls, text: str, source: str) -> RegistrationKey:
        """Read a key's text; `source` names it in messages.

        Raises:
            StopFault: it is not a registration key.
        """
        try:
            body = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise _no_key(source, "it is not YAML") from error
        if not isinstance(body, dict) or body.get("apiVersion") != API_VERSION:
            raise _no_key(source, f"its apiVersion is not {API_VERSION}")
        missing = [name for name in _FIELDS if not body.get(name)]
        if missing:
            raise _no_key(source, f"it lacks {', '.join(missing)}")
        try:
            # YAML reads an unquoted time as one.
            ends = body["expires"]
            expires = ends if isinstance(ends, datetime) else datetime.fromisoformat(str(ends))
        except ValueError as error:
            raise _no_key(source, "its expiry is not a time") from error
        if expires.tzinfo is None:
            expires = expires.replace(tzinfo=UTC)
        texts = {name: str(body[name]) for name in _FIELDS}
        return cls(
            server=texts["server"],
            authority=texts["certificateAuthority"],
            namespace=texts["namespace"],
            site=texts["site"],
            name=texts["name"],
            expires=expires,
            token=texts["token"],
        )


@dataclass(frozen=True)
class IssuedKey:
    """A key that exists, as a list shows it."""

    name: str
    site: str
    expires: datetime | None
    created: datetime


def issue(client: Client, authority: str, namespace: str, site: str, now: datetime) -> RegistrationKey:
    """Issue a key for a site, valid five days. The Secret is the key's handle; the token is in the key only.

    Raises:
        StopFault: the site does not exist, or the operator has not made its registrar yet.
    """
    if client.get(SITE, namespace, site) is None:
        known = ", ".join(body["metadata"]["name"] for body in client.list_all(SITE, namespace)) or "none"
        raise StopFault(
            f"there is no Site {namespace}/{site}",
            f"Apply it first. Sites of this namespace: {known}",
            reason="SiteNotFound",
        )
    account = registrar(site)
    if client.get(ROLE_BINDING, namespace, account) is None:
        raise StopFault(
            f"the operator has not prepared Site {namespace}/{site} yet (RoleBinding {account} is missing)",
            "Check that the operator runs, and try again",
            reason="RegistrarMissing",
        )
    expires = (now + LIFE).replace(microsecond=0)
    name = f"{bounded(f'farshore-registration-{site}', 240)}-{secrets.token_hex(3)[:5]}"
    body: Json = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {SITE_LABEL: label(site)},
            "annotations": {EXPIRES_ANNOTATION: f"{expires:%Y-%m-%dT%H:%M:%SZ}"},
        },
        "type": KEY_TYPE,
    }
    secret = client.create(SECRET, namespace, body)
    bound = (name, secret["metadata"]["uid"])
    token = client.request_token(namespace, account, int(LIFE.total_seconds()), bound_secret=bound)
    ends = min(expires, token.expires)
    return RegistrationKey(client.server, authority, namespace, site, name, ends, token.value)


def issued(client: Client, namespace: str, site: str = "") -> tuple[IssuedKey, ...]:
    """Return the keys of a namespace, or of one site, oldest first."""
    labels = f"{SITE_LABEL}={label(site)}" if site else SITE_LABEL
    found = [
        IssuedKey(
            body["metadata"]["name"],
            body["metadata"]["labels"][SITE_LABEL],
            _time((body["metadata"].get("annotations") or {}).get(EXPIRES_ANNOTATION)),
            datetime.fromisoformat(body["metadata"]["creationTimestamp"]),
        )
        for body in client.list_all(SECRET, namespace, labels=labels)
        if body.get("type") == KEY_TYPE
    ]
    return tuple(sorted(found, key=lambda key: (key.created, key.name)))


def revoke(client: Client, namespace: str, site: str, name: str) -> None:
    """Revoke a key by deleting its Secret: the API server refuses its token from then on.

    Raises:
        StopFault: there is no such key of this site.
    """
    keys = issued(client, namespace, site)
    if name not in [key.name for key in keys]:
        known = ", ".join(key.name for key in keys) or "none"
        raise StopFault(f"site {site} has no registration key {name}", f"Its keys: {known}", reason="NoSuchKey")
    client.delete(SECRET, namespace, name)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _no_key(source: str, why: str) -> StopFault:
    return StopFault(
        f"{source} is no registration key: {why}",
        "Issue one with `farshore site registration-key SITE --out FILE`",
        reason="NotAKey",
    )
