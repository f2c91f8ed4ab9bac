"""Issues a process server's first token, sealed so that only it can read it. A repetition issues another one."""

from __future__ import annotations

from farshore_operator.act.effects import Effects
from farshore_operator.crypto.sealing import seal
from farshore_operator.decide.actions import SealToken, TokenSealed
from farshore_operator.decide.decision import Outcome


def perform(effects: Effects, action: SealToken) -> tuple[Outcome, ...]:
    """Ask for a token and seal it."""
    seconds = int(effects.timing.token_life.total_seconds())
    token = effects.client.request_token(action.namespace, action.account, seconds)
    sealed = seal(token.value, action.public_key, f"{action.namespace}/{action.process_server}")
    return (TokenSealed(sealed, action.public_key, token.expires),)
