"""Every planned fault at every call in the tutorial: of Resource Manager, of the token service, of disks' data.

It ends right, or stops with a reason on which a person can act, and then what that person does ends right. Never is
there a second machine, a disk of nobody, or a machine lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from tests.azure.story.acts import ACTS, Act, Memory, between, check_nothing_is_wrong, check_place
from tests.azure.story.bookmarks import Bookmark
from tests.azure.story.conftest import Perform, secrets_of
from tests.azure.story.faults import Case, cases, sample, shuffled, wrong
from tests.azure.story.machines import Content
from tests.azure.story.runs import Failed
from tests.azure.story.tutorial import Story

IN_SUITE = 12
"""Cases of the deterministic sample; the soak plays all of them."""
OF_DATA = 3
"""How many of these are of the data of disks."""


@dataclass(repr=False)
class Rehearsal:
    """One good run, with a bookmark before each act and the calls that each made."""

    story: Story
    bookmarks: dict[str, Bookmark] = field(default_factory=dict)
    should: dict[str, dict[str, Content]] = field(default_factory=dict)
    every: list[Case] = field(default_factory=list)

    @classmethod
    def of(cls, story: Story) -> Rehearsal:
        clouds = story.clouds
        memory: Memory = {}
        made = cls(story)
        clouds.azure.pace.polls = clouds.hub.pace.polls = 1
        story.replicate()
        for act in ACTS:
            made._act(act, memory)
            between(story, act, memory)
        return made

    def _act(self, act: Act, memory: Memory) -> None:
        clouds = self.story.clouds
        where = self.story.directory.parent / "bookmarks" / act.name
        self.bookmarks[act.name] = Bookmark(
            self.story, where, (self.story.directory, self.story.stage.vault.storage.path), dict(memory)
        )
        memory.update(self.bookmarks[act.name].go_back())
        act.play(self.story, memory)
        check_nothing_is_wrong(self.story)
        self.should[act.name] = _contents(self.story, away=act.away)
        for hub, sim in ((False, clouds.azure), (True, clouds.hub)):
            self.every += cases(act.name, sim.calls, hub=hub)

    def play(self, case: Case) -> str:
        """Play the act of a case with its fault, mend what is to be mended; returns how it went."""
        act = next(one for one in ACTS if one.name == case.act)
        story, clouds = self.story, self.story.clouds
        memory = self.bookmarks[act.name].go_back()
        own = _contents(story, away=False)
        story.said.lines.clear()
        case.trouble.plan(clouds.hub if case.hub else clouds.azure, case.number)
        failed = None
        with story.said.listening():
            try:
                act.play(story, memory)
            except Failed as stopped:
                failed = stopped
            clouds.azure.faults.clear()
            clouds.hub.faults.clear()
            check_nothing_is_wrong(story)
            if failed is not None:
                assert failed.report.remedy, f"no remedy: {failed}"
                assert "internal error" not in failed.report.message, failed
                act.mend(story, memory, failed)
                check_nothing_is_wrong(story)
        undone = failed is not None and act.name in ("drill", "failover", "change of point")
        check_place(story, away=act.away and not undone, content=own if undone else self.should[act.name])
        if undone or act.name in ("drill", "farewell"):
            assert clouds.resources() == story.before, "something of ours is left in Azure"
        assert not story.said.leaks(secrets_of(story))
        return f"stopped, and was mended: {failed}" if failed is not None else "ended right"


def _contents(story: Story, *, away: bool) -> dict[str, Content]:
    clouds = story.clouds
    return {one.name: clouds.azure_content(one) if away else clouds.home_content(one) for one in clouds.actors}


@pytest.fixture(scope="module")
def rehearsal(perform: Perform) -> Rehearsal:
    return Rehearsal.of(perform(actors=1))


def test_a_sample_of_all_faults_at_all_calls_ends_right_or_can_be_mended(rehearsal: Rehearsal) -> None:
    resources = [one for one in rehearsal.every if one.trouble.plane == "arm"]
    data = [one for one in rehearsal.every if one.trouble.plane == "data"]
    assert wrong(rehearsal.play, Failed, [*sample(resources, IN_SUITE - OF_DATA), *sample(data, OF_DATA)]) == []


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_every_fault_at_every_call_ends_right_or_can_be_mended(rehearsal: Rehearsal) -> None:
    assert len(rehearsal.every) > 1000
    assert wrong(rehearsal.play, Failed, shuffled(rehearsal.every)) == []
