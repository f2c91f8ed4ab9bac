"""A vault whose storage is reached with a token: on an Azurite with TLS, which looks at audience, issuer and time."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from azure.storage.blob import BlobServiceClient
from pydantic import SecretStr

from farshore_cli.dev import tools
from farshore_cli.dev.processes import free_ports
from farshore_engine.contract.assignment import AzureBlobAccess
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.site import CloudCredential
from farshore_engine.vault import stores
from farshore_engine.vault.stores import open_store

PRINCIPAL = CloudCredential(tenant_id="t", client_id="c", client_secret=SecretStr("s"))


class Tokens:
    """A token service that gives what Entra ID would give for storage, or fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.scopes: set[str] = set()
        self.fails: Exception | None = None

    def login(self, principal: CloudCredential | None, authority: str, *_: Any) -> Tokens:
        self.asked.append((principal, authority))
        return self

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        if self.fails is not None:
            raise self.fails
        self.scopes.update(scopes)
        now = int(time.time())
        claims = {
            "aud": "https://storage.azure.com", "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
            "nbf": now - 60, "iat": now - 60, "exp": now + 3600,
        }  # fmt: skip
        parts = [json.dumps(one).encode() for one in ({"alg": "none", "typ": "JWT"}, claims)]
        text = ".".join(base64.urlsafe_b64encode(one).decode().rstrip("=") for one in (*parts, b"signature"))
        return AccessToken(text, now + 3600)


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tokens]:
    made = Tokens()
    monkeypatch.setattr(stores, "token_login", made.login)
    stores._login.cache_clear()
    yield made
    stores._login.cache_clear()


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an account with TLS."""
    key, certificate, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_ports(1)[0]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    program = tools.azurite()
    running = subprocess.Popen(
        [str(program.node), str(program.script), "--blobHost=127.0.0.1", f"--blobPort={port}", "--silent",
         f"--location={tmp_path / 'blobs'}", "--disableTelemetry", "--skipApiVersionCheck", "--oauth", "basic",
         "--cert", str(certificate), "--key", str(key)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"https://127.0.0.1:{port}/devstoreaccount1"
        _until_it_answers(url, certificate)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        yield url
    finally:
        running.terminate()
        running.wait()


def _until_it_answers(url: str, certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    for _ in range(1200):
        try:
            urllib.request.urlopen(url, context=trusting, timeout=10)
        except urllib.error.HTTPError:  # it refuses, so it is there
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("Azurite does not answer")


@pytest.mark.parametrize(
    ("principal", "authority"),
    [
        pytest.param(PRINCIPAL, "login.example", id="as a service principal"),
        pytest.param(None, "", id="as what the host is"),
    ],
)
def test_a_container_is_read_and_written_with_a_token(
    principal: CloudCredential | None, authority: str, tokens: Tokens, account: str
) -> None:
    with BlobServiceClient(account, credential=tokens) as service:  # type: ignore[arg-type]
        service.create_container("vault")
    access = AzureBlobAccess(account_url=account, container="vault", principal=principal, authority=authority)
    store, again = open_store(access), open_store(access)
    store.put("one/object", b"content", create_only=True)
    assert again.get("one/object")[0] == b"content" and list(again.list("")) == ["one/object"]
    assert tokens.asked == [(principal, authority)], "the login is kept, and with it its tokens"
    assert tokens.scopes == {"https://storage.azure.com/.default"}


class Answer:
    """What of a token service's answer the SDK's error keeps."""

    status_code, reason, content_type = 401, "Unauthorized", "application/json"
    headers: ClassVar[dict[str, str]] = {"Content-Type": "application/json"}

    def text(self, *_: Any) -> str:
        return '{"error": "invalid_client"}'


@pytest.mark.parametrize(
    ("error", "fault", "reason", "word"),
    [
        pytest.param(
            CredentialUnavailableError("no identity"), WaitFault, "NoToken", "managed identity", id="no identity here"
        ),
        pytest.param(
            ClientAuthenticationError("AADSTS7000215: bad s3cret", response=Answer()),
            StopFault, "LoginRefused", "clientSecret", id="a wrong secret",
        ),
    ],
)  # fmt: skip
def test_who_gets_no_token_is_told_why(
    error: Exception, fault: type[Fault], reason: str, word: str, tokens: Tokens
) -> None:
    tokens.fails = error
    access = AzureBlobAccess(account_url="https://127.0.0.1:9/account", container="vault")
    with pytest.raises(fault) as told:
        open_store(access).get("one/object")
    assert told.value.reason == reason and word in told.value.remedy
    assert "s3cret" not in str(told.value)
    assert reason == "NoToken" or "AADSTS7000215" in told.value.message


@pytest.mark.parametrize(
    "principal", [pytest.param(PRINCIPAL, id="a principal's"), pytest.param(None, id="the host's")]
)
def test_no_token_goes_over_the_network_in_the_clear(principal: CloudCredential | None) -> None:
    with pytest.raises(StopFault, match="without TLS") as told:
        open_store(AzureBlobAccess(account_url="http://10.0.0.4/account", container="vault", principal=principal))
    assert told.value.reason == "BadCredential"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"account_key": SecretStr("a"), "sas_token": SecretStr("b")}, id="key and SAS token"),
        pytest.param({"account_key": SecretStr("a"), "principal": PRINCIPAL}, id="key and principal"),
    ],
)
def test_two_credentials_are_one_too_many(given: dict[str, Any]) -> None:
    with pytest.raises(StopFault, match="several credentials"):
        open_store(AzureBlobAccess(account_url="https://a.example", container="vault", **given))
