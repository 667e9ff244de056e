"""Asks a rollout replica for a sign of life: its HTTP server first, then its Ray actors.

Invariants:
* No check generates a token. SGLang's ``/health`` does by default, which a weight sync pauses;
  ``/v1/models`` answers without its scheduler.
* No proxy stands between the driver and a server, whatever the environment says.
* An actor that Ray cannot reach at the moment is not dead.
"""

from typing import Any

import ray
import requests

from verl_pipeline.trainer.server_health import Sign

# By rollout.name, a page that tells more than that the server answers. Others get MODELS_PAGE.
HEALTH_PAGES = {"vllm": "/health", "trtllm": "/health"}
MODELS_PAGE = "/v1/models"
# HTTP statuses from here on say that the server is not well.
SERVER_ERRORS = 500
# What an engine answers only when it is dead for good (vLLM's EngineDeadError).
DEAD_STATUS = {"vllm": 503}
# For the actors of a replica whose HTTP server does not answer, in seconds.
ACTORS_S = 5.0


LOG_ADVICE = "Its log is in Ray's session folder ({log}); a common cause is memory"
DEATH_ADVICE = f"{LOG_ADVICE}. Resume from the last checkpoint with the same command"

# Errors of engines that are dead for good, by name: an import of vLLM takes seconds.
ENGINE_DEATHS = ("EngineDeadError",)


class RolloutServerDead(RuntimeError):
    """A rollout replica does not answer any more."""


def describe_death(name: str, engine: str, verdict: str, seen: str) -> str:
    """Who died, how one knows, and what to do.

    Args:
        name: of the replica.
        engine: ``rollout.name``.
        verdict: of a :class:`~verl_pipeline.trainer.server_health.ServerWatch`.
        seen: what a probe saw.
    """
    advice = DEATH_ADVICE.format(log=f"worker-*.err of the {engine} server")
    return f"{name} {verdict}: {seen}. {advice}"


def find_death(error: BaseException) -> str | None:
    """What the error of a request says about its replica's death, as a clause; None if nothing."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        if type(cause).__name__ in ENGINE_DEATHS:
            return "its engine died"
        return find_death(cause) if isinstance(cause, ray.exceptions.RayActorError) else None
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return None
    if isinstance(error, ray.exceptions.RayActorError):
        return f"its process died: {str(error).splitlines()[0]}"
    return None


def probe_replica(
    engine: str, address: str, servers: list[Any], timeout_s: float
) -> tuple[Sign, str]:
    """Ask one replica.

    Args:
        engine: ``rollout.name``.
        address: ``host:port`` of its HTTP server, an IPv6 host in brackets.
        servers: its Ray actors, one a node.
        timeout_s: longest wait for the HTTP server.

    Returns:
        The sign, and what was seen, in words.
    """
    page = HEALTH_PAGES.get(engine, MODELS_PAGE)
    try:
        with requests.Session() as session:
            # Otherwise http_proxy and the like would apply.
            session.trust_env = False
            status = session.get(f"http://{address}{page}", timeout=timeout_s).status_code
    except requests.RequestException as error:
        return _probe_actors(servers, f"its HTTP server does not answer ({error})")
    if status == DEAD_STATUS.get(engine):
        return Sign.DEAD, f"it answers {status}: its engine died"
    return Sign.SILENT if status >= SERVER_ERRORS else Sign.ALIVE, f"it answers {status}"


def _probe_actors(servers: list[Any], seen: str) -> tuple[Sign, str]:
    """Tell the death of a process from silence; an answer proves no more than that it lives, since
    Ray gives it also where the server's event loop is blocked.
    """
    probes = [server.__ray_ready__.remote() for server in servers]
    answered, _open = ray.wait(probes, num_returns=len(probes), timeout=ACTORS_S)
    living = 0
    for probe in answered:
        try:
            ray.get(probe)
        except ray.exceptions.ActorUnavailableError:
            continue
        except ray.exceptions.RayActorError as error:
            return Sign.DEAD, f"{seen}; its process died: {str(error).splitlines()[0]}"
        living += 1
    return Sign.SILENT, f"{seen}; {living} of {len(servers)} processes are known to live"
