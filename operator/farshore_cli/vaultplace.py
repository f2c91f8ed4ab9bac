"""Which vault a `farshore vault` command works on, from options, environment and files: no cluster is asked.

It is for the worst night: the cluster is gone, and a person has the storage credential, the key, and perhaps the
manifests as they are kept in Git. Secrets come from files and the environment, never from the command line, where
every user of the host could read them.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from farshore_engine.contract.assignment import AzureBlobAccess, DirectoryAccess, KeyVaultAccess, VaultAccess
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from pydantic import SecretBytes

    from farshore_cli.vaultfile import VaultFile

R = TypeVar("R")
PREFIX = "FARSHORE_VAULT_"
SECRETS = {  # the names that Azure's own tools use, and what each holds
    "AZURE_STORAGE_CONNECTION_STRING": "connection_string",
    "AZURE_STORAGE_KEY": "account_key",
    "AZURE_STORAGE_SAS_TOKEN": "sas_token",
}
PANEL = "Which vault"


def _option(name: str, env: str, text: str) -> Any:
    return typer.Option(name, envvar=f"{PREFIX}{env}", help=text, rich_help_panel=PANEL, show_default=False)


OPTIONS: dict[str, Any] = {
    "directory": Annotated[Path | None, _option("--directory", "DIRECTORY", "Directory that holds the vault.")],
    "account_url": Annotated[
        str | None, _option("--account-url", "ACCOUNT_URL", "Blob endpoint of the storage account.")
    ],
    "container": Annotated[str | None, _option("--container", "CONTAINER", "Container of the vault.")],
    "credential_file": Annotated[
        Path | None,
        _option(
            "--credential-file",
            "CREDENTIAL_FILE",
            "File with an account key, SAS token or connection string. Without: " + ", ".join(SECRETS) + ".",
        ),
    ],
    "prefix": Annotated[str | None, _option("--prefix", "PREFIX", "Folder of the vault in container or directory.")],
    "key_file": Annotated[
        Path | None, _option("--key-file", "KEY_FILE", "File with the key-encryption key: raw, hex or base64.")
    ],
    "vault_file": Annotated[
        list[Path] | None,
        _option(
            "--vault-file",
            "FILE",
            "File with the RecoveryVault and its Secrets as they are in Git, instead of the options above; - reads "
            "standard input. May be repeated.",
        ),
    ],
    "patience": Annotated[
        float | None, _option("--patience", "PATIENCE", "Seconds to wait for a store that does not answer; 60.")
    ],
    "vault_name": Annotated[
        str | None, _option("--vault", "NAME", "Which RecoveryVault of those files, if there are several.")
    ],
}


@dataclass(frozen=True)
class Place:
    """What was said about where the vault is and how it opens; nothing is read until it is asked for."""

    directory: Path | None = None
    account_url: str | None = None
    container: str | None = None
    credential_file: Path | None = None
    prefix: str | None = None
    key_file: Path | None = None
    vault_file: tuple[Path, ...] = ()
    vault_name: str | None = None
    patience: float | None = None
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    def access(self) -> VaultAccess:
        """Return the vault with its secrets; raises StopFault that names what is missing."""
        file = self._file()
        storage, prefix = self._storage(file)
        key = self._key(file)
        if isinstance(storage, DirectoryAccess) and not storage.path.is_dir():
            raise StopFault(f"there is no directory {storage.path}", "Check the path", reason="NoVault")
        chosen = self.prefix if self.prefix is not None else prefix
        previous = file.previous_keys() if file and self.key_file is None else ()
        return VaultAccess(
            name=file.name if file else "vault", storage=storage, prefix=chosen, key=key, previous_keys=previous
        )

    def _file(self) -> VaultFile | None:
        from farshore_cli.vaultfile import read_vault

        return read_vault(self.vault_file, self.vault_name) if self.vault_file else None

    def _storage(self, file: VaultFile | None) -> tuple[AzureBlobAccess | DirectoryAccess, str]:
        if self.directory is not None and (self.account_url or self.container):
            raise StopFault("both a directory and a container are given", "Give one of them", reason="BadOptions")
        if self.directory is not None:
            return DirectoryAccess(path=self.directory.absolute()), ""
        if self.container is not None:
            return self._blob(self.container), ""
        if file is not None:
            return file.storage()
        raise StopFault(
            "it is not said where the vault is",
            "Give --directory, or --account-url and --container, or --vault-file with the RecoveryVault and its "
            f"Secrets; or {PREFIX}DIRECTORY and so on in the environment",
            reason="BadOptions",
        )

    def _blob(self, container: str) -> AzureBlobAccess:
        from pydantic import SecretStr

        kind, secret = self._credential()
        if self.account_url is None and kind != "connection_string":
            raise StopFault("--account-url is missing", "Give the blob endpoint of the account", reason="BadOptions")
        return AzureBlobAccess(account_url=self.account_url or "", container=container, **{kind: SecretStr(secret)})

    def _credential(self) -> tuple[str, str]:
        """Return the name of the field of AzureBlobAccess and the secret."""
        if self.credential_file is not None:
            text = read_secret(self.credential_file, "the storage credential").decode(errors="replace").strip()
            if "sig=" in text and "BlobEndpoint=" not in text:
                return "sas_token", text.lstrip("?")
            return ("connection_string" if "AccountName=" in text or "BlobEndpoint=" in text else "account_key"), text
        for variable, kind in SECRETS.items():
            if secret := self.environment.get(variable, "").strip():
                return kind, secret
        raise StopFault(
            "there is no storage credential",
            f"Put it into a file and name that with --credential-file, or set one of {', '.join(SECRETS)}",
            reason="BadOptions",
        )

    def _key(self, file: VaultFile | None) -> SecretBytes | KeyVaultAccess:
        from pydantic import SecretBytes

        from farshore_engine.vault.crypto import parse_kek

        if self.key_file is not None:
            return SecretBytes(parse_kek(read_secret(self.key_file, "the key-encryption key")))
        if file is not None:
            return file.key()
        raise StopFault(
            "the key-encryption key is not given",
            f"Name the file that holds it with --key-file or {PREFIX}KEY_FILE",
            reason="BadOptions",
        )


def vault_command(command: Callable[..., R]) -> Callable[..., R]:
    """Let a command whose first parameter is a `Place` take the options that make one.

    Every command of `farshore vault` has them, behind its own.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in OPTIONS.items()
    ]

    @functools.wraps(command)
    def wrapped(**given: Any) -> R:
        place = {name: given.pop(name) for name in OPTIONS}
        place["vault_file"] = tuple(place["vault_file"] or ())
        return command(Place(**place), **given)

    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    wrapped.__signature__ = inspect.Signature([*keyword, *options])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in (*keyword, *options)}
    del wrapped.__wrapped__  # typer would look through it at the command
    return wrapped


def read_secret(path: Path, what: str) -> bytes:
    """Return what a file or, for `-`, standard input holds; raises StopFault that names `what`, never the content."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise StopFault(
            f"{what} cannot be read from {path}: {error.strerror}", "Check the path", reason="BadOptions"
        ) from error
