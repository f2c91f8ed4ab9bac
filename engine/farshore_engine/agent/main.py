"""The agent's command line: `run`, `thaw`, `enrol`, `checks`, `version`."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: each of its threads would lock a stack in memory

import argparse
import json
import signal
import sys
from pathlib import Path

from farshore_engine.agent import VERSION
from farshore_engine.agent.config import DEFAULT_PATH, AgentConfig, load
from farshore_engine.agent.logs import log, set_up
from farshore_engine.contract.faults import StopFault, WaitFault

EXIT_RETRY = 75  # EX_TEMPFAIL
EXIT_STOPPED = 78  # EX_CONFIG: a restart does not help
KEPT = 8 << 20  # bytes of freed memory that a heap keeps


def _run(config: AgentConfig, path: Path) -> int:
    from farshore_engine.agent import syscalls
    from farshore_engine.agent.agent import Agent
    from farshore_engine.blocks.memory import keep_freed_memory

    agent = Agent(config, reread=lambda: load(path), power_off=syscalls.power_off)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    log.info("the agent starts", extra={"fields": {"version": VERSION, "machineId": config.machine_id}})
    keep_freed_memory(KEPT, heaps=1)
    try:
        syscalls.lock_everything()  # what runs inside a freeze must not wait for a page
    except OSError as error:
        log.warning("the agent's memory is not locked", extra={"fields": {"error": str(error)}})
    agent.run()
    log.info("the agent has ended")
    return 0


def _thaw(config: AgentConfig) -> int:
    """End a freeze that a dead agent left behind, and run the post hooks that it owed; for the service manager."""
    from farshore_engine.agent.final import PHASES
    from farshore_engine.agent.freezing import Freezer
    from farshore_engine.agent.hooks import Hooks
    from farshore_engine.agent.watchdog import Watchdog

    for point in Freezer(Watchdog(config.interpreter), config.runtime_dir).thaw_leftovers():
        log.warning("thawed", extra={"fields": {"mount": point}})
    for name in Hooks(config.runtime_dir, config.hooks_dir).run_owed():
        log.warning("ran the post hook that was owed", extra={"fields": {"hook": name}})
    for name in Hooks(config.runtime_dir / "stop", config.stop_dir, phases=PHASES).run_owed():
        log.warning("started what a last point had stopped", extra={"fields": {"hook": name}})
    return 0


def _enrol(options: argparse.Namespace) -> int:
    from farshore_engine.agent.enrol import Place, Token, bundle_interpreter, enrol, parse_server

    text = sys.stdin.readline() if options.token == "-" else options.token
    token = Token.parse(text)
    place = Place(options.config.parent, bundle_interpreter(), tuple(options.include_disk), tuple(options.exclude_disk))
    enrol(tuple(parse_server(server) for server in options.server), token, place)
    log.info("enrolled", extra={"fields": {"machineId": token.machine_id, "config": str(options.config)}})
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="farshore-agent", description="Farshore mobility agent")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (("run", "protect this machine"), ("thaw", "end a freeze left by an agent that died")):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--config", type=Path, default=DEFAULT_PATH)
    enrolment = commands.add_parser("enrol", help="trade a one-time token for this machine's key and certificate")
    enrolment.add_argument("--server", action="append", required=True, metavar="HOST:PORT", help="may be repeated")
    enrolment.add_argument("--token", required=True, help="- reads it from standard input")
    enrolment.add_argument("--include-disk", action="append", default=[], help="protect only these; may be repeated")
    enrolment.add_argument("--exclude-disk", action="append", default=[], help="protect all but these")
    enrolment.add_argument("--config", type=Path, default=DEFAULT_PATH)
    commands.add_parser("checks", help="print facts about this machine as JSON")
    commands.add_parser("version", help="print the version")
    options = parser.parse_args(arguments)
    set_up()
    if options.command == "version":
        sys.stdout.write(f"{VERSION}\n")
        return 0
    if options.command == "checks":
        from farshore_engine.agent.checks import facts

        sys.stdout.write(json.dumps(facts()) + "\n")
        return 0
    try:
        if options.command == "enrol":
            return _enrol(options)
        config = load(options.config)
        return _run(config, options.config) if options.command == "run" else _thaw(config)
    except WaitFault as fault:
        log.error("%s", fault, extra={"fields": {"reason": fault.reason}})
        return EXIT_RETRY
    except StopFault as fault:
        log.error("%s", fault, extra={"fields": {"reason": fault.reason}})
        return EXIT_STOPPED


if __name__ == "__main__":
    sys.exit(main())
