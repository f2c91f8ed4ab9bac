"""What an engine declares works; what it does not declare is refused before anything moves, by its name and with the
remedy. The declaration is `farshore_operator.engines.capabilities`, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.azure.conformance.behaviours import BEHAVIOURS, Behaviour
from tests.azure.conformance.conftest import Begin

from farshore_operator.api.recoveryvault import Engine
from farshore_operator.engines.capabilities import FACTS, LACKING, Capability

DOCS = Path(__file__).resolve().parents[3] / "docs/concepts/site-recovery.md"
OF_EVERY_ENGINE = {Capability.LINUX_AGENT, Capability.TEST_FAILOVER, Capability.FAILOVER, Capability.CHANGE_POINT}
"""What test_life.py asks of all of them."""
BY_THE_API = {Capability.KEY_IN_SECRET, Capability.KEY_VAULT}
"""What the API's own rules refuse, before there is an object."""
INSIDE = {Capability.OWN_SERVERS}
"""What nobody can ask for."""


ENGINES = ("native", "classic", pytest.param("modernized", marks=pytest.mark.soak))
"""Both experiences of Site Recovery are one engine, which refuses by one table: the second is for the long run."""


@pytest.mark.parametrize("begin", ENGINES, indirect=True)
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda one: str(one.needs))
def test_what_is_declared_works_and_the_rest_is_refused_by_name(begin: Begin, behaviour: Behaviour) -> None:
    life = begin("web", **behaviour.plan)
    behaviour.before(life)
    before = life.touched()
    if behaviour.needs in FACTS[life.engine].capabilities:
        behaviour.ask(life)
        behaviour.works(life)
        assert not life.wrong(), life.wrong()
        return
    behaviour.ask(life)
    told = life.everything("web")
    assert behaviour.refusal in told, told
    assert LACKING[life.engine][behaviour.needs] in told, told
    if behaviour.needs is not Capability.KEEP_POINTS:  # which is told in time, and lost only with the commit
        assert life.touched() == before, "something was done all the same"
    assert not life.wrong(), life.wrong()


def test_every_capability_is_asked_for_by_a_test() -> None:
    asked = [one.needs for one in BEHAVIOURS]
    assert len(asked) == len(set(asked))
    assert set(asked) | OF_EVERY_ENGINE | BY_THE_API | INSIDE == set(Capability)
    assert all(engine.capabilities >= OF_EVERY_ENGINE for engine in FACTS.values())


@pytest.mark.parametrize("engine", Engine)
def test_whatever_an_engine_lacks_has_one_sentence_that_says_what_to_do(engine: Engine) -> None:
    assert set(LACKING[engine]) == set(Capability) - FACTS[engine].capabilities
    assert all(": " in text and not text.endswith(".") for text in LACKING[engine].values())


def test_the_documentation_has_the_same_table() -> None:
    rows = [line.split("|")[1:-1] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    told = {row[0].strip(" `"): (row[1].strip(), row[2].strip()) for row in rows if len(row) == 4}
    marks = {True: "yes", False: "no"}
    assert told == {
        one.value: tuple(marks[one in FACTS[engine].capabilities] for engine in (Engine.NATIVE, Engine.SITE_RECOVERY))
        for one in Capability
    }
