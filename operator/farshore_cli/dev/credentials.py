"""Lays out the keys, certificates and kubeconfigs of one control plane in its directory.

etcd has an authority of its own, so that a client certificate for the API server does not open the database.
"""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from farshore_cli.dev.pki import Authority, Pair, signing_key

_HOSTS = ("localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1")


@dataclass(frozen=True)
class Credentials:
    """Where each key, certificate and kubeconfig is. The files exist once `create` has run."""

    directory: Path

    @property
    def ca(self) -> Path:
        """Authority of the API server and its clients."""
        return self.directory / "kubernetes.crt"

    @property
    def etcd_ca(self) -> Path:
        """Authority of etcd and its only client."""
        return self.directory / "etcd.crt"

    @property
    def server(self) -> Pair:
        """What the API server and the controller manager serve with."""
        return self._pair("server")

    @property
    def admin(self) -> Pair:
        """Client of group system:masters."""
        return self._pair("admin")

    @property
    def etcd(self) -> Pair:
        """What etcd serves with, and what the API server shows to it."""
        return self._pair("database")

    @property
    def tokens(self) -> Pair:
        """Key pair of ServiceAccount tokens; the public half is a bare key."""
        return Pair(self.directory / "tokens.pub", self.directory / "tokens.key")

    @property
    def controller_manager(self) -> Path:
        """Kubeconfig of the controller manager."""
        return self.directory / "controller-manager.kubeconfig"

    def create(self, server: str, kubeconfig: Path, now: dt.datetime) -> None:
        """Make all files, and the administrator's kubeconfig for the API server at URL `server`.

        The kubeconfig is written last; where it exists nothing is done.
        """
        if kubeconfig.is_file():
            return
        self.directory.mkdir(exist_ok=True, mode=0o700)
        for left_over in self.directory.iterdir():
            left_over.unlink()
        authority = Authority("kubernetes", self.directory, now)
        authority.issue("kube-apiserver", hosts=_HOSTS, file="server")
        admin = authority.issue("farshore-dev-admin", groups=("system:masters",), file="admin")
        manager = authority.issue("system:kube-controller-manager", file="controller-manager")
        Authority("etcd", self.directory, now).issue("etcd", hosts=("127.0.0.1",), file="database")
        signing_key(self.directory, "tokens")
        _write_kubeconfig(self.controller_manager, server, self.ca, manager, "controller-manager")
        _write_kubeconfig(kubeconfig, server, self.ca, admin, "admin")

    def answers(self, port: int, path: str, *, ca: Path, client: Pair) -> bool:
        """Tell whether `https://127.0.0.1:port/path` answers 200 within 2 seconds."""
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(client.cert, client.key)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _pair(self, stem: str) -> Pair:
        return Pair(self.directory / f"{stem}.crt", self.directory / f"{stem}.key")


def _write_kubeconfig(path: Path, server: str, ca: Path, client: Pair, user: str) -> None:
    """Write a kubeconfig that carries its certificates, complete or not at all. JSON is YAML."""
    cluster = {"server": server, "certificate-authority-data": _base64(ca)}
    credentials = {"client-certificate-data": _base64(client.cert), "client-key-data": _base64(client.key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "farshore-dev", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "farshore-dev", "context": {"cluster": "farshore-dev", "user": user}}],
        "current-context": "farshore-dev",
    }
    scratch = path.with_suffix(".new")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(config, file, indent=2)
    scratch.replace(path)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
