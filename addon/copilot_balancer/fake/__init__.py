"""A fake GitHub Copilot on loopback: for the demo and for the tests, never for the product.

It plays the service, names included: TLS with a certificate for whatever host is asked for, signed by a throw-away CA
that lives in a temporary folder as long as the fake does. No switch in the product points here: the demo or a test
patches, in its own process, the one function with which mitmproxy dials (``dial``)::

    fake       server       accepts, records, chooses who answers what
               connection   one connection: requests in, answers out, as the script wants them
               dialling     how mitmproxy reaches it
               authority    the throw-away CA
               device       a person who logs in by a code
               answers      what arrived, what is answered, the accounts: values
               bodies       what the service's answers look like: pure

A test reads like this::

    async with FakeCopilot({"gho_work": FakeAccount("work", default=limited(30))}) as fake:
        with dial(fake):
            ...
        assert [seen.account for seen in fake.asked()] == ["work"]
"""

from copilot_balancer.fake.answers import (
    BAD_CREDENTIALS,
    MODEL_NOT_SUPPORTED,
    NOT_FOUND,
    TOKEN_EXPIRED,
    Answer,
    Answering,
    CutMid,
    Document,
    Drop,
    EndlessError,
    FakeAccount,
    Ok,
    RawBytes,
    Refuse,
    Seen,
    Silent,
    SlowFirst,
    always,
    limited,
    once,
    per_model,
    per_path,
)
from copilot_balancer.fake.bodies import DEFAULT_MODELS, Quota
from copilot_balancer.fake.device import FakeLogin
from copilot_balancer.fake.dialling import dial
from copilot_balancer.fake.server import HOSTS, FakeCopilot, running

__all__ = [
    "BAD_CREDENTIALS",
    "DEFAULT_MODELS",
    "HOSTS",
    "MODEL_NOT_SUPPORTED",
    "NOT_FOUND",
    "TOKEN_EXPIRED",
    "Answer",
    "Answering",
    "CutMid",
    "Document",
    "Drop",
    "EndlessError",
    "FakeAccount",
    "FakeCopilot",
    "FakeLogin",
    "Ok",
    "Quota",
    "RawBytes",
    "Refuse",
    "Seen",
    "Silent",
    "SlowFirst",
    "always",
    "dial",
    "limited",
    "once",
    "per_model",
    "per_path",
    "running",
]
