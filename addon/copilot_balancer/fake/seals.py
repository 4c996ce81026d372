"""What an account makes and a client carries: opaque strings that tell the fake whose they are.

Laws of this file:

1. Pure, and self-contained: a seal is checked by opening it. Nothing is remembered, so nothing has to be forgotten, and
   a fake that is started again still knows what it made.
2. To a client it is what the service's own are: long base64 without meaning, other letters with each ``variant`` of the
   same thing (copilot-protocol.md 4: item ids "differ per SSE event").
"""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Literal

type Kind = Literal["item", "response", "encrypted", "opaque", "signature", "redacted", "session"]

_KEY = b"the fake's own, the same in every fake: it guards nothing"
_TAG = 16
_SHORTEST = 96
"""Bytes inside, at least: the service's item ids are longer than 64 characters, which some clients cannot bear."""

_PREFIXES: dict[Kind, str] = {"response": "resp_", "encrypted": "gAAAAAB"}
"""What the service's own begin with."""


@dataclass(frozen=True)
class Made:
    """What a seal says."""

    kind: Kind
    account: str
    """The name of the account that made it."""
    part: str
    """Which answer, and which part of it."""


def seal(kind: Kind, account: str, part: str, variant: int = 0) -> str:
    """An opaque string for this thing; each `variant` looks different and means the same."""
    plain = json.dumps([kind, account, part, variant]).encode().ljust(_SHORTEST)
    tag = hmac.digest(_KEY, plain, "sha256")[:_TAG]
    return _PREFIXES.get(kind, "") + base64.b64encode(tag + _veiled(plain, tag)).decode()


def unsealed(value: object) -> Made | None:
    """What a string says that some fake sealed; None: no fake made it, or it was changed."""
    if not isinstance(value, str):
        return None
    bare = value.removeprefix("resp_").removeprefix("gAAAAAB")
    try:
        raw = base64.b64decode(bare, validate=True)
    except (ValueError, binascii.Error):
        return None
    tag, plain = raw[:_TAG], _veiled(raw[_TAG:], raw[:_TAG])
    if not hmac.compare_digest(tag, hmac.digest(_KEY, plain, "sha256")[:_TAG]):
        return None
    kind, account, part, _ = json.loads(plain)
    return Made(kind, account, part)


def owner_of(value: object) -> str | None:
    """The name of the account that made this id, signature or encrypted content; None: none did."""
    made = unsealed(value)
    return made.account if made else None


def call_id(account: str, part: str, prefix: str = "call_") -> str:
    """The id of a tool call: bound to nobody, so it is no seal."""
    return prefix + hashlib.sha256(f"{account}/{part}".encode()).hexdigest()[:24]


def _veiled(data: bytes, tag: bytes) -> bytes:
    stream = hashlib.shake_256(_KEY + tag).digest(len(data))
    return (int.from_bytes(data) ^ int.from_bytes(stream)).to_bytes(len(data))
