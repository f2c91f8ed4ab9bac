"""What a process server keeps of its registration: keys, token and where it belongs. All files are its owner's only."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from farshore_engine.contract.faults import StopFault

DIRECTORY = "registration"


@dataclass(frozen=True)
class Registration:
    """Where a process server belongs: API server (URL), its CA (PEM), namespace, site, name and ServiceAccount."""

    server: str
    authority: str
    namespace: str
    site: str
    name: str
    account: str


class StateDir:
    """The registration's part of a process server's state directory."""

    def __init__(self, state: Path) -> None:
        self._root = state / DIRECTORY

    def load(self) -> Registration | None:
        """Return the registration, None if there is none.

        Raises:
            StopFault: the file is damaged.
        """
        file = self._root / "registration.yaml"
        if not file.is_file():
            return None
        try:
            return Registration(**yaml.safe_load(file.read_text()))
        except (TypeError, yaml.YAMLError) as error:
            raise StopFault(
                f"{file} is damaged", f"Remove {self._root} and register again with a new key", reason="StateDamaged"
            ) from error

    def save(self, registration: Registration, token: str) -> None:
        """Keep a registration; the token first, so that one without the other is never there."""
        self.save_token(token)
        self._write("registration.yaml", yaml.safe_dump(asdict(registration)).encode())

    def token(self) -> str:
        """Return the newest token; empty if there is none."""
        file = self._root / "token"
        return file.read_text() if file.is_file() else ""

    def save_token(self, token: str) -> None:
        """Keep a new token."""
        self._write("token", token.encode())

    def sealing_key(self) -> X25519PrivateKey:
        """Return the key to which the operator seals the first token, made on first use."""
        file = self._root / "sealing.key"
        if not file.is_file():
            self._write("sealing.key", X25519PrivateKey.generate().private_bytes_raw())
        return X25519PrivateKey.from_private_bytes(file.read_bytes())

    def _write(self, name: str, data: bytes) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._root / f".{name}.new"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._root / name)
