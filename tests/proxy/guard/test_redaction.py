"""Secrets taken out of bytes, in whatever writing they stand there."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import example, given, strategies

from copilot_balancer.proxy.guard.redaction import sought, taken_out

GITHUB = b"gho_0123456789abcdefghijABCDEFGHIJ012345"
MINTED = b"tid=1f;exp=1777;sku=pro;proxy-ep=https://proxy.example.com;rt=1:9+/~~~>>>???"
SECRETS = [(GITHUB, b"[account:work]"), (MINTED, b"[account]")]
NAMES = {GITHUB: "GitHub's", MINTED: "minted"}


def per_character(form, *, every=1):
    def written(secret):
        return "".join(
            form.format(char=chr(byte), code=byte) if not number % every else chr(byte)
            for number, byte in enumerate(secret)
        ).encode()

    return written


def in_json(times):
    def written(secret):
        text = per_character("\\u{code:04x}")(secret).decode()
        for _ in range(times):
            text = json.dumps(text)
        return text.encode()

    return written


WRITINGS = {
    "itself": bytes,
    "JSON": per_character("\\u{code:04x}"),
    "JSON, upper case": per_character("\\u{code:04X}"),
    "JSON, some of it": per_character("\\u{code:04x}", every=3),
    "JSON's slash": lambda secret: secret.replace(b"/", b"\\/"),
    "JSON in JSON": in_json(1),
    "JSON in JSON in JSON": in_json(2),
    "backslash x": per_character("\\x{code:02x}"),
    "percent": per_character("%{code:02X}"),
    "percent, some of it": lambda secret: quote(secret, safe="").encode(),
    "percent twice": lambda secret: quote(per_character("%{code:02x}")(secret), safe="").encode(),
    "percent in JSON": lambda secret: per_character("\\u{code:04x}")(per_character("%{code:02x}")(secret)),
    "hex": lambda secret: secret.hex().encode(),
    "HEX": lambda secret: secret.hex().upper().encode(),
    **{f"base64, {n} before": lambda secret, n=n: base64.b64encode(b"x" * n + secret + b"yz") for n in range(4)},
    "base64url": lambda secret: base64.urlsafe_b64encode(b"user:" + secret),
    "base64 in JSON": lambda secret: json.dumps(base64.b64encode(b"-" + secret).decode()).replace("/", "\\/").encode(),
    "base64, percent": lambda secret: quote(base64.b64encode(secret), safe="").encode(),
}


def told(secret, data):
    """Whether the secret can still be read in it, in any of the writings; the ends of base64 say a few bits at most."""
    return any(write(secret)[4:-8] in data for write in WRITINGS.values())


@pytest.mark.parametrize("secret", NAMES, ids=NAMES.get)
@pytest.mark.parametrize("write", WRITINGS.values(), ids=WRITINGS)
def test_a_secret_is_taken_out(secret, write):
    """Each writing is found, everything around it stays, and the name stands in its place."""
    before, after = b'{"a": "1%2 \\n \\u00e9 ', b' \\" /b"}'
    data = before + write(secret) + after + b" " + write(secret)
    left = taken_out(data, sought(SECRETS))
    assert not told(secret, left)
    assert left.count(dict(SECRETS)[secret]) == 2
    if write is not WRITINGS["percent in JSON"]:  # which is shown as it was meant, and so is the rest
        assert left.startswith(before)
        assert left.count(after) == 1


def test_all_of_them():
    """Several secrets in several writings in one text all go."""
    data = b" ".join(write(secret) for write in WRITINGS.values() for secret in NAMES)
    left = taken_out(data, sought(SECRETS))
    assert not any(told(secret, left) for secret in NAMES)


@example(b"%252525252525256f")
@given(strategies.binary(max_size=300) | strategies.text('\\/u0067%gho_"x25', max_size=300).map(str.encode))
def test_others_stay(data):
    """Where no secret stands every byte stays, whatever else is written there."""
    assert taken_out(data, sought(SECRETS)) is data
    assert taken_out(data, []) is data


@pytest.mark.parametrize("unit", [b"\\", b"\\u0067", b"%67", b"%25", b"gho_", b"\\u005c", b"Z2hv"], ids=bytes.decode)
def test_a_text_of_nothing_else_is_looked_through(unit):
    """No repetition makes the search long: twice as much is twice the work, or this test would not end."""
    data = unit * (1_000_000 // len(unit))
    assert taken_out(data, sought(SECRETS)) is data
    assert not told(GITHUB, taken_out(data + GITHUB, sought(SECRETS)))
