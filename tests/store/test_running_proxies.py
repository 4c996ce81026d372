"""Which proxies run, told by files whose lock the running ones hold."""

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from copilot_balancer.errors import StoreBusy, StoreError
from copilot_balancer.store import running_proxies
from copilot_balancer.store.folder import Folder, Refusal
from copilot_balancer.store.running_proxies import RunningProxy, RunningProxyFile, read_live

PROXY = RunningProxy(
    pid=4242,
    began=1000.0,
    listening=("127.0.0.1:8080", "[::1]:8080"),
    version="0.1.0",
    in_flight={"github.com:1": 2},
    requests=3,
    strategy="hybrid",
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


def files(folder):
    return sorted(path.name for path in (folder / "live").glob("*.json*"))


def test_it_is_seen_and_gone(folder):
    """A proxy is seen as it last wrote itself down, until it ends."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    assert read_live(folder) == (PROXY,)

    ours.write(busier := replace(PROXY, in_flight={"github.com:1": 1, "github.com:2": 1}, off="ssl_insecure is on"))
    assert read_live(folder) == (busier,)

    ours.close()
    assert read_live(folder) == ()
    assert files(folder) == []
    ours.close()


def test_nobody(folder):
    """Where no proxy ever ran there is none, and nothing is made by looking."""
    assert read_live(folder) == ()
    assert not folder.exists()
    RunningProxyFile(folder).close()
    assert not folder.exists()


def test_it_ends_where_nothing_is(folder, tmp_path):
    """A proxy ends well when somebody has removed the folder."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    (folder / "live").rename(tmp_path / "elsewhere")
    ours.close()
    assert read_live(folder) == ()


def test_written_only_when_changed(folder, monkeypatch):
    """What others see already is not written again."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    monkeypatch.setattr(Folder, "put", lambda *_: pytest.fail("it wrote"))
    ours.write(replace(PROXY))
    ours.close()


def test_for_the_owner_alone(folder):
    """Files are 0600 and the folder 0700, whatever the umask."""
    old = os.umask(0)
    try:
        ours = RunningProxyFile(folder)
        ours.write(PROXY)
    finally:
        os.umask(old)
    assert (folder / "live").stat().st_mode & 0o777 == 0o700
    for path in (folder / "live").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    ours.close()


def test_several(folder):
    """Each proxy has a number of its own; the oldest is told first; a number is used again."""
    one, two, three = RunningProxyFile(folder), RunningProxyFile(folder), RunningProxyFile(folder)
    one.write(replace(PROXY, pid=1, began=30.0))
    two.write(replace(PROXY, pid=2, began=10.0))
    assert [proxy.pid for proxy in read_live(folder)] == [2, 1]

    one.close()
    three.write(replace(PROXY, pid=3, began=40.0))
    assert [proxy.pid for proxy in read_live(folder)] == [2, 3]
    assert files(folder) == ["1.json", "2.json"]
    two.close()
    three.close()


def test_too_many(folder, monkeypatch):
    """Beyond the bound a proxy is not told about, and says so."""
    monkeypatch.setattr(running_proxies, "MAX_PROXIES", 1)
    first = RunningProxyFile(folder)
    first.write(PROXY)
    with pytest.raises(StoreBusy, match="1 proxies run"):
        RunningProxyFile(folder).write(PROXY)
    first.close()


KILLED = """
import os, sys
from pathlib import Path
from copilot_balancer.store.running_proxies import RunningProxy, RunningProxyFile
ours = RunningProxyFile(Path(sys.argv[1]))
ours.write(RunningProxy(os.getpid(), 1.0, (), "0"))
print("written", flush=True)
sys.stdin.read()
"""


def test_a_killed_proxy_is_forgotten(folder):
    """What a killed proxy left is neither told nor kept, though its process id may live on in another program."""
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"written"
        assert [proxy.pid for proxy in read_live(folder)] == [child.pid]
        child.kill()
    assert files(folder) == ["1.json"]

    assert read_live(folder) == ()
    assert files(folder) == []


def test_what_a_killed_writer_left(folder):
    """A temporary file of a killed writer is removed by the next one."""
    (folder / "live").mkdir(0o700, parents=True)
    folder.chmod(0o700)
    (folder / "live" / "1.json.new").write_text("half")
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    assert files(folder) == ["1.json"]
    ours.close()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "began": 1, "listening": [], "version": ""}', "\xff"],
)
def test_garbage(folder, content):
    """A file that is not as we write it tells nothing."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    (folder / "live" / "1.json").write_text(content)
    assert read_live(folder) == ()
    ours.close()


def test_a_newer_version(folder):
    """What a newer version tells besides is passed over."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    path = folder / "live" / "1.json"
    path.write_text(path.read_text().replace('"pid"', '"mood": "good", "pid"'))
    assert read_live(folder) == (PROXY,)
    ours.close()


def test_a_link(folder, tmp_path):
    """No link is followed."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    path = folder / "live" / "1.json"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert read_live(folder) == ()
    ours.close()


def test_the_folder_is_removed(folder):
    """When somebody removes the folder the proxy is told about again from its next change but one."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    for path in (folder / "live").iterdir():
        path.unlink()
    (folder / "live").rmdir()
    ours.write(replace(PROXY, requests=4))
    ours.write(replace(PROXY, requests=4))
    assert [proxy.requests for proxy in read_live(folder)] == [4]
    ours.close()


def test_others_may_use_the_folder(folder):
    """A folder that others may use is refused, by name and with a remedy; no lock stays behind."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    ours.close()
    (folder / "live").chmod(0o755)
    with pytest.raises(StoreError, match=r"live: others may use it.*chmod 700"):
        read_live(folder)
    with pytest.raises(StoreError, match="others may use it"):
        RunningProxyFile(folder).write(PROXY)
    (folder / "live").chmod(0o700)
    again = RunningProxyFile(folder)
    again.write(PROXY)
    assert files(folder) == ["1.json"]
    again.close()


def test_the_disk_is_full(folder, monkeypatch):
    """A file that cannot be written is an error, and is written the next time."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)
    full = Refusal("writing it failed (No space left on device)", "free some space on this disk")
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "put", lambda *_: full)
        with pytest.raises(StoreError, match=r"1\.json: writing it failed"):
            ours.write(replace(PROXY, requests=9))
    ours.write(replace(PROXY, requests=9))
    assert read_live(folder)[0].requests == 9
    ours.close()


def test_it_cannot_be_made(folder, monkeypatch):
    """A folder that cannot be made is an error with a remedy."""
    monkeypatch.setattr(running_proxies, "make", lambda _: Refusal("making it failed", "try again"))
    with pytest.raises(StoreError, match="making it failed"):
        RunningProxyFile(folder).write(PROXY)


def test_it_cannot_be_removed(folder, monkeypatch):
    """A file that cannot be removed is an error, and the lock is let go all the same."""
    ours = RunningProxyFile(folder)
    ours.write(PROXY)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        with pytest.raises(StoreError, match="removing it failed"):
            ours.close()
    assert read_live(folder) == ()
    assert files(folder) == []


def test_a_disk_without_locks(folder, monkeypatch):
    """On a file system without locks no proxy is told about, and it is said why."""
    monkeypatch.setattr(running_proxies, "held", lambda *_: Refusal("it cannot be locked", "put it elsewhere"))
    with pytest.raises(StoreError, match=r"1\.lock: it cannot be locked. Remedy: put it elsewhere"):
        RunningProxyFile(folder).write(PROXY)


def test_the_folder_is_removed_meanwhile(folder, monkeypatch):
    """A folder that goes while a proxy takes its number, or before it ends, is no error."""
    ours, real = RunningProxyFile(folder), running_proxies.held

    def remove(path, timeout):
        lock = real(path, timeout)
        shutil.rmtree(folder / "live")
        return lock

    with monkeypatch.context() as patched:
        patched.setattr(running_proxies, "held", remove)
        ours.write(PROXY)
    assert read_live(folder) == ()
    ours.write(PROXY)
    assert read_live(folder) == (PROXY,)
    shutil.rmtree(folder / "live")
    ours.close()
    assert read_live(folder) == ()


def test_writers_at_once(folder):
    """Proxies that start in one moment get a number each."""
    proxies = [RunningProxyFile(folder) for _ in range(8)]
    barrier = threading.Barrier(len(proxies))

    def begin(number, one):
        barrier.wait(10)
        one.write(replace(PROXY, pid=number))

    threads = [threading.Thread(target=begin, args=pair) for pair in enumerate(proxies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert {proxy.pid for proxy in read_live(folder)} == set(range(8))
    for one in proxies:
        one.close()
