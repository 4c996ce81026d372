"""No token in anything that a proxy writes, whatever happens: logs, flows, dumps, HAR, state.

What is searched: every file that a run made, in every encoding in which a token could hide there.
"""

import base64
import contextlib
import json
import sys
import zlib
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from copilot_balancer.fake.answers import CutMid, Drop, FakeAccount, Ok, Refuse, StreamError, limited
from end_to_end.test_failover import tunnel
from proxy.request.test_websocket import Socket
from support.proxies import CLIENT, PERSONAL, SPARE, SUPPORT, WORK, three_accounts, until

TOKENS = (WORK, PERSONAL, SPARE, CLIENT)


def disguises(token: str) -> dict[str, bytes]:
    """Every form in which a token is looked for."""
    raw = token.encode()
    found = {"raw": raw, "hex": raw.hex().encode(), "percent": quote(token, safe="").encode()}
    for shift in range(3):
        # without what depends on the neighbours: the same bytes at each of the three alignments
        found[f"base64+{shift}"] = base64.b64encode(b"x" * shift + raw).rstrip(b"=")[4:-2]
    return found


def inflated(data: bytes) -> bytes:
    """What is inside the zlib and gzip streams of a file."""
    out = b""
    for magic in (b"\x1f\x8b\x08", b"x\x9c", b"x\xda"):
        start = 0
        while (start := data.find(magic, start)) >= 0:
            with contextlib.suppress(zlib.error):
                out += zlib.decompressobj(47).decompress(data[start:], 1 << 20)
            start += 1
    return out


