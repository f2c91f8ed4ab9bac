"""Prints a report: as text for a terminal, as Markdown for a pull request, as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from farshore_cli.planning.preview import Preview
from farshore_cli.planning.report import Report
from farshore_cli.planning.runpreview import RunPreview, span

WORDS = {"create": "would be created", "change": "would change", "none": "unchanged"}


def as_json(report: Report) -> str:
    """Return the report for programs."""
    body = {"verdict": report.verdict.name.lower(), "exitCode": int(report.verdict), "headline": report.headline}
    return json.dumps({**body, "objects": [_plain(one) for one in report.previews], "notes": report.notes}, indent=2)


def as_text(report: Report) -> str:
    """Return the report for a terminal."""
    lines = [report.headline, ""]
    for one in report.previews:
        lines.append(f"{one.kind} {one.namespace}/{one.name}: {WORDS[one.change]} ({one.file}; {one.checked})")
        lines += [f"    {line}" for line in _object(one)]
    return "\n".join([*lines, *(f"Note: {note}" for note in report.notes)]).rstrip()


def as_markdown(report: Report) -> str:
    """Return the report for a comment on a pull request."""
    lines = ["## What Farshore would do", "", f"**{_safe(report.headline)}**", ""]
    for one in report.previews:
        if one.change == "none" and not one.runs and not one.blockers:
            continue
        lines += [f"### {one.kind} `{one.namespace}/{one.name}`: {WORDS[one.change]}", ""]
        lines += [f"{_safe(one.file)}, checked by {_safe(one.checked)}", ""]
        if one.fields:
            lines += ["| field | now | then |", "| --- | --- | --- |"]
            lines += [f"| `{_safe(path)}` | {_safe(old)} | {_safe(new)} |" for path, old, new in one.fields]
            lines.append("")
        lines += [f"- {_safe(line)}" for line in _standing(one)]
        for run in one.runs:
            lines += ["", f"**{run.kind} `{run.name}`**: {_safe(_about(run))}", ""]
            lines += [f"{number}. {_safe(line)}" for number, line in enumerate(_order(run), 1)]
            lines += [f"- {_safe(line)}" for line in _machines(run)]
        lines.append("")
    quiet = sum(one.change == "none" and not one.runs and not one.blockers for one in report.previews)
    lines += [f"Unchanged objects: {quiet}.", ""] if quiet else []
    return "\n".join([*lines, *(f"> {_safe(note)}" for note in report.notes)]).rstrip()


def _object(one: Preview) -> Iterator[str]:
    yield from (f"{path}: {old or '(absent)'} -> {new or '(absent)'}" for path, old, new in one.fields)
    yield from _standing(one)
    for run in one.runs:
        yield f"{run.kind} {run.name} would start: {_about(run)}"
        yield from (f"  {number}. {line}" for number, line in enumerate(_order(run), 1))
        yield from (f"  {line}" for line in _machines(run))


def _standing(one: Preview) -> Iterator[str]:
    if one.health and one.health != "Refused":
        yield f"then {one.health}: {one.message}"
    yield from (f"BLOCKED: {blocker}" for blocker in one.blockers)
    yield from (f"warning: {warning}" for run in one.runs for warning in run.warnings)
    if one.next_step and not one.blockers:
        yield f"next step: {one.next_step}"
    yield from (f"a revert {revert.when}: {revert.outcome}" for revert in one.reverts)


def _about(run: RunPreview) -> str:
    asked = ", ".join(f"{key} {value}" for key, value in run.requested_by.items())
    return f"{run.mode}, {run.point}; work at risk now {span(run.rpo_seconds)}" + (
        f"; asked by {asked}" if asked else ""
    )


def _order(run: RunPreview) -> Iterator[str]:
    for stage in run.stages:
        names = ", ".join(machine.name for machine in stage.machines)
        yield f"{stage.title}{': ' + names if names else ''}"


def _machines(run: RunPreview) -> Iterator[str]:
    for stage in run.stages:
        for machine in stage.machines:
            yield f"{machine.name}: {', then '.join(machine.steps)}"
            if machine.point:
                yield f"{machine.name}: point {machine.point}; work at risk now {span(machine.rpo_seconds)}"
            yield from (f"{machine.name}: makes {made}" for made in machine.makes)


def _plain(one: Preview) -> dict[str, object]:
    return {
        **asdict(one),
        "fields": [{"path": path, "before": old, "after": new} for path, old, new in one.fields],
        "runs": [{**asdict(run), "moves": run.moves, "rpo_seconds": run.rpo_seconds} for run in one.runs],
    }


def _safe(text: str) -> str:
    """Return text that breaks no table and starts no markup of its own."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
