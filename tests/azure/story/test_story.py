"""The tutorial from Step 1 to failback, for two machines, with the product's own executors in the order of its own
step tables: an Azure Stack Hub, Azure, and a vault in Azure Blob Storage; bytes are compared at each station."""

from __future__ import annotations

from typing import Any

from tests.azure.story.acts import check_nothing_is_wrong, check_place, same
from tests.azure.story.clouds import AZURE_GROUP
from tests.azure.story.conftest import Perform, blob_vault, secrets_of
from tests.azure.story.preparation import prepare
from tests.azure.story.tutorial import Story
from tests.contract.blob_container import blob_container

from farshore_operator.decide.runsteps import StepName


def check_alive(story: Story, points: dict[str, str], *, away: bool) -> None:
    """Every machine runs once, at one site, from the point that was meant."""
    check_nothing_is_wrong(story)
    wanted = {actor.name: actor.content[points[actor.name]] for actor in story.clouds.actors}
    check_place(story, away=away, content=wanted)


def test_the_tutorial_from_step_1_to_failback(perform: Perform, azurite: Any, container_name: str) -> None:
    with blob_container(azurite, container_name):
        story = perform(blob_vault(azurite.account_url, container_name, azurite.key), together=True)
        with story.said.listening():
            clouds, actors = story.clouds, story.clouds.actors
            prepare(story, story.at_the_hub)
            story.replicate()
            newest = {actor.name: actor.points[-1].name for actor in actors}

            drill = story.drill()
            for actor in actors:
                name = f"{actor.at_azure}-{drill.name}"
                assert same(clouds.azure_content(actor, name), actor.content[newest[actor.name]])
                assert clouds.at_home(actor) == "running", "a drill does not touch the machine"
                assert "isolated" in drill.results[StepName.PROBE, actor.name].evidence
            story.stage.clean_up(drill)
            assert clouds.resources() == story.before, "nothing is left of a drill"

            written = {actor.name: clouds.home_content(actor) for actor in actors}
            moved = story.fail_over()
            assert moved.points != newest, "Latest takes along what no point had yet"
            check_alive(story, moved.points, away=True)
            for actor in actors:
                assert same(actor.content[moved.points[actor.name]], written[actor.name])
                assert moved.results[StepName.PROBE, actor.name].address == actor.away

            changed = story.change_point(moved)
            assert changed.points == newest
            check_alive(story, changed.points, away=True)

            story.commit(changed)
            story.write_in_azure(0)
            story.reprotect(changed)
            story.write_in_azure(1)

            home = story.fail_back(changed)
            check_alive(story, home.points, away=False)
            for actor in actors:
                written_back = home.results[StepName.WRITE_BACK, actor.name].bytes_written or 0
                assert 0 < written_back < (2 << 20), "only what differs was written"
            story.commit(home, "commit-2")
            assert clouds.resources() == story.before, f"nothing that is ours is left in {AZURE_GROUP}"
            check_alive(story, home.points, away=False)
        assert len(story.said.lines) > 1000, "logs are listened to"
        assert any("sig" in one.query for one in clouds.azure.calls), "disks were written by signatures"
        assert not story.said.leaks(secrets_of(story))
