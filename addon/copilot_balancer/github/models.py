"""An account's own list of models at its Copilot API host, or why there is none.

Laws of this file:

1. A refusal is judged by the same table as one of a client's request (``rules.outcome_table``).
2. The token goes to the given host alone; that it may go there was checked before.
"""

import time
from dataclasses import dataclass

from pydantic import SecretStr

from copilot_balancer.errors import UpstreamError
from copilot_balancer.github.https import PROGRAM, Request, Response, Wire, parsed
from copilot_balancer.rules.catalogue import Listed, read_models
from copilot_balancer.rules.classify import classify
from copilot_balancer.rules.types import Outcome, Reason

MODELS_VERSION = "2026-06-01"
"""What opencode sends to ``/models``. Source: docs/clients.md#opencode."""
MODELS_BYTES = 4 * 1024 * 1024
"""A recorded list has 41 entries of about 1,500 characters (docs/copilot-protocol.md#models)."""

REFUSED_AS_SUCH = frozenset({Reason.NEEDS_LOGIN, Reason.CREDENTIAL, Reason.NO_ACCESS, Reason.WRONG_HOST, Reason.PREFIX})
"""The Copilot API's refusals that another form of the token, or its own host, could cure."""


@dataclass(frozen=True)
class Listing:
    """The models, or why there are none."""

    models: tuple[Listed, ...] | None = None
    why: str = ""
    reason: Reason | None = None
    """Of a refusal."""


def list_models(wire: Wire, token: SecretStr, api_host: str, *, exchanged: bool) -> Listing:
    """The models that `token` has at `api_host`, or why there is no list; GitHub tokens need one of two prefixes.

    Which one a host wants is not documented
    (docs/copilot-protocol.md#prefix-of-a-github-token), so the other one is tried once.

    Args:
        wire: how it is asked.
        token: a GitHub token, or one that was exchanged for it.
        api_host: the host that `token` may go to.
        exchanged: which of the two `token` is.

    """
    headers = {"Editor-Version": PROGRAM} if exchanged else {}
    for scheme in ("Bearer", "token"):
        question = Request(
            f"https://{api_host}/models", token, scheme, MODELS_VERSION, headers=headers, cap=MODELS_BYTES
        )
        try:
            answer = wire.ask(question)
        except UpstreamError as error:
            return Listing(why=str(error))
        if answer.status == 200:
            models = None if answer.fault else read_models(parsed(answer.body))
            why = answer.fault or "answered with something that is no list of models"
            return Listing(why=f"{api_host} {why}") if models is None else Listing(models)
        outcome = classify(answer.status, answer.headers, answer.body, wall=time.time())
        if outcome.reason is not Reason.PREFIX:
            break
    return Listing(reason=outcome.reason, why=f"the models could not be listed: {told(answer, outcome)}")


def told(answer: Response, outcome: Outcome) -> str:
    """A refusal as one sentence, with the service's own words."""
    said = f": {outcome.text}" if outcome.text else ""
    return f"{answer.host} refuses (HTTP {answer.status}{said})"
