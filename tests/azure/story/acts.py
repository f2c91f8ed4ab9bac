"""The acts in which Resource Manager is called, and how each is ended when it fails: as a person would end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.azure.story.clouds import disks_of
from tests.azure.story.machines import Content
from tests.azure.story.runs import Failed, Run
from tests.azure.story.tutorial import Story

from farshore_engine.azure.place import OWNER, RUN, US

Memory = dict[str, Run]
"""The run that moved the machines (`moved`) and the one that brought them home (`home`)."""


@dataclass(frozen=True)
class Act:
    """`play` is what is to happen, `mend` what a person does when it has failed. Both raise Failed."""

    name: str
    play: Callable[[Story, Memory], None]
    mend: Callable[[Story, Memory, Failed], None]
    away: bool
    """Whether the machines run in Azure when it has been played. Who mends it brings them where they were before, but
    from a failback, which then is repeated."""


def same(found: Content, wanted: Content) -> bool:
    """Compare bytes so that a test that fails does not print them."""
    return found == wanted


def _drill(story: Story, memory: Memory) -> None:
    story.stage.clean_up(story.drill())


def _clean_up(story: Story, memory: Memory, failed: Failed) -> None:
    story.stage.clean_up(story.stage.runs[-1])


def _fail_over(story: Story, memory: Memory) -> None:
    memory["moved"] = story.fail_over()


def _change(story: Story, memory: Memory) -> None:
    memory["moved"] = story.change_point(memory["moved"])


def _undo(story: Story, memory: Memory, failed: Failed) -> None:
    story.abort(story.stage.runs[-1], "abort-1")


def _fail_back(story: Story, memory: Memory) -> None:
    memory["home"] = story.fail_back(memory["moved"])


def _stay_then_go(story: Story, memory: Memory, failed: Failed) -> None:
    """Undo the failback: the machine goes on in Azure with what it had; then fail back anew."""
    story.abort(story.stage.runs[-1], "abort-2")
    for actor in story.clouds.actors:
        assert story.clouds.at_azure(actor) == "running"
        assert same(story.clouds.azure_content(actor), actor.content[actor.points[-1].name])
        actor.epoch += 1
        actor.base = ""
    memory["home"] = story.fail_back(memory["moved"], "failback-2")


def _farewell(story: Story, memory: Memory) -> None:
    story.commit(memory["home"], "commit-2")


def _farewell_again(story: Story, memory: Memory, failed: Failed) -> None:
    story.commit(memory["home"], "commit-3")


ACTS = (
    Act("drill", _drill, _clean_up, away=False),
    Act("failover", _fail_over, _undo, away=True),
    Act("change of point", _change, _undo, away=True),
    Act("failback", _fail_back, _stay_then_go, away=False),
    Act("farewell", _farewell, _farewell_again, away=False),
)


def between(story: Story, act: Act, memory: Memory) -> None:
    """What happens between the acts: commit, reprotect, and what the machines write meanwhile."""
    if act.name == "change of point":
        story.commit(memory["moved"])
        story.write_in_azure(0)
        story.reprotect(memory["moved"])
        story.write_in_azure(1)


def check_nothing_is_wrong(story: Story) -> None:
    """What holds at every moment: no second machine, nothing in Azure that is not marked as ours, no lost machine."""
    clouds = story.clouds
    assert not clouds.trouble, clouds.trouble
    assert not clouds.azure.bugs and not clouds.hub.bugs, (clouds.azure.bugs, clouds.hub.bugs)
    known = {run.name for run in story.stage.runs}
    for one in clouds.azure.store.found.values():
        if f"{one.kind} {one.name}" not in story.before:
            tags = _tags(story, one.id)
            assert tags.get(OWNER) == US and tags.get(RUN) in known, f"{one.id} is nobody's: {tags}"
    machines = [one.name for one in clouds.azure.store.of("Microsoft.Compute/virtualMachines")]
    assert len(machines) <= len(clouds.actors), machines
    kept = {name for name, _ in disks_of(clouds.hub)}
    for actor in clouds.actors:
        assert {f"{actor.name}-os", f"{actor.name}-data"} <= kept, "its own disks are never touched"
        assert clouds.at_home(actor) or clouds.at_azure(actor), f"{actor.name} is lost"


def _tags(story: Story, resource_id: str) -> dict[str, str]:
    """Return the tags of a resource; a subnet has those of its network."""
    store = story.clouds.azure.store
    parent = store.get(resource_id.rsplit("/", 2)[0])
    return (parent or store.need(resource_id)).tags


def check_place(story: Story, *, away: bool, content: dict[str, Content]) -> None:
    """Every machine runs once, where it should be, with the bytes that it should have."""
    clouds = story.clouds
    for actor in clouds.actors:
        powers = (clouds.at_azure(actor), clouds.at_home(actor))
        assert (powers[0] == "running", powers[1] == "running") == (away, not away), powers
        found = clouds.azure_content(actor) if away else clouds.home_content(actor)
        assert same(found, content[actor.name]), f"{actor.name} has other bytes than it should"
