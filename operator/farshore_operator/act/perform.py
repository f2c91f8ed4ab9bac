"""Finds the effect that carries out an action."""

from __future__ import annotations

from farshore_operator.act import (
    access,
    authority,
    certificates,
    finalizers,
    jobs,
    leases,
    objects,
    tokens,
    webhooks,
)
from farshore_operator.act.effects import Effects
from farshore_operator.decide import actions as a
from farshore_operator.decide.decision import Action, Outcome


class Performer:
    """Carries out actions, one after the other."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects
        self.granted = access.Granted()

    def perform(self, action: Action) -> tuple[Outcome, ...]:
        """Carry out one action; return what it brought.

        Raises:
            Fault: it could not be done (now).
        """
        match action:
            case a.GrantAccount():
                return self.granted.perform(self._effects, action)
            case a.EnsureAuthority():
                return authority.perform(self._effects, action)
            case a.EnsureLease():
                return leases.perform(self._effects, action)
            case a.SignProcessServer():
                return certificates.perform_process_server(self._effects, action)
            case a.SignMachine():
                return certificates.perform_machine(self._effects, action)
            case a.SealToken():
                return tokens.perform(self._effects, action)
            case a.SetFinalizer():
                return finalizers.perform(self._effects, action)
            case a.CreateOwned():
                return objects.perform(self._effects, action)
            case a.RunJob():
                return jobs.perform(self._effects, action)
            case a.CallService():
                return webhooks.perform(self._effects, action)
            case a.DeleteOwned():
                return objects.perform_delete(self._effects, action)
            case _:
                raise TypeError(f"no effect carries out {type(action).__name__}")
