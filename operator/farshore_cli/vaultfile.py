"""A RecoveryVault and its Secrets as YAML, the way they are kept in Git: enough to open the vault without a cluster."""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretBytes, ValidationError

from farshore_engine.contract.assignment import AzureBlobAccess, DirectoryAccess, KeyVaultAccess, PreviousKey
from farshore_engine.contract.faults import StopFault
from farshore_operator.api import RecoveryVault
from farshore_operator.decide.vaultaccess import Values, encryption_key, previous_keys, storage_access


@dataclass(frozen=True)
class VaultFile:
    """A vault as its manifests say. Secrets are looked up when they are needed, so one that is not needed may lack."""

    vault: RecoveryVault
    secrets: Mapping[str, Values]

    @property
    def name(self) -> str:
        """Name of the RecoveryVault."""
        return self.vault.metadata.name

    def storage(self) -> tuple[AzureBlobAccess | DirectoryAccess, str]:
        """Return where the vault is, with the credential, and its prefix there."""
        if self.vault.spec.storage is None:
            raise StopFault(
                f"RecoveryVault {self.name} has no storage of its own",
                "Site Recovery keeps its points: use the Azure portal",
                reason="VaultNotUsable",
            )
        return storage_access(self.name, self.vault.spec.storage, self._secret)

    def key(self) -> SecretBytes | KeyVaultAccess:
        """Return the key-encryption key."""
        return encryption_key(self.vault, self._secret)

    def previous_keys(self) -> tuple[PreviousKey, ...]:
        """Return the keys that were current before and may still be needed."""
        return previous_keys(self.vault, self._secret)

    def _secret(self, name: str, field: str) -> Values:
        if name not in self.secrets:
            raise StopFault(
                f"{field} names Secret {name}, which the files do not hold",
                "Give its file with another --vault-file, or give --key-file or --credential-file",
                reason="SecretNotFound",
            )
        return self.secrets[name]


def read_vault(files: tuple[Path, ...], name: str | None) -> VaultFile:
    """Read the manifests and choose the vault; raises StopFault for one that is unreadable, missing or ambiguous."""
    vaults: dict[str, RecoveryVault] = {}
    secrets: dict[str, Values] = {}
    for path, document in (found for file in files for found in _documents(file)):
        if document.get("kind") == "Secret":
            secrets[_name(path, document)] = _values(path, document)
        elif document.get("kind") == "RecoveryVault":
            vaults[_name(path, document)] = _vault(path, document)
    chosen = [vaults[name]] if name in vaults else list(vaults.values()) if name is None else []
    if len(chosen) != 1:
        where = ", ".join(str(path) for path in files)
        raise StopFault(
            f"{where} has no RecoveryVault {name or ''}".rstrip() if not chosen else f"{where} has several vaults",
            f"Choose with --vault one of: {', '.join(sorted(vaults)) or 'none is there'}",
            reason="BadOptions",
        )
    return VaultFile(chosen[0], secrets)


def _documents(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        documents = list(yaml.safe_load_all(text))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        # Not the parser's words: they quote the text, which may be a Secret's.
        raise StopFault(f"{path} cannot be read as YAML", "Check the file", reason="BadOptions") from error
    for document in documents:
        found = document if isinstance(document, dict) else {}
        items = found.get("items") if str(found.get("kind", "")).endswith("List") else None
        yield from ((path, one) for one in (items or [found]) if isinstance(one, dict))


def _name(path: Path, document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        raise StopFault(f"a {document['kind']} in {path} has no name", "Set metadata.name", reason="BadOptions")
    return name


def _vault(path: Path, document: dict[str, Any]) -> RecoveryVault:
    try:
        return RecoveryVault.of(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise StopFault(
            f"the RecoveryVault in {path} is malformed at {where}: {error.errors()[0]['msg']}",
            "Correct the file",
            reason="BadOptions",
        ) from None


def _values(path: Path, document: dict[str, Any]) -> Values:
    plain, encoded = document.get("stringData") or {}, document.get("data") or {}
    try:
        values = {str(key): base64.b64decode(str(value), validate=True) for key, value in encoded.items()}
    except (binascii.Error, ValueError, AttributeError) as error:
        raise StopFault(
            f"Secret {_name(path, document)} in {path} has data that is not base64",
            "If the file is encrypted (SOPS, Sealed Secrets), decrypt it first; - reads it from standard input",
            reason="BadOptions",
        ) from error
    return values | {str(key): str(value).encode() for key, value in plain.items()}
