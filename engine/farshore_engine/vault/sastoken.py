"""What a shared access signature says of itself, without its signature: rights, end, protocol.

Source: "Create a service SAS" and "Create an account SAS" (fields sp, se, st, sr, srt, ss, spr, si).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from farshore_engine.contract.faults import StopFault, WaitFault

NEEDED = {"r": "read", "c": "create", "w": "write", "d": "delete", "l": "list"}
LOCK = {"i": "set immutability policies"}
SOON = timedelta(days=14)


def check_token(token: str, *, locks: bool, now: datetime) -> str:
    """Say what a token allows, and until when.

    Args:
        locks: whether it must also set immutability policies.

    Raises:
        StopFault: it is no token, has ended, or allows too little.
        WaitFault: it ends soon.
    """
    fields = {name: values[0] for name, values in parse_qs(token.strip().lstrip("?")).items()}
    if "sig" not in fields:
        raise StopFault("the SAS token has no signature", "Copy it again, whole", reason="BadCredential")
    if fields.get("sr", "c") != "c" or "c" not in fields.get("srt", "co") or "o" not in fields.get("srt", "co"):
        raise StopFault("the SAS token is not for a container and what is in it", _make(locks), reason="BadCredential")
    if "si" in fields and "sp" not in fields:
        return f"the SAS token goes by the container's access policy {fields['si']}; its end is not to be told"
    wanted = {**NEEDED, **(LOCK if locks else {})}
    missing = [word for letter, word in wanted.items() if letter not in fields.get("sp", "")]
    if missing:
        raise StopFault(f"the SAS token does not allow to {', '.join(missing)}", _make(locks), reason="BadCredential")
    ends = _time(fields.get("se", ""))
    if ends is None:
        return "the SAS token allows what is needed; its end is not to be told"
    if ends <= now:
        raise StopFault(f"the SAS token ended at {ends:%Y-%m-%dT%H:%M:%SZ}", _make(locks), reason="CredentialExpired")
    text = f"the SAS token allows what is needed until {ends:%Y-%m-%dT%H:%M:%SZ}"
    if ends - now < SOON:
        raise WaitFault(text, f"Replace it in the Secret before that. {_make(locks)}", reason="CredentialExpires")
    return text


def _make(locks: bool) -> str:
    more = " and the right to set immutability policies" if locks else ""
    return f"Make a token of the container with read, add, create, write, delete and list{more}, good for a year"


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
