"""The settings: each file may set what it may, and a wrong value is one clear sentence."""

import os
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_balancer import config
from copilot_balancer.config import FILE_ONLY, PROJECT_KEYS, Option, Settings, load, options, policy
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules import ranking, types
from copilot_balancer.rules.accounts import Decisions, RouteTable
from copilot_balancer.rules.types import Policy, Route


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / ("config.toml" if folder.name == "home" else ".copilot-balancer.toml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(folder: Path | None, project: Path | None = None, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        load(folder or Path("/nonexistent"), project, overrides or {})
    sentence = str(caught.value)
    assert sentence.isprintable()
    return sentence


# --- which one counts -------------------------------------------------------------------------------------------------


def test_nothing_set(home, project):
    """Without files and options every setting has its default, and says so."""
    for where in (None, project):
        loaded = load(home / "missing", where, {})
        assert loaded.settings == Settings()
        assert set(loaded.sources.values()) == {"default"}
        assert set(loaded.sources) == set(Settings.model_fields)
        assert loaded.warnings == ()


def test_the_defaults_are_the_pools(home):
    """A pool without settings and a pool with the default settings do the same."""
    assert policy(load(home, None, {}).settings, Decisions()) == Policy()


def test_the_nearer_one_counts(home, project):
    """Defaults < config.toml < the project's file < options, for each setting by itself."""
    mine = write(home, 'strategy = "sticky"\nlog = "errors"\nfence = "work"\nmax_attempts = 2\n')
    theirs = write(project, 'log = "none"\nfence = "Acme (EU)"\n')

    loaded = load(home, project, {"fence": "home", "copilot_wait": "2.5", "keep_flows": 9, "deadline": None})

    found = loaded.settings
    assert (found.strategy, found.log, found.fence, found.max_attempts, found.wait) == (
        "sticky",
        "none",
        "home",
        2,
        2.5,
    )
    assert (found.keep_flows, found.deadline) == (9, 300.0)
    assert loaded.sources["strategy"] == loaded.sources["max_attempts"] == str(mine)
    assert loaded.sources["log"] == str(theirs)
    assert loaded.sources["fence"] == loaded.sources["wait"] == loaded.sources["keep_flows"] == "--set"
    assert loaded.sources["deadline"] == "default"
    assert load(home, project, {}).settings.fence == "acme-eu"
    assert load(home, None, {}).settings.fence == "work"


def test_setting_the_default_is_setting_it(home):
    """An option that says the default still wins over a file that says something else."""
    write(home, 'strategy = "sticky"')

    loaded = load(home, None, {"strategy": "hybrid"})

    assert loaded.settings.strategy == "hybrid"
    assert loaded.sources["strategy"] == "--set"


def test_settings_do_not_change():
    """Settings are read once and then stay."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().strategy = "sticky"


EVERYTHING = """
strategy = "quota"
affinity = 0
failover = ["limit"]
max_attempts = 10
deadline = 1.5
wait = 3
retry_after_cap = 30
retry_ambiguous = false
first_byte_timeout = 120
idle_timeout = 0
keep_unknown = false
websocket = "refuse"
model_ttl = 60
log = "switches"
keep_bodies = 0
keep_flows = 0
record_decisions = true
fence = "work"
allow_remote = true
upstream_proxy = "http://proxy.acme.example:3128"
ca = "/etc/acme.pem"
hosts = ["https://Acme.ghe.com/"]
oauth_client_id = "Iv1.b507a08c87ecfe98"

[[routes]]
models = ["gpt-5*"]
accounts = ["Work", "home"]
fallback = ["gpt-4.1"]

[[routes]]
models = ["*"]
enabled = false

[[outcomes]]
status = [403, "stream"]
code = "surprise*"
text = "gated * moment"
header = { X-Gate = "closed" }
reason = "limit"
action = "next-once"
rest = 90

[preseed]
Work = ["claude-*", "gpt-5"]
home = []
"""


def test_every_setting_can_be_written(home):
    """config.toml can hold every setting there is; labels and domains are normalised."""
    path = write(home, EVERYTHING)

    loaded = load(home, None, {})

    assert loaded.sources == dict.fromkeys(Settings.model_fields, str(path))
    assert policy(loaded.settings, Decisions()) == Policy(
        strategy="quota",
        affinity=0.0,
        failover=frozenset({"limit"}),
        max_attempts=10,
        deadline=1.5,
        wait=3.0,
        retry_after_cap=30.0,
        retry_ambiguous=False,
        model_ttl=60.0,
        fence="work",
        routes=(Route(("gpt-5*",), ("work", "home"), ("gpt-4.1",)), Route(("*",), enabled=False)),
        preseed={"work": ("claude-*", "gpt-5"), "home": ()},
    )
    rest = loaded.settings.model_dump(include={"first_byte_timeout", "idle_timeout", "websocket", "log", "hosts"})
    assert rest == {
        "first_byte_timeout": 120.0,
        "idle_timeout": 0.0,
        "websocket": "refuse",
        "log": "switches",
        "hosts": ("acme.ghe.com",),
    }
    assert loaded.settings.oauth_client_id == "Iv1.b507a08c87ecfe98"
    (rule,) = loaded.settings.outcomes
    assert (rule.status, rule.code, rule.header, rule.rest) == (
        (403, "stream"),
        "surprise*",
        {"X-Gate": "closed"},
        90.0,
    )
    assert (loaded.settings.keep_bodies, loaded.settings.keep_flows) == (0, 0)
    assert (loaded.settings.upstream_proxy, loaded.settings.ca) == ("http://proxy.acme.example:3128", "/etc/acme.pem")
    assert loaded.settings.record_decisions
    assert loaded.settings.allow_remote


OVERRIDES = [
    ("retry_ambiguous", "off", False),
    ("retry_ambiguous", "true", True),
    ("retry_ambiguous", False, False),
    ("affinity", "0", 0.0),
    ("affinity", 12, 12.0),
    ("max_attempts", "4", 4),
    ("keep_bodies", "2097152", 2097152),
    ("keep_bodies", 5, 5),
    ("failover", "limit, quota", ("limit", "quota")),
    ("failover", ["limit,quota", "model"], ("limit", "quota", "model")),
    ("failover", [], ()),
    ("failover", "", ()),
    ("hosts", ("ACME.ghe.com",), ("acme.ghe.com",)),
    ("fence", "Work", "work"),
]


@pytest.mark.parametrize(("name", "value", "expected"), OVERRIDES, ids=[f"{n} {v!r}" for n, v, _ in OVERRIDES])
def test_options_may_be_text(home, name, value, expected):
    """An option's value may be of the setting's own type or its text, by either name."""
    assert getattr(load(home, None, {name: value}).settings, name) == expected
    assert getattr(load(home, None, {f"copilot_{name}": value}).settings, name) == expected


# --- what is refused --------------------------------------------------------------------------------------------------

BAD = [
    ('strategy = "best"', "strategy must be one of hybrid, sticky, round-robin, priority, quota"),
    ("strategy = 1", "strategy must be one of hybrid"),
    ("affinity = -1", "affinity must be a number of seconds from 0 to 2592000"),
    ('affinity = "60"', "affinity must be a number of seconds"),
    ("affinity = nan", "affinity must be a number of seconds"),
    ("affinity = inf", "affinity must be a number of seconds"),
    ("affinity = true", "affinity must be a number of seconds"),
    ("affinity = 1979-05-27", "affinity must be a number of seconds"),
    ("deadline = 0", "deadline must be a number of seconds from 1 to 3600"),
    ("retry_after_cap = 0", "retry_after_cap must be a number of seconds from 1"),
    ("max_attempts = 0", "max_attempts must be a whole number from 1 to 10"),
    ("max_attempts = 11", "max_attempts must be a whole number from 1 to 10"),
    ("max_attempts = 2.0", "max_attempts must be a whole number"),
    ("max_attempts = " + "9" * 400, "max_attempts must be a whole number"),
    ("retry_ambiguous = 1", "retry_ambiguous must be true or false"),
    ('retry_ambiguous = "on"', "retry_ambiguous must be true or false"),
    ("keep_bodies = -1", "keep_bodies must be a whole number of bytes from 0"),
    ('failover = "limit"', "failover must be a list of some of limit, quota, model, auth, transient"),
    (
        'failover = ["limit", "all"]',
        "failover must be a list of some of limit, quota, model, auth, transient (wrong at failover[1])",
    ),
    ('fence = "-"', "fence must be a name of 1 to 64"),
    ('hosts = ["ghe.example.com"]', "hosts must be a list of NAME.ghe.com (wrong at hosts[0])"),
    ('hosts = ["github.com"]', "hosts must be a list of NAME.ghe.com (wrong at hosts[0])"),
    ('oauth_client_id = "a b c d e f"', "oauth_client_id must be 8 to 64 letters"),
    ("oauth_client_id = 1979-05-27", "oauth_client_id must be 8 to 64 letters"),
    ('oauth_client_id = "Iv1.b507a08c87ecfe98\\n"', "oauth_client_id must be 8 to 64 letters"),
    ("routes = {}", "routes must be tables of models"),
    ("[[routes]]\naccounts = []", "(wrong at routes[0].models)"),
    ("[[routes]]\nmodels = []", "(wrong at routes[0].models)"),
    ('[[routes]]\nmodels = ["a b"]', "(wrong at routes[0].models[0])"),
    ('[[routes]]\nmodels = ["a"]\nenabled = "no"', "(wrong at routes[0].enabled)"),
    ('[[routes]]\nmodels = ["a"]\n"\\u001b[31m" = 1', "(wrong at routes[0].\\x1b[31m)"),
    (
        '[preseed]\nwork = "gpt-5"',
        "preseed must be a table of LABEL = a list of model patterns (wrong at preseed.work)",
    ),
    ('[preseed]\n"!" = ["gpt-5"]', "preseed must be a table of LABEL"),
    ('[[outcomes]]\nreason = "limit"\naction = "next"', "(wrong at outcomes[0])"),
    ('[[outcomes]]\nstatus = [403]\nreason = "blocked"\naction = "next"', "(wrong at outcomes[0].reason)"),
    ('[[outcomes]]\nstatus = [200]\nreason = "limit"\naction = "next"', "(wrong at outcomes[0].status"),
    ('[[outcomes]]\ncode = "x"\nreason = "limit"\naction = "next"\nrest = 90000', "(wrong at outcomes[0].rest"),
    (f'[[outcomes]]\ntext = "{"x" * 201}"\nreason = "limit"\naction = "next"', "(wrong at outcomes[0].text)"),
    ('[[outcomes]]\ncode = "x"\nreason = "limit"\naction = "next"\n' * 51, "outcomes must be at most 50 tables"),
]


@pytest.mark.parametrize(("text", "sentence"), BAD, ids=[text[:40] for text, _ in BAD])
def test_a_bad_value_in_a_file(home, text, sentence):
    """A value that is not allowed names the file, the key and what is allowed."""
    path = write(home, text)

    found = refused(home)

    assert found.startswith(f"{path}: ")
    assert sentence in found


BAD_OPTIONS = [
    ({"strategy": "best"}, "--set copilot_strategy must be one of hybrid"),
    ({"copilot_max_attempts": "many"}, "--set copilot_max_attempts must be a whole number from 1 to 10"),
    ({"affinity": "nan"}, "--set copilot_affinity must be a number of seconds"),
    ({"affinity": []}, "--set copilot_affinity must be a number of seconds"),
    ({"strategy": "\udcff"}, "--set copilot_strategy must be one of"),
    ({"fence": "\udcff"}, "--set copilot_fence must be a name"),
    ({"failover": "limit,all"}, "(wrong at failover[1])"),
    ({"failover": [1]}, "--set copilot_failover must be a list"),
    ({"failover": 1}, "--set copilot_failover must be a list"),
    ({"strategie": "sticky"}, "--set: 'strategie' is not a setting; did you mean strategy?"),
    ({"copilot_wat": "1"}, "did you mean wait?"),
    ({"x": "1"}, "--set: 'x' is not a setting; there are strategy, affinity, failover,"),
    ({"copilot_routes": []}, "--set: routes stands only in config.toml"),
    ({"a\x1b[31m\n": 1}, "'a\\\\x1b[31m\\\\n' is not a setting"),
]


@pytest.mark.parametrize(("overrides", "sentence"), BAD_OPTIONS, ids=[sentence[:50] for _, sentence in BAD_OPTIONS])
def test_a_bad_option(overrides, sentence):
    """An option that is not allowed names --set, the option and what is allowed."""
    assert sentence in refused(None, None, overrides)


def test_an_unknown_key_in_a_file(home):
    """A key that is no setting is refused with the one that was meant, also when it wears the option's prefix."""
    for text, hint in [
        ("startegy = 1", "'startegy' is not a setting; did you mean strategy?"),
        ("copilot_strategy = 1", "'copilot_strategy' is not a setting; did you mean strategy?"),
        ("[account]\n", "'account' is not a setting; there are strategy, affinity,"),
        (f'"{"k" * 500}" = 1', "k' is not a setting"),
    ]:
        path = write(home, text)
        found = refused(home)
        assert found.startswith(f"{path}: ")
        assert hint in found
        assert len(found) < 700


BROKEN = [
    ("strategy = ", 1, "Invalid value"),
    ('\n\nstrategy "sticky"', 3, "Expected '=' after a key"),
    ('log = "all"\nlog = "none"', 2, "Cannot overwrite a value"),
    ("a = 1\n[[[", 2, ""),
    ('a = """\n\n', 3, ""),
    (b'log = "all"\nfence = "\xff"', 2, "it is not UTF-8"),
    (b"\xef\xbb\xbflog = 1", 1, ""),
    (b"\x00", 1, ""),
    ('"\\u001b[31m\u0007', 1, ""),
]


@pytest.mark.parametrize("place", ["home", "project"])
@pytest.mark.parametrize(("text", "line", "why"), BROKEN, ids=[repr(text[:20]) for text, _, _ in BROKEN])
def test_broken_toml(home, project, place, text, line, why):
    """A file that is no TOML names itself, the line and what is wrong there."""
    path = write(home if place == "home" else project, text)

    found = refused(home, project)

    assert found.startswith(f"{path}, line {line}: this is not TOML: ")
    assert why in found


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 30_000 + "]" * 30_000, "max_attempts = " + "9" * 5000, "max_attempts = 0x" + "f" * 5000],
    ids=["nested deeply", "long number", "long hexadecimal number"],
)
def test_absurd_toml(home, project, text):
    """Nesting and numbers without measure are refused like everything else, in both files."""
    for folder, file in ((home, text), (project, text.replace("max_attempts", "log"))):
        path = write(folder, file)
        assert refused(home, project) == f"{path}: a number is too long, or lists are nested too deeply"
        path.unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes as POSIX has them")
