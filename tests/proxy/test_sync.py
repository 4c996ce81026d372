"""What a running proxy does when the disk does not do as it should."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable

import pytest
from mitmproxy.addons.next_layer import NextLayer as NextLayerAddon
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.proxy.addon import CopilotBalancer
from copilot_balancer.proxy.sync import GONE_LOOKS
from copilot_balancer.rules.accounts import Decisions
from copilot_balancer.store.ledger import Ledger
from copilot_balancer.store.store import Paths, Store
from support.proxies import three_accounts

ACCOUNTS = Decisions(accounts=three_accounts(), terms_accepted_at=1.0)


def look(tmp_path, monkeypatch, test: Callable[[CopilotBalancer, Callable[[int], Awaitable[None]]], Awaitable[None]]):
    """Run `test` with an addon whose store holds three accounts, and a function that lets it look at its files."""
    Store(tmp_path / "state").edit_decisions(lambda _: ACCOUNTS)
    monkeypatch.setattr("copilot_balancer.proxy.sync.LOOK_EVERY", 0.0)

    async def run() -> None:
        addon = CopilotBalancer(Paths(tmp_path / "state", tmp_path / "config"), tmp_path)
        with taddons.context(Proxyserver(), NextLayerAddon()) as tctx:
            tctx.master.addons.add(addon)
            tctx.configure(addon)
            ticks = 0

            def tick(_now: float) -> None:
                nonlocal ticks
                ticks += 1

            addon.sync.journal.tick = tick

            async def looks(times: int) -> None:
                """Each look says that it is one; the last of them has ended when the next one begins."""
                watch, until = asyncio.create_task(addon.sync.watch()), ticks + times + 1
                while ticks < until:
                    await asyncio.sleep(0)
                watch.cancel()

            await test(addon, looks)

    asyncio.run(run())


def test_accounts_that_are_gone_for_a_moment(tmp_path, monkeypatch, caplog):
    """An editor that saves by removing and writing takes no account away; it is said what goes on."""
    caplog.set_level("INFO")

    async def test(addon, looks):
        path = addon.sync.store.accounts_path
        raw = path.read_bytes()
        path.unlink()
        await looks(GONE_LOOKS - 1)
        assert addon.live.decisions == ACCOUNTS
        assert "accounts.json is being replaced" in caplog.text
        path.write_bytes(raw)
        path.chmod(0o600)
        await looks(2)
        assert addon.live.decisions == ACCOUNTS

    look(tmp_path, monkeypatch, test)


def test_accounts_that_stay_away(tmp_path, monkeypatch):
    """After a second a removed file counts: the user has no accounts any more."""

    async def test(addon, looks):
        addon.sync.store.accounts_path.unlink()
        await looks(GONE_LOOKS + 2)
        assert addon.live.decisions == Decisions()

    look(tmp_path, monkeypatch, test)


def test_a_disk_that_is_full(tmp_path, monkeypatch, caplog):
    """However often it is tried to write, a full disk is one warning, and its end another."""

    async def test(addon, looks):
        real = os.write

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for number in range(8):
                addon.live.pool.version += 1
                addon.live.ownership.learn([f"{number:04}"], "github.com:1", addon.live.now() + 1e6)
                addon.sync.journal.events.put({"id": str(number)})
                await looks(25)
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len([line for line in said if "No space left" in line]) == 1, said
        assert os.write is real
        addon.live.pool.version += 1
        await looks(45)
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert said[-1] == "copilot: the store can be used again (it was: No space left on device)"
        assert len(said) == 2

    look(tmp_path, monkeypatch, test)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can take a folder's owner away")
def test_a_folder_that_is_no_longer_ours(tmp_path, monkeypatch, caplog):
    """What is refused for another reason is said once as well; the accounts stay."""

    async def test(addon, looks):
        os.chown(addon.sync.store.folder, 1, 1)
        addon.live.pool.version += 1
        await looks(50)
        os.chown(addon.sync.store.folder, 0, 0)
        assert caplog.text.count("it belongs to another user") == 1
        assert addon.live.decisions == ACCOUNTS

    look(tmp_path, monkeypatch, test)


def test_quotas_are_noted(tmp_path, monkeypatch):
    """What answers say of a quota is kept in the ledger, for the dashboard."""

    async def test(addon, looks):
        now = addon.live.now()
        addon.live.pool.learn_quota("github.com:1", {"premium": QuotaWindow(42.0, seen_at=now)})
        await looks(25)
        (point,) = Ledger(tmp_path / "state").quota(0.0)
        assert (point.account_id, point.name, point.percent_left) == ("github.com:1", "premium", 42.0)
        assert now - 901 <= point.at <= now + 1

    look(tmp_path, monkeypatch, test)
