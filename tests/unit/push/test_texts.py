"""What is printed and installed as text: the prepare scripts, the checklist's page, the service of the agent."""

from __future__ import annotations

import base64
import io
import subprocess
import time

import pytest
from rich.console import Console

from farshore_cli.commands.agent import expired_keys
from farshore_cli.commands.prepare import linux_script
from farshore_cli.doctoring.page import page
from farshore_cli.main import build
from farshore_engine.agent.enrol import Token, parse_server
from farshore_engine.bundle.service import init_script, manual_install, systemd_unit
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.replication import Check, CheckResult

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEl2sKcxNkOVoVSoWrOJPsAKr2v/JtVfUMmKmTrLOMqd ps"
CA = "-----BEGIN CERTIFICATE-----\nMTIz\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("account", "key"),
    [
        pytest.param("root; reboot", KEY, id="a name that is a command"),
        pytest.param("root", "-----BEGIN OPENSSH PRIVATE KEY-----", id="a private key"),
        pytest.param("root", "not a key", id="no key"),
    ],
)
def test_prepare_refuses_what_cannot_be(account: str, key: str) -> None:
    with pytest.raises(StopFault):
        linux_script(account, key)


def test_a_comment_of_a_key_cannot_leave_its_quotes() -> None:
    script = linux_script("root", KEY + " '; touch /tmp/owned; '")
    line = next(line for line in script.splitlines() if line.startswith("PUBLIC_KEY="))
    done = subprocess.run(["sh", "-c", f'{line}\nprintf %s "$PUBLIC_KEY"'], capture_output=True, text=True, check=True)
    assert done.stdout == f"{KEY} '; touch /tmp/owned; '"


def test_prepare_windows_sets_what_the_tutorial_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build()(["prepare", "windows"])
    text = capsys.readouterr().out
    for word in ("LocalAccountTokenFilterPolicy", "FirewallAPI.dll,-28502", "FirewallAPI.dll,-34251", "WMI"):
        assert word in text
    assert text.count("{") == text.count("}")
    assert text.count("(") == text.count(")")


@pytest.mark.parametrize("text", [init_script("/opt/farshore/x"), manual_install("0.1.0-x")], ids=["init", "install"])
def test_shell_texts_are_complete(text: str) -> None:
    assert "@" not in text.replace('"$@"', "")
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0


def test_unit_needs_no_shell_and_thaws_at_the_end() -> None:
    lines = systemd_unit("/opt/farshore/0.1.0-x").splitlines()
    start = next(line for line in lines if line.startswith("ExecStart="))
    assert start.startswith("ExecStart=/opt/farshore/0.1.0-x/lib/ld-linux-x86-64.so.2 --library-path ")
    assert start.endswith("run --config /etc/farshore/agent/config.json")
    assert any(line.startswith("ExecStopPost=-") and " thaw " in line for line in lines)
    assert {"OOMScoreAdjust=-1000", "KillMode=mixed", "Restart=always"} <= set(lines)


def test_page_shows_remedies_where_they_are_needed_and_a_verdict() -> None:
    checks = [
        Check(name="SSHLogin", result=CheckResult.PASSED, message="root logs in", remedy="not shown"),
        Check(name="Clock", result=CheckResult.WARNING, message="90 s behind", remedy="Use a time server"),
        Check(name="Tools", result=CheckResult.ERROR, message="no tar", remedy="Install tar"),
        Check(name="FreeSpace", result=CheckResult.SKIPPED, message="not checked: no tar"),
    ]
    out = io.StringIO()
    Console(file=out, width=120, highlight=False).print(page("db1", checks))
    text = out.getvalue()
    assert "→ Install tar" in text
    assert "→ Use a time server" in text
    assert "not shown" not in text
    assert "db1 cannot be protected yet: 1 error, 1 warning" in text


def test_expired_tokens_leave_the_secret() -> None:
    now = time.time()
    texts = {"old": Token.issue("a.b", CA, int(now - 1)), "new": Token.issue("a.b", CA, int(now + 60))}
    data = {name: base64.b64encode(token.text().encode()).decode() for name, token in texts.items()}
    assert expired_keys(data, now) == ["old"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        pytest.param("10.0.0.5", "10.0.0.5", 9443, id="default port"),
        pytest.param("ps-1:443", "ps-1", 443, id="name and port"),
        pytest.param("[fd00::1]:9000", "fd00::1", 9000, id="IPv6 and port"),
        pytest.param("fd00::1", "fd00::1", 9443, id="bare IPv6"),
    ],
)
def test_server_names(text: str, host: str, port: int) -> None:
    assert (parse_server(text).host, parse_server(text).port) == (host, port)


@pytest.mark.parametrize("text", ["", ":9443", "host:", "host:0", "host:x", "host:70000"])
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(StopFault):
        parse_server(text)
