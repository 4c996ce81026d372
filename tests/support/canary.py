"""The last step of a test run: no token of any test stands in anything that the run wrote.

Every token of the tests holds one of `CANARIES`, so that even a part of one is found: as it is, and in the forms in
which a program could have written it. At the end of the session this plugin looks through every file below pytest's
base folder (the proxies' logs, state.json, events.jsonl, decisions.jsonl, dumps, HAR files ...) and through what the
tests printed. A finding fails the session.

Not seen: what was encrypted, compressed with brotli (it has no mark to be found by), or Huffman-coded for HTTP/2.
"""

import base64
import contextlib
import fnmatch
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from copilot_balancer.copilot.encoding import zstd

CANARIES = ("-canary", "Canary", "sku=fake;proxy-ep")
"""``gho_work-canary-0001``, ``gho_CanaryWork...``, and what the fake gives in exchange for one."""

ALLOWED: Mapping[str, str] = {
    "accounts.json": "the store's own file",
    "accounts.json.*": "the store's own file, as it is written or was put aside",
    "victim": "where a link in the place of accounts.json leads to (test_store)",
    "auth.json": "opencode's own login",
    "copilot-cli/pkg/*": "the Copilot CLI's own program, which unpacks itself there and speaks of canaries",
    "config.json": "the Copilot CLI's own login",
    "apps.json": "the editors' own login",
    "hosts.json": "the editors' own login, as it was before",
    "hosts.yml": "gh's own login",
    "*/state/setup/*.before": "a client's own login file, kept by `setup` to be given back",
    "test_gh_keyring*/bin/gh": "in the place of gh's keyring (test_logins)",
    "test_the_scan_finds_what_it_lo*/*": "planted, to be found (test_secrets)",
}
"""File name, or path below the base folder, with wildcards -> why tokens may stand there."""

PIECE = 16 * 1024 * 1024
"""Bytes of a file that are looked at together; two pieces overlap."""
_OVERLAP = 4096
INFLATED = 4 * 1024 * 1024
"""Bytes that are inflated of one compressed member."""
_MEMBERS = 2000
"""Compressed members that are opened in one piece of a file."""
_DEPTH = 2
"""A compressed member inside a compressed member is opened."""

_ZLIB = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
_ZSTD = b"\x28\xb5\x2f\xfd"
_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])|\x08|\x00")
_WHITE = b" \t\r\n"


