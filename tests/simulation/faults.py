"""What can befall a site. Each fault says in a few words what it did; those that last end by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulation.schedule import SERVERS, Site


def kill_agent(site: Site) -> str:
    delay = site.world.chance.uniform(0.05, 2)
    site.kill_agent()
    site.world.after(delay, site.agent.start)
    return f"the agent is killed, for {delay:.2f} s"


def reboot_machine(site: Site) -> str:
    delay = site.world.chance.uniform(0.5, 4)
    site.kill_agent()
    site.source.reset()

    def boot() -> None:
        site.source.boot()
        site.agent.start()

    site.world.after(delay, boot)
    return f"the machine is reset and boots after {delay:.2f} s"


def kill_server(site: Site, power: bool | None = None) -> str:
    name = _mostly_the_active(site)
    power = site.world.chance.random() < 0.5 if power is None else power
    delay = site.world.chance.uniform(0.05, 5)
    site.kill_server(name, power)
    site.world.after(delay, site.servers[name].start)
    return f"{name} is killed{' by a power cut' if power else ''}, for {delay:.2f} s"


def cut_power(site: Site) -> str:
    return kill_server(site, power=True)


def kill_drill(site: Site) -> str:
    site.drill.kill()
    return "the hydrator is killed"


def cut_link(site: Site) -> str:
    if not site.links:
        return "no connection to break"
    site.links[-1].cut()
    return "the connection breaks"


def partition(site: Site) -> str:
    if not site.links:
        return "no connection to lose"
    link, seconds = site.links[-1], site.world.chance.uniform(1, 50)
    link.partition()
    site.world.after(seconds, link.heal)
    return f"the network loses everything for {seconds:.1f} s"


def vault_away(site: Site) -> str:
    seconds = site.world.chance.uniform(0.5, 20)
    site.weather.away = True
    site.world.after(seconds, lambda: setattr(site.weather, "away", False))
    return f"the store is away for {seconds:.1f} s"


def vault_flaky(site: Site) -> str:
    chance = site.world.chance
    seconds, site.weather.refused, site.weather.lost = (
        chance.uniform(2, 12),
        chance.uniform(0, 0.3),
        chance.uniform(0, 0.3),
    )

    def calm() -> None:
        site.weather.refused = site.weather.lost = 0.0

    site.world.after(seconds, calm)
    return f"503 at {site.weather.refused:.2f} and lost answers at {site.weather.lost:.2f} for {seconds:.1f} s"


def stall_server(site: Site) -> str:
    name = _mostly_the_active(site)
    process, seconds = site.servers[name].process, site.world.chance.uniform(0.1, 45)
    site.world.stall(process)
    site.world.after(seconds, lambda: site.world.resume(process))
    return f"{name} is stalled for {seconds:.1f} s"


def stall_agent(site: Site) -> str:
    process, seconds = site.agent.process, site.world.chance.uniform(0.1, 15)
    site.world.stall(process)
    site.world.after(seconds, lambda: site.world.resume(process))
    return f"the agent is stalled for {seconds:.1f} s"


def reassign(site: Site) -> str:
    """Another process server takes over: the old one is well, dead, stalled, or does not hear of it."""
    old = site.wanted.server
    new = next(name for name in SERVERS if name != old)
    state = site.world.chance.choice(("well", "dead", "stalled", "deaf"))
    server = site.servers[old]
    back = site.world.chance.uniform(1, 25)
    if state == "dead":
        site.kill_server(old)
        site.world.after(back, server.start)
    elif state == "stalled":
        process = server.process
        site.world.stall(process)
        site.world.after(back, lambda: site.world.resume(process))
    elif state == "deaf":
        server.cut_off = True
        site.world.after(back, lambda: setattr(server, "cut_off", False))
    site.assign(new)
    if state != "dead" and site.world.chance.random() < 0.5 and site.links:
        site.links[-1].cut()  # the agent's configuration has changed and it dials anew
    return f"{new} takes over from {old}, which is {state}" + ("" if state == "well" else f" for {back:.1f} s")


def fence(site: Site) -> str:
    """A failover that is aborted: it fences the chain, and replication goes on with a higher epoch."""
    epoch = site.wanted.epoch + 1
    vault = _recovery_vault(site)
    chance = site.world.chance

    def claim() -> None:
        try:
            vault().claim(writer="failover", epoch=epoch, reason="failover")
        except Exception as error:  # noqa: BLE001 - the store may be away: then there is no failover
            site.world.note(f"no fence: {error}")

    site.world.spawn(site.operator, "failover", claim)
    old = site.wanted.server

    def abort() -> None:
        if site.wanted.server == old and site.wanted.epoch <= epoch:
            site.wanted.epoch = epoch
            site.assign(old)

    site.world.after(chance.uniform(0.5, 4), abort)
    return f"a failover fences the chain with epoch {epoch}"


def lose_events(site: Site) -> str:
    site.source.tracing.lose = site.world.chance.randrange(1, 20)
    return f"the tracker loses {site.source.tracing.lose} events"


def delay_events(site: Site) -> str:
    site.source.tracing.late = site.world.chance.uniform(0.5, 5)
    return f"events wait up to {site.source.tracing.late:.1f} s in the kernel"


def lose_spool(site: Site) -> str:
    name = _mostly_the_active(site)
    site.kill_server(name)
    site.servers[name].files.remove_all("/spool")
    site.world.after(site.world.chance.uniform(0.05, 3), site.servers[name].start)
    return f"{name} is killed and its spool is gone"


def replace_vault(site: Site) -> str:
    """Somebody gives the machine a new vault of the same name: the process servers are started anew."""
    for name in SERVERS:
        site.kill_server(name)
    site.drill.kill()
    site.drill.chosen = ""
    for process in (*(s.process for s in site.servers.values()), site.drill.process):
        process.ghosts.clear()
    site.store.objects.clear()
    site.auditor.forget_vault()
    site.world.forget_soon()
    for server in site.servers.values():
        site.world.after(site.world.chance.uniform(0.05, 2), server.start)
    return "the vault is replaced by an empty one"


def grow_disk(site: Site) -> str:
    import numpy as np

    disk = site.world.chance.choice(sorted(site.source.disks))
    more = site.world.chance.choice((1, 16, 40))
    site.source.disks[disk] = np.concatenate([site.source.disks[disk], np.zeros(more, np.uint32)])
    return f"{disk} grows by {more} pages"


FAULTS: tuple[tuple[int, Callable[[Site], str]], ...] = (
    (6, kill_agent),
    (2, reboot_machine),
    (8, kill_server),
    (3, kill_drill),
    (3, cut_link),
    (2, partition),
    (3, vault_away),
    (3, vault_flaky),
    (3, stall_server),
    (1, stall_agent),
    (5, reassign),
    (2, fence),
    (2, lose_events),
    (1, delay_events),
    (2, lose_spool),
    (1, replace_vault),
    (1, grow_disk),
)


def any_fault(site: Site) -> str:
    """Do one of them."""
    weights, faults = zip(*FAULTS, strict=True)
    return site.world.chance.choices(faults, weights)[0](site)


def only(*faults: Callable[[Site], str]) -> Callable[[Site], str]:
    """Return a fault that is one of these, for a mutation that only they bring out."""
    return lambda site: site.world.chance.choice(faults)(site)


def _mostly_the_active(site: Site) -> str:
    return site.wanted.server if site.world.chance.random() < 0.85 else site.world.chance.choice(SERVERS)


def _recovery_vault(site: Site) -> Callable[[], Any]:
    from tests.simulation.server import open_vault

    return lambda: open_vault(site.store_of(site.operator), site.world)
