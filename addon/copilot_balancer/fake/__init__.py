"""A fake GitHub Copilot on loopback: for the demo and for the tests, never for the product.

It plays the service, names included: TLS with a certificate for whatever host is asked for, signed by a throw-away CA
that lives in a temporary folder as long as the fake does. No switch in the product points here: the demo or a test
patches, in its own process, the one function with which mitmproxy dials (``dial``)::

    fake       server       accepts, records, chooses who answers what
               connection   one connection: requests in, answers out, as the script wants them
               dialling     how mitmproxy reaches it
               authority    the throw-away CA
               device       a person who logs in by a code
    pure       seen         one request as it arrived
               answers      what is answered, the accounts: values
               faults       streams that go wrong
               chat, responses, messages
                            what an answer looks like in each API
               ownership    who may send back what
               reply        an answer before it takes a form; ids and signatures that tell whose they are
               bodies       the service's other documents

A test reads like this::

    async with FakeCopilot({"gho_work": FakeAccount("work", default=limited(30))}) as fake:
        with dial(fake):
            ...
        assert [seen.account for seen in fake.asked()] == ["work"]
        assert fake.lost == []  # nothing of one account's reached another
"""

from copilot_balancer.fake.answers import (
    BAD_CREDENTIALS,
    MODEL_NOT_SUPPORTED,
    NOT_FOUND,
    TOKEN_EXPIRED,
    AnnounceOnly,
    Answer,
    Answering,
    CutMid,
    Document,
    Drop,
    EmptyStream,
    Ending,
    EndlessError,
    FakeAccount,
    Fault,
    Huge,
    Malformed,
    NoTerminator,
    Ok,
    RawBytes,
    Refuse,
    Silent,
    SlowFirst,
    StreamError,
    Trickle,
    Unstreamed,
    always,
    limited,
    once,
    per_model,
    per_path,
)
from copilot_balancer.fake.bodies import DEFAULT_MODELS, Quota
from copilot_balancer.fake.device import FakeLogin
from copilot_balancer.fake.dialling import Faulty, dial
from copilot_balancer.fake.ownership import Lost
from copilot_balancer.fake.reply import ToolCall, owner_of
from copilot_balancer.fake.seen import Seen
from copilot_balancer.fake.server import HOSTS, FakeCopilot, running

__all__ = [
    "BAD_CREDENTIALS",
    "DEFAULT_MODELS",
    "HOSTS",
    "MODEL_NOT_SUPPORTED",
    "NOT_FOUND",
    "TOKEN_EXPIRED",
    "AnnounceOnly",
    "Answer",
    "Answering",
    "CutMid",
    "Document",
    "Drop",
    "EmptyStream",
    "Ending",
    "EndlessError",
    "FakeAccount",
    "FakeCopilot",
    "FakeLogin",
    "Fault",
    "Faulty",
    "Huge",
    "Lost",
    "Malformed",
    "NoTerminator",
    "Ok",
    "Quota",
    "RawBytes",
    "Refuse",
    "Seen",
    "Silent",
    "SlowFirst",
    "StreamError",
    "ToolCall",
    "Trickle",
    "Unstreamed",
    "always",
    "dial",
    "limited",
    "once",
    "owner_of",
    "per_model",
    "per_path",
    "running",
]