def forms(canary: str) -> dict[str, bytes]:
    """Every form in which a canary is looked for."""
    raw = canary.encode()
    found = {"raw": raw, "reversed": raw[::-1], "utf-16": canary.encode("utf-16-le")[:-1], "hex": raw.hex().encode()}
    found["HEX"] = found["hex"].upper()
    for name, prefix in (("percent", "%"), ("backslash x", r"\x"), ("JSON", r"\u00"), ("JSON in JSON", r"\\u00")):
        for letters in ("x", "X"):
            found[f"{name} {letters}"] = "".join(f"{prefix}{byte:02{letters}}" for byte in raw).encode()
    for shift in range(3):
        # the characters that do not depend on the neighbours: base64 writes 6 bits a character
        whole = base64.b64encode(b"\0" * shift + raw + b"\0\0")
        kept = whole[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        found[f"base64+{shift}"] = kept
        found[f"base64url+{shift}"] = kept.translate(bytes.maketrans(b"+/", b"-_"))
    distinct: dict[bytes, str] = {}
    for name, form in found.items():
        distinct.setdefault(form, name)
    return {name: form for form, name in distinct.items()}


def _found(data: bytes, needles: Mapping[str, Mapping[str, bytes]], depth: int) -> Iterator[str]:
    for canary, found in needles.items():
        shown = f"{canary[:8]}…"
        yield from (f"{shown} {how}" for how, form in found.items() if form in data)
    for how, changed in _joined(data):
        for canary, found in needles.items():
            if found["raw"] in changed and found["raw"] not in data:
                yield f"{canary[:8]}… {how}"
    for how, inner in _members(data) if depth else ():
        yield from (f"{one} in {how}" for one in _found(inner, needles, depth - 1))


def _joined(data: bytes) -> Iterator[tuple[str, bytes]]:
    """`data` without what a terminal or a wrapped line may have put between two characters."""
    plain = data
    if b"\x1b" in data or b"\x08" in data:
        plain = _ANSI.sub(b"", data)
        yield "split by terminal codes", plain
    yield "split by white space", plain.translate(None, _WHITE)


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What is inside the gzip, zlib and zstd streams of `data`, wherever they begin; each bounded."""
    for number, found in enumerate(_ZLIB.finditer(data)):
        if number == _MEMBERS:
            break
        with contextlib.suppress(zlib.error):
            opened = zlib.decompressobj(47)
            # a cut stream tells what came before the cut
            yield "gzip" if found[0][0] == 0x1F else "zlib", opened.decompress(data[found.start() :], INFLATED)
    start = -1
    while (start := data.find(_ZSTD, start + 1)) >= 0:
        with contextlib.suppress(zstd.ZstdError):
            yield "zstd", zstd.ZstdDecompressor().decompress(data[start:], INFLATED)


@dataclass
class Scan:
    """What was looked at, and what was found."""

    files: int = 0
    size: int = 0
    findings: list[str] = field(default_factory=list)


def look(folder: Path, canaries: Iterable[str] = CANARIES, allowed: Iterable[str] = ALLOWED) -> Scan:
    """Look through every regular file below `folder`, and at its name; links are not followed."""
    needles = {name: forms(name) for name in canaries}
    may = re.compile("|".join(f"(?:.*/)?{fnmatch.translate(one)}" for one in allowed) or "(?!)", re.DOTALL)
    seen = Scan()
    for path, name in _files(str(folder)):
        how = list(_found(os.fsencode(name), needles, 0))
        seen.findings += [f"{name}: {one} in its name" for one in dict.fromkeys(how)]
        if may.fullmatch(name):
            continue
        seen.files += 1
        how = []
        # a file may go, or be closed to us, while we look
        with contextlib.suppress(OSError):
            for data in _pieces(path):
                seen.size += len(data)
                how += _found(data, needles, _DEPTH)
        seen.findings += [f"{name}: {one}" for one in dict.fromkeys(how)]
    return seen


def scan(folder: Path, canaries: Iterable[str], allowed: Iterable[str] = ALLOWED) -> list[str]:
    """Where and how one of `canaries` stands in the files below `folder`; files that `allowed` names may hold them."""
    return look(folder, canaries, allowed).findings


def _files(folder: str, below: str = "") -> Iterator[tuple[str, str]]:
    """Each regular file: where it is, and its path below the first folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield entry.path, f"{below}{entry.name}"


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        data = file.read(PIECE)
        while data:
            yield data
            more = file.read(PIECE - _OVERLAP)
            data = data[-_OVERLAP:] + more if more else b""


# --- the plugin -------------------------------------------------------------------------------------------------------


class _Watch:
    """What this session printed, and where it wrote."""

    def __init__(self) -> None:
        self.printed: list[str] = []
        self.line = ""


_WATCH = pytest.StashKey[_Watch]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to collect."""
    config.stash[_WATCH] = _Watch()
    config.pluginmanager.register(_Printed(config.stash[_WATCH]), "canary-printed")


class _Printed:
    """Looks at what each test printed and logged; a failure's own text may quote a test's constants."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        self._needles = {name: forms(name) for name in CANARIES}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for title, text in report.sections:
            found = _found(text.encode("utf-8", "surrogatepass"), self._needles, 0)
            self._watch.printed += [f"{report.nodeid}, {title}: {one}" for one in dict.fromkeys(found)]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Look through everything that the run wrote; a finding is an error of the session."""
    config = session.config
    watch = config.stash[_WATCH]
    # public only as a fixture, and a session that used no tmp_path has no folder
    folder = config._tmp_path_factory._basetemp  # type: ignore[attr-defined]
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or hasattr(config, "workerinput"):
        return  # one of several processes: the first one looks through the folders and words of all
    began = time.monotonic()
    seen = look(folder) if folder is not None else Scan()
    findings = [*dict.fromkeys(watch.printed), *seen.findings]
    watch.line = (
        f"canaries: {len(findings)} found in {seen.files:,} files, {seen.size / 1e6:.0f} MB; "
        f"{time.monotonic() - began:.1f} s"
    )
    if findings:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.stats.setdefault("error", []).append(_report(findings, folder))


def _report(findings: list[str], folder: Path | None) -> pytest.TestReport:
    """An error as pytest's own: it is told in the summary and counted in the last line."""
    more = [f"... and {len(findings) - 100} more"] if len(findings) > 100 else []
    text = "\n".join([f"a token of the tests was written below {folder}:", *findings[:100], *more])
    where = ("tests/canary.py", 0, "the canary scan")
    return pytest.TestReport("the canary scan", where, {}, "failed", text, "teardown")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was looked at, before pytest's own last line."""
    if config.stash[_WATCH].line:
        terminalreporter.write_line(config.stash[_WATCH].line)
