"""The key-encryption key in Azure Key Vault: data keys are wrapped and unwrapped there, with RSA-OAEP and SHA-256.

RSA-OAEP takes no associated data, so the machine is bound by a hash beside the data key. Whoever knows the public key
can make a wrap (of a data key of his own), which a key in a Secret does not allow: `docs/vault-format.md` says what
follows from that.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from farshore_engine.contract.assignment import KeyVaultAccess
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.vault.crypto import KEY_SIZE
from farshore_engine.vault.keydocument import Wrap, damaged_key
from farshore_engine.vault.keyring import binding

ALGORITHM = "RSA-OAEP-256"
TIMES = {"connection_timeout": 5.0, "read_timeout": 15.0, "retry_total": 3, "retry_backoff_max": 10}
TRANSIENT = {408, 429, 500, 502, 503, 504}
R = TypeVar("R")


class KeyVaultKey:
    """A `KeyWrapper` on an RSA key. A new version of the key in Key Vault counts as a new key that wraps."""

    def __init__(self, url: str, key_name: str, credential: Any, **options: Any) -> None:
        """Use the key `key_name` of the key vault at `url`; `options` go to the SDK's clients."""
        self._url = url.rstrip("/")
        self._key_name = key_name
        self._credential = credential
        self._options = {**TIMES, **options}
        self._keys = KeyClient(self._url, credential, **self._options)

    @classmethod
    def connect(cls, access: KeyVaultAccess, **options: Any) -> KeyVaultKey:
        """Return the key that an assignment describes; nothing is contacted yet."""
        if not access.url.lower().startswith("https://"):
            raise StopFault(f"key vault {access.url} is not reached by https", "Correct its URL", reason="BadKeyVault")
        authority = {"authority": access.authority, "disable_instance_discovery": True} if access.authority else {}
        known = {name: value for name, value in options.items() if name != "verify_challenge_resource"}
        try:
            secret = access.client_secret.get_secret_value()
            credential = ClientSecretCredential(
                access.tenant_id, access.client_id, secret, **{**TIMES, **known, **authority}
            )
            return cls(access.url, access.key_name, credential, **options)
        except ValueError as error:
            raise StopFault(
                f"the login to key vault {access.url} is malformed: {error}",
                "Check tenantId and clientId in its Secret",
                reason="BadKeyVault",
            ) from error

    def name(self) -> str:
        """See KeyWrapper: the id of the key's newest version."""
        return str(self._asked("read the key", lambda: self._keys.get_key(self._key_name).id))

    def label(self) -> str:
        """See KeyWrapper."""
        return f"{self._url}/keys/{self._key_name}"

    def made(self, wrap: Wrap) -> bool:
        """See KeyWrapper."""
        return wrap.kek.lower().startswith(f"{self.label()}/".lower())

    def wrap(self, data_key: bytes, machine: str) -> Wrap:
        """See KeyWrapper."""

        def ask() -> Wrap:
            key = self._keys.get_key(self._key_name)
            client = CryptographyClient(key, self._credential, **self._options)
            done = client.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, data_key + _seal(machine))
            return Wrap(str(key.id), ALGORITHM, done.encrypted_key)

        return self._asked("wrap a data key", ask)

    def unwrap(self, wrap: Wrap, machine: str) -> bytes:
        """See KeyWrapper. The version that wrapped is asked, whichever is the newest."""
        if wrap.algorithm != ALGORITHM:
            raise damaged_key(machine, f"it is wrapped by {wrap.algorithm}, which a key in Key Vault does not do")

        def ask() -> bytes:
            client = CryptographyClient(wrap.kek, self._credential, **self._options)
            return bytes(client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrap.wrapped).key)

        plain = self._asked("unwrap a data key", ask, machine)
        if not hmac.compare_digest(plain[KEY_SIZE:], _seal(machine)):
            raise damaged_key(machine, "its data key belongs to another machine")
        return plain[:KEY_SIZE]

    def _asked(self, what: str, ask: Callable[[], R], machine: str = "") -> R:
        try:
            return ask()
        except AzureError as error:
            raise self._fault(what, error, machine) from error
        except ValueError as error:  # the SDK's own checks: an expired key, a challenge for another service
            raise StopFault(
                f"cannot {what} with {self.label()}: {error}", "Check the key and its dates", reason="KeyVaultRefused"
            ) from error

    def _fault(self, what: str, error: AzureError, machine: str) -> Fault:
        where = f"cannot {what} with {self.label()}"
        status, code = getattr(error, "status_code", None), _code(error)
        if isinstance(error, ServiceRequestError | ServiceResponseError) or status in TRANSIENT:
            away = "it is throttled" if status == 429 else f"no answer (status {status})" if status else "no answer"
            return WaitFault(
                f"{where}: {away}",
                f"Check the route to {urlsplit(self._url).netloc}; machines that replicate already go on meanwhile",
                reason="KeyVaultThrottled" if status == 429 else "KeyVaultUnreachable",
                retry_after=_retry_after(error),
            )
        if status == 404:
            return StopFault(
                f"{where}: the key or its version does not exist ({code or status})",
                "Check the key's name; a deleted key is recovered in Key Vault while its retention lasts",
                reason="KeyVaultKeyMissing",
            )
        if status == 400 and machine:
            return damaged_key(machine, "the key vault cannot unwrap it")
        if status == 403 and code == "KeyDisabled":
            return StopFault(f"{where}: the key is disabled", "Enable it in Key Vault", reason="KeyVaultKeyDisabled")
        if isinstance(error, ClientAuthenticationError) or status in (401, 403):
            return StopFault(
                f"{where}: access refused ({code or status or 'no token'})",
                "Check tenantId, clientId and clientSecret, the role Key Vault Crypto Service Encryption User, and "
                "the key vault's firewall",
                reason="KeyVaultRefused",
            )
        return StopFault(f"{where}: {code or type(error).__name__}", "See Key Vault's logs", reason="KeyVaultError")


def _seal(machine: str) -> bytes:
    return hashlib.sha256(binding(machine)).digest()


def _code(error: AzureError) -> str:
    """Return the innermost code that Key Vault gave, such as KeyDisabled or ForbiddenByRbac."""
    found = getattr(error, "error", None)
    inner = getattr(found, "innererror", None) or {}
    return str(inner.get("code") or getattr(found, "code", None) or "")


def _retry_after(error: AzureError) -> float | None:
    response: Any = error.response if isinstance(error, HttpResponseError) else None
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return float(text) if text.isdigit() else None
