"""Shows a run's report as one page of HTML that needs nothing else: no script, no style sheet, no picture, no network.

Everything in the report is text to this page, whatever it contains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #d8dee4}
td,th{vertical-align:top}
th{font-weight:600;white-space:nowrap}.good{color:#116329}.bad{color:#a40e26}pre{white-space:pre-wrap;font:inherit;margin:0}
footer{margin-top:2rem;color:#57606a;font-size:.85rem}@media print{body{margin:0}}
"""
GOOD = ("Succeeded", "Passed", "passed")
BAD = ("Failed", "Error", "failed")

FACTS = (
    ("kind", "Kind"), ("owner", "Asked for by"), ("requestedBy", "Requested by"), ("machine", "Machine"),
    ("sourceSite", "From site"), ("targetSite", "To site"), ("recoveredAs", "Recovered as"), ("network", "Network"),
    ("recoveryPoint", "Recovery point"), ("pointTime", "Time of the point"), ("consistency", "Consistency"),
    ("startedAt", "Started"), ("finishedAt", "Ended"), ("cleanedUpAt", "Cleaned up"),
    ("rpoSeconds", "RPO, seconds"), ("rtoSeconds", "RTO, seconds"), ("diskBytes", "Bytes of its disks"),
    ("bytesMoved", "Bytes read from the vault"), ("disksVerified", "Disks equal the point"),
)  # fmt: skip


def page_of(report: Mapping[str, Any]) -> str:
    """Return the page; fields that it does not know are left out."""
    run, machine, result = (_text(report.get(name)) for name in ("run", "machine", "result"))
    parts = [
        f"<h1>{escape(run)}</h1><p>{escape(machine)}: {_word(result)}</p>",
        _facts(report),
        _table(report, "probes", "What it was asked", (("name", "Probe"), ("result", "Result"), ("answer", "Answer"),
                                                       ("seconds", "Seconds after its start"))),
        _table(report, "steps", "Steps", (("name", "Step"), ("phase", "Result"), ("startedAt", "Began"),
                                          ("finishedAt", "Ended"), ("message", "Message"))),
        _table(report, "checks", "Prerequisites", (("name", "Check"), ("result", "Result"), ("message", "Message"))),
        _list(report, "changes", "Changed on its disks before it started"),
        _list(report, "removed", "Removed in the clean-up; looked for afterwards and not found"),
    ]  # fmt: skip
    notes = _text(report.get("notes"))
    if notes:
        parts.append(f"<h2>Notes</h2><pre>{escape(notes)}</pre>")
    parts.append(
        "<footer>A signed copy of this page is in the vault: "
        f"<code>farshore vault report {escape(machine)} {escape(run)}</code> verifies and prints it. "
        "All times are UTC.</footer>"
    )
    head = f'<meta charset="utf-8"><title>{escape(run)}: {escape(machine)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _facts(report: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><th>{escape(label)}</th><td>{_word(_text(report[name]))}</td></tr>"
        for name, label in FACTS
        if report.get(name) not in (None, "")
    ]
    return f"<table>{''.join(rows)}</table>"


def _table(report: Mapping[str, Any], field: str, title: str, columns: Sequence[tuple[str, str]]) -> str:
    entries = [entry for entry in report.get(field) or () if isinstance(entry, Mapping)]
    if not entries:
        return ""
    head = "".join(f"<th>{escape(label)}</th>" for _, label in columns)
    rows = ["".join(f"<td>{_word(_text(entry.get(name)))}</td>" for name, _ in columns) for entry in entries]
    return f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _list(report: Mapping[str, Any], field: str, title: str) -> str:
    entries = report.get(field) or ()
    items = "".join(f"<li>{escape(_text(entry))}</li>" for entry in entries)
    return f"<h2>{escape(title)}</h2><ul>{items}</ul>" if items else ""


def _word(text: str) -> str:
    kind = "good" if text in GOOD else "bad" if text in BAD else ""
    return f'<b class="{kind}">{escape(text)}</b>' if kind else escape(text)


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