@pytest.mark.parametrize("kind", ["pipe", "folder", "unreadable", "too large"])
def test_files_that_are_none(home, project, monkeypatch, kind):
    """A pipe, a folder, a file that may not be read or is too large is refused by name, and nobody waits for it."""
    path = project / ".copilot-balancer.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "unreadable":
        real = os.open

        def fails(name: str, *args: int) -> int:
            if str(name) == str(path):
                raise PermissionError(13, "Permission denied")
            return real(name, *args)

        monkeypatch.setattr(os, "open", fails)
    else:
        path.write_text("#" * (64 * 1024 + 1))

    found = refused(home, project)

    assert found.startswith(str(path))
    assert {
        "pipe": "is not a regular file",
        "folder": "cannot be read: Is a directory",
        "unreadable": "cannot be read: Permission denied",
        "too large": "is larger than 65536 bytes",
    }[kind] in found


def test_the_sizes_that_are_allowed(home, project):
    """A project's file may hold 64 KB, config.toml a megabyte, and no more."""
    write(project, "#" * 65536)
    write(home, "#" * 1024 * 1024)
    assert load(home, project, {}).settings == Settings()

    write(home, "#" * (1024 * 1024 + 1))
    assert "is larger than 1048576 bytes" in refused(home, project)


# --- a project --------------------------------------------------------------------------------------------------------


