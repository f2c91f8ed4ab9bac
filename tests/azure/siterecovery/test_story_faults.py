"""Every planned fault at every call, reads and logins included, of the tutorial at Site Recovery.

It ends right, or stops with a reason on which a person can act, and then what that person does ends right. Never is
there a second machine, a disk of nobody, or a machine lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.azure.conformance.service import Service
from tests.azure.siterecovery.acts import ACTS, NAME, Act, Failed
from tests.azure.siterecovery.bookmarks import Bookmark
from tests.azure.siterecovery.test_story import register, secrets_of
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud
from tests.azure.story.faults import Case, cases, sample, shuffled, wrong
from tests.azure.story.servers import Said

IN_SUITE = 10
"""Cases of the deterministic sample; the soak plays all of them."""
TEXTS = {"failover": "new", "change of point": "old", "commit": "old", "disable": "old"}
"""What the machine holds after an act; before, what it holds at home is its own affair."""


@dataclass(repr=False)
class Rehearsal:
    """One good life, with a bookmark before each act and the calls that each made."""

    life: Service
    directory: Path
    experience: str
    bookmarks: dict[str, Bookmark] = field(default_factory=dict)
    every: list[Case] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)
    """What there is in Azure after each act."""

    def rehearse(self) -> Rehearsal:
        for act in ACTS:
            self.bookmarks[act.name] = Bookmark(self.life, self.directory / act.name)
            self.bookmarks[act.name].go_back()
            act.play(self.life)
            self.left[act.name] = self.life.resources()
            self.check(act)
            self.every += cases(act.name, self.life.cloud.sim.calls, hub=False)
            if act.name == "vault":
                register(self.life, self.experience)
        return self

    def play(self, case: Case) -> str:
        """Play the act of a case with its fault, mend what is to be mended; returns how it went."""
        life, act = self.life, next(one for one in ACTS if one.name == case.act)
        self.bookmarks[act.name].go_back()
        said, failed = Said(), None
        case.trouble.plan(life.cloud.sim, case.number)
        with said.listening():
            try:
                act.play(life)
            except Failed as stopped:
                failed = stopped
            life.cloud.sim.faults.clear()
            self.never(failed)
            if failed is not None:
                assert "next: None" not in str(failed) and "internal error" not in str(failed), failed
                act.mend(life)
        self.check(act)
        everything = "\n".join((*said.lines, *life.told))
        assert not [one[:4] for one in secrets_of(life) if one and one in everything]
        return f"stopped, and was mended: {failed}" if failed is not None else "ended right"

    def never(self, failed: Failed | None = None) -> None:
        """What holds at every moment: no second machine, nothing in Azure that is nobody's, no lost machine.

        A failover that fails in the middle leaves the machine off at its site, a change of point may take it away for
        a while; both say so.
        """
        life = self.life
        assert not life.cloud.sim.bugs and not life.violations, (life.cloud.sim.bugs, life.violations)
        words = ("may be switched off at its site", "may not run")
        off = life.running() == {NAME: []} and any(one in str(failed) for one in words)
        assert off or not life.wrong(), f"{life.wrong()}: {failed}"
        known = (f" {NAME}-dr", f" {VAULT}")
        before = self.left.get("vault", life.resources())
        stray = [one for one in life.resources() if one not in before and not any(word in one for word in known)]
        assert not stray, stray

    def check(self, act: Act) -> None:
        """The act has happened, once."""
        self.never()
        life = self.life
        if act.name not in ("vault", "protect"):
            assert life.running() == {NAME: [act.ends]}, life.running()
            assert _kinds(life.resources()) == _kinds(self.left[act.name]), "something is left, or missing"
        if act.name in TEXTS:
            assert life.read(NAME) == TEXTS[act.name]
        if act.name == "drill":
            assert life.resources() == self.left["protect"], "something of the drill is left"
        if act.name == "disable":
            assert not [item for vault in life.cloud.sr.vaults.values() for item in vault.items()]


def _kinds(resources: list[str]) -> list[str]:
    """Machines and disks by name: Site Recovery numbers the rest anew."""
    return sorted(one.partition(" ")[0] for one in resources)


@pytest.fixture
def rehearsal(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Rehearsal:
    experience = getattr(request, "param", "modernized")
    if experience == "classic":
        cloud.sr.vault(GROUP, VAULT, classic=True)
    life = Service(cloud, NAME, bare=True, region="westeurope")
    return Rehearsal(life, tmp_path_factory.mktemp("bookmarks"), experience).rehearse()


def test_a_sample_of_all_faults_at_all_calls_ends_right_or_can_be_mended(rehearsal: Rehearsal) -> None:
    assert wrong(rehearsal.play, Failed, sample(rehearsal.every, IN_SUITE)) == []


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("rehearsal", ["classic", "modernized"], indirect=True)
def test_every_fault_at_every_call_ends_right_or_can_be_mended(rehearsal: Rehearsal) -> None:
    assert len(rehearsal.every) > 1000
    assert wrong(rehearsal.play, Failed, shuffled(rehearsal.every)) == []
