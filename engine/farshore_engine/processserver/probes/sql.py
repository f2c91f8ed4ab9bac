"""SQL: does a query return a row? PostgreSQL through pg8000, MySQL and MariaDB through PyMySQL, both pure Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pg8000.dbapi
import pymysql
import pymysql.err

from farshore_engine.contract.assignment import DatabaseLogin
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.tasks import ProbeSpec
from farshore_engine.processserver.probes.http import unverified
from farshore_engine.processserver.probes.question import Logins, Place, brief

WRONG_LOGIN = ("28000", "28P01", 1045)  # PostgreSQL's SQLSTATEs and MySQL's error number of a refused login
Rows = Sequence[Sequence[Any]]


def ask_sql(spec: ProbeSpec, place: Place, logins: Logins, seconds: float) -> str:
    """See `Question`. The query is rolled back, so that a probe changes nothing."""
    login = logins.databases.get(spec.credentials_secret, DatabaseLogin())
    ways: dict[str, Callable[[ProbeSpec, Place, DatabaseLogin, float], Rows]] = {
        "postgresql": _postgresql,
        "mysql": _mysql,
    }
    if spec.engine not in ways:
        raise StopFault(
            f"{spec.engine!r} is no database that can be asked", "Use postgresql or mysql", reason="NoEngine"
        )
    rows = ways[spec.engine](spec, place, login, seconds)
    if not rows:
        raise WaitFault("the query returned no row", reason="NoRow")
    return f"the query returned {brief(', '.join(map(str, rows[0])))}"


def _postgresql(spec: ProbeSpec, place: Place, login: DatabaseLogin, seconds: float) -> Rows:
    try:
        connection = pg8000.dbapi.connect(
            login.username or "postgres",
            host=place.address,
            port=place.port,
            database=spec.database or None,
            password=login.password.get_secret_value() if login.password else None,
            timeout=seconds,
            ssl_context=unverified() if spec.tls else None,
        )
        try:
            cursor = connection.cursor()
            cursor.execute(spec.query)
            found: Rows = cursor.fetchmany(1) if cursor.description else ()
            connection.rollback()
        finally:
            connection.close()
    except pg8000.dbapi.Error as error:
        given = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        raise _fault(spec, given.get("M") or str(error), given.get("C")) from None
    except OSError as error:
        raise _fault(spec, error.strerror or str(error), None) from None
    return found


def _mysql(spec: ProbeSpec, place: Place, login: DatabaseLogin, seconds: float) -> Rows:
    bound = max(1, int(seconds))
    try:
        connection = pymysql.connect(
            host=place.address,
            port=place.port,
            user=login.username or "root",
            password=login.password.get_secret_value() if login.password else "",
            database=spec.database or None,
            connect_timeout=bound,
            read_timeout=bound,
            write_timeout=bound,
            ssl=unverified() if spec.tls else None,
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(spec.query)
                found: Rows = cursor.fetchmany(1)
            connection.rollback()
        finally:
            connection.close()
    except pymysql.err.Error as error:
        number, words = (*error.args, "", "")[:2]
        raise _fault(spec, str(words or number), number) from None
    except OSError as error:
        raise _fault(spec, error.strerror or str(error), None) from None
    return found


def _fault(spec: ProbeSpec, words: str, code: object) -> WaitFault | StopFault:
    """Return what an error of a client means, without what it was made of, which may quote a secret."""
    if code in WRONG_LOGIN:
        remedy = "Correct the Secret that the probe names"
        return StopFault(f"the database refused the login: {brief(words)}", remedy, reason="LoginRefused")
    return WaitFault(f"port {spec.port}: {brief(words)}", reason="QueryFailed")