def test_a_project_sets_only_what_it_may(home, project):
    """Everything else in a project's file is ignored with one warning, whatever its value."""
    path = write(project, EVERYTHING + '\n[other]\n"\x1b" = 1\n'.replace("\x1b", "\\u001b"))

    loaded = load(home, project, {})

    assert {name for name, source in loaded.sources.items() if source != "default"} == set(PROJECT_KEYS)
    assert {loaded.sources[name] for name in PROJECT_KEYS} == {str(path)}
    assert loaded.settings == Settings(
        strategy="quota",
        log="switches",
        fence="work",
        routes=(
            RouteTable(models=("gpt-5*",), accounts=("work", "home"), fallback=("gpt-4.1",)),
            RouteTable(models=("*",), enabled=False),
        ),
    )
    ignored = "affinity, failover, max_attempts, deadline, wait and 18 more"
    assert loaded.warnings == (f"{path}: ignored {ignored}: a project sets only strategy, fence, routes, log",)


def test_a_warning_is_one_line(home, project):
    """The key that a project's file tries is told without its control characters."""
    path = write(project, '"\\u001b[31m\\n" = 1\n')

    (warning,) = load(home, project, {}).warnings

    assert warning == f"{path}: ignored \\x1b[31m\\n: a project sets only strategy, fence, routes, log"


