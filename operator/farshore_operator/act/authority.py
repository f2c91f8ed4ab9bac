"""The certificate authority of a namespace: the Secret `farshore-ca`, made once; who comes second takes the first's."""

from __future__ import annotations

import base64
import binascii

from farshore_engine.contract.faults import StopFault
from farshore_operator.act.effects import MANAGED_BY, Effects
from farshore_operator.crypto.certificates import Authority, make_authority
from farshore_operator.decide.actions import AuthorityKnown, EnsureAuthority
from farshore_operator.decide.decision import Outcome
from farshore_operator.kube.client import Json
from farshore_operator.kube.resources import SECRET

SECRET_NAME = "farshore-ca"
CERTIFICATE = "ca.crt"
KEY = "ca.key"


def perform(effects: Effects, action: EnsureAuthority) -> tuple[Outcome, ...]:
    """Make the Secret if there is none."""
    return (AuthorityKnown(load(effects, action.namespace).certificate),)


def load(effects: Effects, namespace: str) -> Authority:
    """Return the CA of a namespace, making it if there is none.

    It is never made anew by itself: every agent and process server trusts the one that exists.

    Raises:
        StopFault: the Secret lacks a key.
    """
    found = effects.client.get(SECRET, namespace, SECRET_NAME)
    if found is None:
        made = make_authority(namespace, effects.now(), effects.timing.ca_life)
        body = {
            "metadata": {"name": SECRET_NAME, "namespace": namespace, "labels": MANAGED_BY},
            "type": "Opaque",
            "data": {CERTIFICATE: _encode(made.certificate), KEY: _encode(made.key)},
        }
        found = effects.client.ensure(SECRET, namespace, body)
    return Authority(_decode(found, CERTIFICATE), _decode(found, KEY))


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(secret: Json, key: str) -> str:
    try:
        return base64.b64decode(secret["data"][key]).decode()
    except (KeyError, TypeError, binascii.Error, UnicodeDecodeError) as error:
        raise StopFault(
            f"Secret {SECRET_NAME} has no usable key {key}",
            f"Restore it from a backup, or delete Secret {SECRET_NAME} and register all process servers again",
            reason="AuthorityDamaged",
        ) from error
