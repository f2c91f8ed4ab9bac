"""`farshore vault report` as a process, with nothing but the storage credential and the key."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.contract.vault_cli import Terminal
from tests.unit.vault.rig import KEK, Rig

from farshore_engine.vault.directory_store import DirectoryStore


def test_a_report_is_read_verified_and_taken_out_without_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    (tmp_path / "key").write_text(base64.b64encode(KEK).decode())
    where = {"FARSHORE_VAULT_DIRECTORY": str(tmp_path / "vault"), "FARSHORE_VAULT_KEY_FILE": str(tmp_path / "key")}
    terminal = Terminal(tmp_path / "home", where)
    rig = Rig(DirectoryStore(tmp_path / "vault"))
    rig.vault.reports.write("drill-1", json.dumps({"result": "Succeeded", "notes": ""}), "<p>the page</p>")
    rig.vault.reports.write("drill-1", json.dumps({"result": "Succeeded", "notes": "all well"}), "<p>noted</p>")

    assert terminal.ok("report", "db").splitlines() == ["drill-1 0 Succeeded", "drill-1 1 Succeeded"]
    assert terminal.ok("report", "db", "drill-1", "--number", "0", "--html", "-") == "<p>the page</p>"

    page, signed = tmp_path / "page.html", tmp_path / "report.json"
    done = terminal.run("report", "db", "drill-1", "--html", str(page), "--signed", str(signed))
    assert "report drill-1/000001 of team-a.db: the signature verifies" in done.stderr
    assert page.read_text() == "<p>noted</p>"
    assert json.loads(terminal.ok("report", "db", "--verify", str(signed)))["notes"] == "all well"

    signed.write_text(signed.read_text().replace("all well", "not well"))
    failed = terminal.run("report", "db", "--verify", str(signed))
    assert failed.returncode == 1
    assert "does not verify" in failed.stderr
    missing = terminal.run("report", "db", "drill-2")
    assert missing.returncode == 1
    assert "has no report of run drill-2" in missing.stderr
    assert "drill-1" in missing.stderr
