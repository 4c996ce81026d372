"""The scan for tokens finds each disguise, allows what is allowed, and fails a session; else it would prove nothing."""

import base64
import gzip
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from urllib.parse import quote

import pytest

from copilot_balancer.copilot.encoding import zstd
from support import canary
from support.canary import ALLOWED, CANARIES, forms, look, scan

TOKEN = "gho_Wagtail/0123+4567"
"""Like a token, and none of those that the run's own scan looks for."""
RAW = TOKEN.encode()


def each(template: str) -> bytes:
    return "".join(template.format(byte) for byte in RAW).encode()


DISGUISES = {
    "raw": RAW,
    "in a header": b"Authorization: Bearer " + RAW + b"\r\n",
    "hex": RAW.hex().encode(),
    "HEX": RAW.hex().upper().encode(),
    "percent": each("%{:02X}"),
    "percent, small": each("%{:02x}"),
    "JSON": each("\\u{:04x}"),
    "JSON, capital": each("\\u{:04X}"),
    "JSON in JSON": each("\\\\u{:04x}"),
    "repr": each("\\x{:02x}"),
    "base64": base64.b64encode(RAW),
    "base64, one byte before": base64.b64encode(b"x" + RAW + b"yz"),
    "base64, two bytes before": base64.b64encode(b"xy" + RAW + b"z"),
    "base64 of basic auth": base64.b64encode(b"user:" + RAW),
    "base64url": base64.urlsafe_b64encode(b"?>" + RAW + b"?>"),
    "base64, wrapped": base64.encodebytes(b"x" * 70 + RAW + b"y" * 70),
    "reversed": RAW[::-1],
    "UTF-16": TOKEN.encode("utf-16"),
    "UTF-16, big end first": TOKEN.encode("utf-16-be"),
    "coloured": b"gho_Wag\x1b[31mtail/0123\x1b[0;1m+4567",
    "underlined by backspaces": b"".join(b"%c\x08" % byte for byte in RAW),
    "a link in a terminal": b"gho_Wag\x1b]8;;http://x\x1b\\tail/0123+4567\x1b]8;;\x07",
    "wrapped": b"gho_Wagtail/\r\n   0123+4567",
    "wrapped and coloured": b"gho_Wag\x1b[31mtail/\n  0123\x1b[0m+4567",
    "gzip": gzip.compress(b"a" * 500 + RAW),
    "gzip in a dump": b"12:something;" + gzip.compress(RAW) + b"more",
    "the second gzip": gzip.compress(b"nothing") + gzip.compress(RAW),
    "gzip, cut": gzip.compress(os.urandom(2000) + RAW + os.urandom(2000))[:3000],
    "zlib": zlib.compress(RAW),
    "zlib, fast": zlib.compress(RAW, 1),
    "zstd": b"x" + zstd.compress(b"a" * 500 + RAW),
    "base64 in gzip": gzip.compress(base64.b64encode(RAW)),
    "gzip in gzip": gzip.compress(b"x" + gzip.compress(RAW)),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_each_disguise_is_found(tmp_path, name):
    """A token is found in each form that a program could have written, between other bytes."""
    (tmp_path / "out").write_bytes(b"before" + DISGUISES[name] + b"after")
    found = scan(tmp_path, [TOKEN])
    assert found
    assert all(line.startswith("out: gho_Wagt… ") for line in found)
    assert not any(TOKEN in line for line in found)


@pytest.mark.parametrize("mark", CANARIES)
def test_a_part_of_each_token_is_enough(tmp_path, mark):
    """The marks of the tests' tokens are long enough to be found in every form, and to be met nowhere by chance."""
    assert min(len(form) for form in forms(mark).values()) >= 6
    (tmp_path / "by-chance").write_bytes(base64.b64encode(os.urandom(3_000_000)) + os.urandom(3_000_000))
    assert scan(tmp_path, [mark]) == []


def test_a_token_across_two_pieces(tmp_path, monkeypatch):
    """A file that is longer than one piece is looked at whole, also where two pieces meet."""
    monkeypatch.setattr(canary, "PIECE", 10_000)
    for at in range(9_970, 10_010):
        (tmp_path / str(at)).write_bytes(b"." * at + RAW + b"." * 20_000)
    assert {line.partition(":")[0] for line in scan(tmp_path, [TOKEN])} == set(map(str, range(9_970, 10_010)))


def test_a_bomb_is_not_inflated_whole(tmp_path):
    """Of a compressed member only the beginning is inflated."""
    (tmp_path / "bomb").write_bytes(gzip.compress(RAW + bytes(16 * 1024 * 1024)))
    assert scan(tmp_path, [TOKEN]) == ["bomb: gho_Wagt… raw in gzip"]


def test_what_is_allowed(tmp_path):
    """Where tokens belong they may stand, in a folder of any depth; beside it they may not."""
    allowed = [name.replace("*", "some") for name in ALLOWED]
    for name in [*allowed, "accounts.json-log", "auth.jsonl", "state.json", "ours/state/setup/opencode.after"]:
        path = tmp_path / "deep" / name if "/" not in name or name.startswith("some/") else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(RAW)
    files = {line.partition(":")[0] for line in scan(tmp_path, [TOKEN])}
    assert files == {
        "deep/accounts.json-log",
        "deep/auth.jsonl",
        "deep/state.json",
        "ours/state/setup/opencode.after",
    }


def test_names_and_links(tmp_path):
    """A token in a file's name is found, also of an allowed one; a link is not followed."""
    (tmp_path / "gho_Wagtail").mkdir()
    (tmp_path / "gho_Wagtail" / "accounts.json").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert scan(tmp_path, ["gho_Wagtail"]) == ["gho_Wagtail/accounts.json: gho_Wagt… raw in its name"]


def test_plain_files_are_clean(tmp_path):
    """What holds no token is counted and told clean."""
    (tmp_path / "a").write_bytes(b"a" * 100)
    (tmp_path / "b").write_text(json.dumps({"percent": quote("/ +"), "zlib": "x\x9c", "gzip": "\x1f\x8b\x08"}))
    seen = look(tmp_path, [TOKEN])
    assert (seen.files, seen.findings) == (2, [])
    assert seen.size >= 100


# --- a whole session --------------------------------------------------------------------------------------------------

SESSION = """
import pytest
def test_writes(tmp_path):
    tmp_path.joinpath("{name}").write_text("gho_x-can" + "ary-1")
def test_prints():
    print({printed})
def test_fails():
    assert {passes}
"""


@pytest.mark.parametrize(
    ("name", "printed", "passes", "code", "last", "said"),
    [
        pytest.param("accounts.json", "1", True, 0, "3 passed", "canaries: 0 found", id="clean"),
        pytest.param("state.json", "1", True, 1, "3 passed, 1 error", "state.json: -canary… raw", id="a file"),
        pytest.param(
            "accounts.json", "'gho_C' + 'anaryX'", True, 1, "3 passed, 1 error", "Captured stdout call", id="printed"
        ),
        pytest.param("state.json", "1", False, 1, "1 failed, 2 passed, 1 error", "state.json", id="a failure besides"),
    ],
)
def test_a_session(tmp_path, name, printed, passes, code, last, said):
    """A token in what a run wrote or printed is an error of the session; pytest's own line stays the last one."""
    (tmp_path / "test_it.py").write_text(SESSION.format(name=name, printed=printed, passes=passes))
    there = Path(__file__).parent
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "canary", "-p", "no:cacheprovider", "-ra", "--basetemp", "base"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(there), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    # what this session wrote on purpose is not for the scan of the whole run
    for path in tmp_path.rglob("*.json"):
        path.unlink()
    output = ran.stdout.splitlines()
    assert ran.returncode == code, ran.stdout
    assert f"{last} in " in output[-1]
    assert any(said in line for line in output), ran.stdout
    assert "gho_x-can" + "ary-1" not in ran.stdout
