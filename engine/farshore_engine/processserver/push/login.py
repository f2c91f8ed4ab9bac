"""What happens between the TCP connection and the login: the host key is judged, and the credentials are offered.

It remembers what the server asked for, so that a refusal can name the method that was refused or is switched off.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncssh

from farshore_engine.contract.assignment import Source, SSHCredentials
from farshore_engine.contract.faults import StopFault


def load_keys(credentials: SSHCredentials) -> list[asyncssh.SSHKey]:
    """Return the private key of the credentials, decrypted; an empty list if there is none.

    Raises:
        StopFault: it cannot be read or its passphrase is wrong.
    """
    if credentials.private_key is None:
        return []
    passphrase = credentials.passphrase.get_secret_value() if credentials.passphrase else None
    text = credentials.private_key.get_secret_value().strip() + "\n"
    try:
        return [asyncssh.import_private_key(text, passphrase)]
    except asyncssh.KeyEncryptionError:
        what = "has a passphrase that does not fit" if passphrase else "needs a passphrase, and the Secret holds none"
        remedy = "Put the key's passphrase into the Secret, under `passphrase`"
    except asyncssh.KeyImportError as error:
        what = "needs a passphrase, and the Secret holds none" if "assphrase" in str(error) else "cannot be read"
        remedy = (
            "Put a PEM or OpenSSH private key into the Secret, under `privateKey`, and its passphrase if it has one"
        )
    # Without the cause: an exception of the parser could quote the key.
    raise StopFault(f"the private key of user {credentials.username} {what}", remedy, reason="KeyUnusable") from None


def fingerprint(host_key: str) -> str:
    """Return type and SHA-256 fingerprint of a host key given as type and base64."""
    try:
        key = asyncssh.import_public_key(host_key)
    except asyncssh.KeyImportError:
        return f"unreadable key {host_key[:40]!r}"
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


class Login(asyncssh.SSHClient):
    """One login attempt.

    Attributes:
        host_key: the key that the server showed, as type and base64.
        changed_from: fingerprint of the pinned key when the server showed another, else empty.
        asked: the methods that the server asked for.
    """

    def __init__(self, source: Source, keys: list[asyncssh.SSHKey]) -> None:
        assert source.credentials is not None
        password = source.credentials.password
        self._source = source
        self._keys = list(keys)
        self._password = password.get_secret_value() if password else None
        self._interactive = self._password
        self.host_key = ""
        self.changed_from = ""
        self.asked: list[str] = []

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the key that the server showed."""
        return fingerprint(self.host_key)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Accept the pinned key, or any when none is pinned yet; the caller pins what it sees."""
        kind, data = key.export_public_key("openssh").decode().split()[:2]
        self.host_key = f"{kind} {data}"
        pinned = self._source.host_key
        if pinned and pinned.split()[:2] != [kind, data]:
            self.changed_from = fingerprint(pinned)
            return False
        return True

    def public_key_auth_requested(self) -> asyncssh.SSHKey | None:
        """Offer the key once."""
        if not self._keys:
            return None
        self.asked.append("public key")
        return self._keys.pop()

    def password_auth_requested(self) -> str | None:
        """Offer the password once."""
        password, self._password = self._password, None
        if password is not None:
            self.asked.append("password")
        return password

    def kbdint_auth_requested(self) -> str | None:
        """Take part in keyboard-interactive authentication (PAM) if there is a password."""
        return "" if self._interactive is not None else None

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """Answer a single hidden prompt with the password, once."""
        if not prompts:
            return []
        password, self._interactive = self._interactive, None
        if len(prompts) != 1 or prompts[0][1] or password is None:
            return None
        self.asked.append("keyboard-interactive")
        return [password]


def describe_login(source: Source, login: Login) -> tuple[str, str]:
    """Return message and remedy of a refused login, by what the server did and did not ask for."""
    credentials = source.credentials
    assert credentials is not None
    user, where = credentials.username, f"{source.address}:{source.port}"
    held = [
        *(["private key"] if credentials.private_key else []),
        *(["password"] if credentials.password else []),
    ]
    if not held:
        return (
            f"the Secret for {user}@{where} holds neither password nor private key",
            "Put `password` or `privateKey` into it",
        )
    if not login.asked:
        refused = " nor ".join(held)
        return (
            f"{where} does not let {user} log in with a {refused}: the server does not offer that method",
            "Set `PasswordAuthentication yes` (for a password) or `PubkeyAuthentication yes` (for a key) in "
            "/etc/ssh/sshd_config and restart sshd; for root also `PermitRootLogin yes` or `prohibit-password`",
        )
    methods = " and ".join(dict.fromkeys(login.asked))
    advice = []
    if "public key" in login.asked:
        advice.append(f"add the public key to ~{user}/.ssh/authorized_keys (owner {user}, mode 600)")
    if set(login.asked) & {"password", "keyboard-interactive"}:
        advice.append("correct the password in the Secret")
    if user == "root":
        advice.append("check `PermitRootLogin` in /etc/ssh/sshd_config")
    remedy = "; ".join(advice)
    return f"{where} refused the login of {user} by {methods}", remedy[0].upper() + remedy[1:]
