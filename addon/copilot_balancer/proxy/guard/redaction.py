r"""Replaces secrets in bytes, also where they are escaped or encoded (JSON, URL, hexadecimal, base64).

Laws of this file:

1. Found are: the secret as it is; with any of its characters written ``\u0067``, ``\x67`` or ``%67``, also several
   times over (JSON in JSON); in hexadecimal; in base64 and base64url, whatever stands before and behind it.
2. Where nothing is found the bytes are handed back as they are. Looking costs a few searches for each kind of secret,
   not for each secret, and grows with the bytes alone, whatever they are.
"""

import base64
import re
from collections.abc import Iterable, Iterator

from pydantic import SecretStr

_ROUNDS = 3
"""How often one writing may stand in another."""
_WRITTEN = re.compile(rb"\\(?:\\{0,7}(?:u00|x)([2-7][0-9a-fA-F])|\\{0,7}/)|%([2-7][0-9a-fA-F])")
"""A printable ASCII character in another writing, JSON's own for ``/`` included; in JSON in JSON in JSON at most."""
_BEGINNING = 4
"""Bytes by which secrets of one kind begin alike: ``gho_``, ``ghu_``, ``tid=``."""


type Sought = list[tuple[bytes, bytes]]
"""Each writing of each secret that is looked for, with what is shown in its place."""


def sought(secrets: Iterable[tuple[bytes, bytes]]) -> Sought:
    """What to look for; `secrets`: each with what is shown in its place."""
    return [(form, shown) for secret, shown in secrets for form in _forms(secret)]


def taken_out(data: bytes, secrets: Sought) -> bytes:
    """`data` without the secrets; itself when none is found."""
    while True:
        left = _without_one(data, secrets)
        if left is data:
            return data
        data = left


class SentSecrets:
    """The credentials that may be echoed: of all accounts, and whatever was sent, also after an account was edited."""

    LIMIT = 256
    """Credentials that are remembered, newest last."""

    def __init__(self) -> None:
        self._shown: dict[bytes, bytes] = {}
        """Credential -> what is shown in its place."""
        self._sought: Sought | None = None

    def __repr__(self) -> str:
        return f"<{len(self._shown)} credentials>"

    def add(self, token: SecretStr, shown: str) -> None:
        """Look for `token` from now on; `shown` stands in its place."""
        secret, name = token.get_secret_value().encode("latin-1", "replace"), shown.encode()
        if self._shown.get(secret) == name:
            return
        self._shown.pop(secret, None)
        self._shown[secret] = name
        while len(self._shown) > self.LIMIT:
            del self._shown[next(iter(self._shown))]
        self._sought = None

    def without(self, data: bytes) -> bytes:
        """`data` without the credentials; itself when none is found."""
        if self._sought is None:
            self._sought = sought(self._shown.items())
        return taken_out(data, self._sought) if data else data

    def text(self, text: str) -> str:
        """The same for a text."""
        data = text.encode("utf-8", "surrogatepass")
        left = self.without(data)
        return text if left is data else left.decode("utf-8", "surrogatepass")


def _without_one(data: bytes, needles: Sought) -> bytes:
    """`data` without the first of the forms that is found in it, wherever it stands; itself when none is."""
    text = data
    beginnings = {form[:_BEGINNING] for form, _ in needles}
    for level in range(_ROUNDS + 1):
        begun = {beginning for beginning in beginnings if text.find(beginning) >= 0}
        for form, shown in needles:
            if form[:_BEGINNING] in begun and form in text:
                if not level:
                    return data.replace(form, shown)
                left = _in_any_writing(form).sub(shown.replace(b"\\", rb"\\"), data)
                # what is written in a way that this does not follow is left as it was meant
                return left if left != data else text.replace(form, shown)
        plain = _WRITTEN.sub(_read, text)
        if plain == text:
            break
        text = plain
    return data


def _forms(secret: bytes) -> Iterator[bytes]:
    """The secret as it is, in hexadecimal, and in base64 at its three places among the bytes around it."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for before in range(3):
        # only the characters that are the same whatever stands before and behind: each says six bits
        whole = base64.b64encode(b"\0" * before + secret + b"\0\0")
        kept = whole[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        yield kept
        if (safe := kept.translate(_URL_SAFE)) != kept:
            yield safe


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _read(found: re.Match[bytes]) -> bytes:
    digits = found[1] or found[2]
    return bytes.fromhex(digits.decode()) if digits else b"/"


def _in_any_writing(form: bytes) -> re.Pattern[bytes]:
    writings = []
    for byte in form:
        itself = rb"\\{0,8}/" if byte == ord("/") else re.escape(bytes([byte]))
        writings.append(rb"(?:%s|(?:\\{1,8}(?:u00|x)|%%(?:25){0,3})(?i:%02x))" % (itself, byte))
    return re.compile(b"".join(writings))