def leaks(folder: Path) -> list[str]:
    """Where a token stands in the files below `folder`, but for accounts.json, where it belongs."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "accounts.json":
            data = path.read_bytes()
            data += inflated(data)
            found += [
                f"{path.relative_to(folder)}: {token[:8]}… {how}"
                for token in TOKENS
                for how, form in disguises(token).items()
                if form in data
            ]
    return found


def test_the_scan_finds_what_it_looks_for(tmp_path):
    """The scan is worth something: it finds each disguise, also inside a compressed file."""
    forms = disguises(WORK)
    for name, form in forms.items():
        (tmp_path / name).write_bytes(b"..." + form + b"...")
    (tmp_path / "gz").write_bytes(b"!" + zlib.compress(b"a" + WORK.encode()))
    (tmp_path / "accounts.json").write_text(WORK)
    basic = base64.b64encode(f"user:{WORK}".encode())
    (tmp_path / "basic").write_bytes(basic)
    files = {leak.split(":")[0] for leak in leaks(tmp_path)}
    assert files == {*forms, "gz", "basic"}


def test_no_token_in_any_output(start, fake):
    """Failover, errors, echoes, cut streams and exceptions of ours: no token in any file that the proxy wrote."""
    fake.accounts[CLIENT] = FakeAccount("client")
    proxy = start(
        *("-s", str(SUPPORT / "break_hooks.py"), "-w", "flows.mitm", "--set", "hardump=flows.har"),
        *("--set", "flow_detail=4", "--set", "termlog_verbosity=debug"),
    )
    echo = f"you sent {WORK} and {PERSONAL} and {SPARE}"

    def everywhere(answer):
        for token in (WORK, PERSONAL, SPARE):
            fake.accounts[token].default = answer

    assert proxy.post().status_code == 200
    fake.accounts[WORK].default = limited(1)
    assert proxy.post().status_code == 200  # failed over
    everywhere(Ok(text=f"echo {WORK} {PERSONAL} {SPARE} done"))
    assert proxy.post().status_code == 200  # an echo inside a stream that is kept
    everywhere(Refuse(400, "invalid_request_body", echo, headers=(("x-echo", echo),)))
    assert proxy.post().status_code == 400  # an echo in a refusal
    everywhere(Ok())
    for where, status in (("choose", 502), ("head", 502), ("end", 200), ("send", 502)):
        fake_models = [*fake.accounts[WORK].models, f"break-{where}"]
        for token in (WORK, PERSONAL, SPARE):
            fake.accounts[token].models = tuple(fake_models)
        assert proxy.post(model=f"break-{where}").status_code == status
    everywhere(Refuse(500, "", echo))
    assert proxy.post(model="break-judge").status_code == 502
    everywhere(CutMid(2))
    with pytest.raises(httpx.HTTPError):
        proxy.post()
    everywhere(Drop("rst"))
    assert proxy.post().status_code == 502
    with proxy.client() as client:
        client.post(
            "https://api.githubcopilot.com/mcp/", json={}, headers={"x-api-key": CLIENT, "cookie": f"a={CLIENT}"}
        )
    assert fake.seen[-1].header("x-api-key") == CLIENT
    until(lambda: len(proxy.lines()) >= 8, "the lines")
    log = proxy.stop()

    assert proxy.store.accounts_path.exists()
    assert leaks(proxy.folder) == []
    assert log.count("incident") >= 5
    assert (proxy.folder / "flows.mitm").stat().st_size > 1000
    entries = json.loads((proxy.folder / "flows.har").read_text())["log"]["entries"]
    assert len(entries) >= 12
    shown = json.dumps(entries)
    for label in ("work", "personal", "spare"):
        assert f"[account:{label}]" in shown
    assert "Bearer [client]" in shown


def test_no_token_that_an_answer_disguises(start, fake):
    """An upstream that echoes a token in another writing, over HTTP or in a frame: it is in no file either."""
    fake.accounts[WORK].websocket = True
    proxy = start("-w", "flows.mitm", "--set", "hardump=flows.har", accounts=three_accounts()[:1])
    escaped = "".join(f"\\u{ord(char):04x}" for char in WORK)
    echo = f"echo_{base64.b64encode(f'user:{WORK}'.encode()).decode()}_{quote(WORK)}_{escaped}_{WORK.encode().hex()}"
    fake.accounts[WORK].default = Ok(text=echo)
    assert proxy.post(stream=True).status_code == 200
    with tunnel(proxy) as tls:
        frames = Socket(tls).ask(input="hi")
    assert WORK not in json.dumps(frames)
    fake.accounts[WORK].default = Refuse(400, "invalid_request_body", echo, headers=(("x-echo", echo),))
    assert proxy.post().status_code == 400
    until(lambda: len(proxy.lines()) >= 3, "the lines")
    proxy.stop()

    assert leaks(proxy.folder) == []
    kept = (proxy.folder / "flows.mitm").read_bytes()
    assert kept.count(b"echo_") >= 4  # the answers are there, in HTTP and in frames
    assert escaped.encode() not in kept
    assert escaped.replace("\\", "\\\\").encode() not in kept
    assert b"[account:work]" in kept


def _edited(label, /, **changes):
    """Every account with this label is changed, or with no changes removed."""

    def edit(decisions):
        kept = [one.model_copy(update=changes) if one.label == label else one for one in decisions.accounts]
        left = kept if changes else [one for one in kept if one.label != label]
        return decisions.model_copy(update={"accounts": tuple(left)})

    return edit


ECHO = f"echo_{WORK}_{quote(WORK)}_{WORK.encode().hex()}"


@pytest.mark.parametrize(
    ("edit", "answer", "stream"),
    [
        pytest.param(_edited("work", token=SecretStr("gho_new-canary-0009")), Ok(ECHO), True, id="token, a stream"),
        pytest.param(_edited("work", token=SecretStr("gho_new-canary-0009")), Ok(ECHO), False, id="token, a document"),
        pytest.param(_edited("work"), Ok(ECHO), True, id="removed, a stream"),
        pytest.param(
            _edited("work"),
            Refuse(400, "invalid_request_body", ECHO, headers=(("x-echo", ECHO), ("location", f"/?{ECHO}"))),
            False,
            id="removed, a refusal",
        ),
        pytest.param(
            _edited("work", label="renamed"), Ok(ECHO, headers=(("x-echo", ECHO),)), True, id="renamed, a head"
        ),
        pytest.param(_edited("work", enabled=False), StreamError("x", ECHO, after=2), True, id="off, a late error"),
    ],
)
def test_an_account_is_edited_while_its_response_is_under_way(start, fake, edit, answer, stream):
    """A token that was sent and is no account's any more is still in no log, flow or dump."""
    proxy = start(
        *("-w", "flows.mitm", "--set", "hardump=flows.har", "--set", "flow_detail=4"), accounts=three_accounts()[:1]
    )

    def meanwhile(_seen):
        ready = proxy.log.count("copilot: ready on")
        proxy.store.edit_decisions(edit)
        until(lambda: proxy.log.count("copilot: ready on") > ready, "the edit to be in force")
        return answer

    fake.accounts[WORK].default = meanwhile
    got = proxy.post(stream=stream)
    assert [seen.token for seen in fake.seen] == [WORK]
    until(lambda: len(proxy.lines()) == 1, "the line")
    proxy.stop()
    assert b"echo_" in (proxy.folder / "flows.mitm").read_bytes()
    assert leaks(proxy.folder) == []
    assert WORK not in str(got.headers)


def test_no_token_in_the_process(proxy):
    """A token stands neither in the arguments nor in the environment of the proxy."""
    assert proxy.post().status_code == 200
    if sys.platform == "linux":
        process = Path(f"/proc/{proxy.process.pid}")
        told = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
        assert not any(token.encode() in told for token in TOKENS)
