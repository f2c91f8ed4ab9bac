"""From a Secret to a login: of a machine over SSH, of a database."""

from __future__ import annotations

from pydantic import SecretStr

from farshore_engine.contract.assignment import DatabaseLogin, SSHCredentials
from farshore_operator.api.protectedvm import CredentialKey
from farshore_operator.decide.vaultaccess import Values, secret_text


def ssh_login(values: Values, name: str, field: str) -> SSHCredentials:
    """Return the SSH login that Secret `name` holds, which `field` names; a fault says what cannot be read."""

    def text(key: CredentialKey) -> str:
        return secret_text(values[key], name, key, field)

    def secret(key: CredentialKey) -> SecretStr | None:
        return SecretStr(text(key).rstrip("\n")) if values.get(key) else None

    private = values.get(CredentialKey.PRIVATE_KEY)
    return SSHCredentials(
        username=text(CredentialKey.USERNAME).strip() if values.get(CredentialKey.USERNAME) else "root",
        password=secret(CredentialKey.PASSWORD),
        private_key=SecretStr(text(CredentialKey.PRIVATE_KEY)) if private else None,
        passphrase=secret(CredentialKey.PASSPHRASE),
        sudo_password=secret(CredentialKey.SUDO_PASSWORD),
    )


def database_login(values: Values, name: str, field: str) -> DatabaseLogin:
    """Return the login to a database that Secret `name` holds, which `field` names."""

    def text(key: CredentialKey) -> str:
        return secret_text(values[key], name, key, field).strip() if values.get(key) else ""

    password = text(CredentialKey.PASSWORD)
    return DatabaseLogin(username=text(CredentialKey.USERNAME), password=SecretStr(password) if password else None)