def test_a_bad_value_in_a_project(home, project):
    """What a project may set is checked like everything else."""
    path = write(project, 'strategy = "best"')

    assert refused(home, project).startswith(f"{path}: strategy must be one of")


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_tells_every_setting():
    """Each setting has one row with type, default and a sentence; the two tables are all of them."""
    rows = (*options(), *options(file_only=True))

    assert [row.name for row in rows] == list(Settings.model_fields)
    assert tuple(row.name for row in options(file_only=True)) == FILE_ONLY
    for row in rows:
        assert all(row), row
        assert re.fullmatch(r"[A-Z].*\.", row.help)
        assert "\n" not in "".join(row)
        assert row.kind in {"int", "seconds", "bool", "text", "list", "tables"}
    assert options()[0] == Option(
        "strategy",
        "one of hybrid, sticky, round-robin, priority, quota",
        "hybrid",
        "How an account is chosen for a new conversation.",
        "text",
    )


def test_the_defaults_in_words():
    """The default that the table tells is the default that is in force."""
    told = {row.name: row.default for row in (*options(), *options(file_only=True))}

    assert told == {
        "strategy": "hybrid",
        "affinity": "3600",
        "failover": "limit, quota, model, auth, transient",
        "max_attempts": "3",
        "deadline": "300",
        "wait": "0",
        "retry_after_cap": "60",
        "retry_ambiguous": "true",
        "first_byte_timeout": "0",
        "idle_timeout": "600",
        "websocket": "auto",
        "model_ttl": "86400",
        "log": "all",
        "keep_bodies": "2 MB in mitmweb, in the console and with -w, else 0",
        "keep_flows": "500",
        "record_decisions": "false",
        "keep_unknown": "true",
        "fence": "default",
        "allow_remote": "false",
        "upstream_proxy": "HTTPS_PROXY of the environment",
        "ca": "none",
        "hosts": "empty",
        "routes": "empty",
        "oauth_client_id": "Ov23li8tweQw6odWQebz",
        "preseed": "empty",
        "outcomes": "empty",
    }
    given = {
        name: text
        for name, text in told.items()
        if name not in ("keep_bodies", "upstream_proxy", "ca", "hosts", *FILE_ONLY)
    }
    assert load(Path("/nonexistent"), None, given).settings == Settings()


