"""HTTP: does a web server answer a path with the status that it should?

A redirect is an answer of its own. The certificate of an HTTPS server is not verified: a recovered machine has another
address than the one that its certificate is for.
"""

from __future__ import annotations

import http.client
import ssl

from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.tasks import ProbeSpec
from farshore_engine.processserver.probes.question import Logins, Place, brief

HEAD = 4096  # bytes of a page that are read


def unverified() -> ssl.SSLContext:
    """Return a TLS context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask_http(spec: ProbeSpec, place: Place, logins: Logins, seconds: float) -> str:
    """See `Question`."""
    connection = (
        http.client.HTTPSConnection(place.address, place.port, timeout=seconds, context=unverified())
        if spec.tls
        else http.client.HTTPConnection(place.address, place.port, timeout=seconds)
    )
    try:
        connection.request("GET", spec.path or "/", headers={"User-Agent": "farshore-probe", "Connection": "close"})
        response = connection.getresponse()
        body = response.read(HEAD)
    except (OSError, http.client.HTTPException) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise WaitFault(f"port {spec.port}: {brief(words)}", reason="NoAnswer") from error
    finally:
        connection.close()
    said = f"{spec.path or '/'} answered {response.status} {response.reason}"
    if response.status != spec.status:
        shown = brief(body.decode("utf-8", "replace"))
        raise WaitFault(f"{said}, not {spec.status}: {shown}", reason="WrongStatus")
    return said