def test_the_words_are_the_pools():
    """Strategies and classes of refusals are called here as they are where they are used."""
    assert set(get_args(config.Strategy)) == set(ranking.STRATEGIES)
    assert set(get_args(config.FailoverClass)) == types.ALL_CLASSES


@settings(deadline=None, database=None, max_examples=200)
@given(
    st.dictionaries(
        st.text(max_size=8) | st.sampled_from(list(Settings.model_fields)),
        st.none() | st.text() | st.integers() | st.floats() | st.lists(st.text(max_size=5)),
    )
)
def test_any_options_are_settings_or_one_sentence(overrides):
    """Whatever options are given, the answer is settings or one printable sentence."""
    try:
        load(Path("/nonexistent"), None, overrides)
    except InvalidInput as error:
        assert str(error).isprintable()


@settings(deadline=None, database=None, max_examples=100)
@given(st.text(alphabet="[]{}=\"'.,\n#ax1-:\\\x1b", max_size=40) | st.binary(max_size=30))
def test_any_bytes_are_settings_or_one_sentence(tmp_path_factory, text):
    """Whatever stands in a file, the answer is settings or one printable sentence."""
    home = tmp_path_factory.mktemp("any") / "home"
    home.mkdir()
    write(home, text)
    try:
        load(home, None, {})
    except InvalidInput as error:
        assert str(error).isprintable()


def test_what_was_chosen_while_the_proxy_ran_comes_first(home):
    """A strategy and a matrix that the user chose at run time win over every file; None leaves the files their say."""
    (home / "config.toml").write_text('strategy = "quota"\n[[routes]]\nmodels = ["gpt-*"]\naccounts = ["work"]\n')
    settings = load(home, None, {}).settings
    row = RouteTable(models=("claude-*",), accounts=("home",), enabled=False)
    chosen = policy(settings, Decisions(strategy="sticky", routes=(row,)))
    assert (chosen.strategy, chosen.routes) == ("sticky", (Route(("claude-*",), ("home",), (), enabled=False),))
    assert policy(settings, Decisions(routes=())).routes == ()
    assert policy(settings, Decisions()).strategy == "quota"
    assert policy(settings, Decisions()).routes == (Route(("gpt-*",), ("work",)),)
