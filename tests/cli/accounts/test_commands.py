"""``copilot-balancer accounts``: looking and deciding; ``command_line`` checks each time that no token came out."""

import json
from dataclasses import replace

import pytest

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.state import AccountState, Affinity, Cooldown, Memory, ModelFact
from support.command_line import OCTODOG, CommandLine, token


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


@pytest.fixture
def three(cli):
    """Three accounts, terms accepted."""
    cli.run("terms", "accept", "--yes")
    cli.add("Work", "work")
    cli.add("Dog", "personal")
    cli.add("Jane", "acme", "--host", "acme.ghe.com")
    return cli


# ── look ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_empty_list(cli):
    """Without an account it is said how to get one."""
    assert "To add one: copilot-balancer start" in cli.run("accounts", "list").stdout
    assert cli.run("accounts", "list", "--json").stdout == "[]\n"
    assert cli.run("balancing", "off").stderr == ""


def test_list(three):
    """The table shows each account in one line of at most 80 columns, the home account marked."""
    three.run("accounts", "use", "personal")
    three.run("accounts", "disable", "acme")

    result = three.run("accounts", "list")

    assert result.stdout == (
        "  LABEL     LOGIN      HOST          API             PLAN        FENCE    STATE\n"
        "  work      octocat    github.com    api.business    business    default  on\n"
        "* personal  octodog    github.com    api.individual  individual  default  on\n"
        "  acme      jane_acme  acme.ghe.com  copilot-api     enterprise  default  off\n"
        "\n"
        "* home account\n"
    )
    assert result.stderr == ""
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_list_of_unknown_facts(cli):
    """What nobody knows is a dash."""
    cli.add("Work", "work", "--no-verify")

    assert "* work   -      github.com  api  -     default  on" in cli.run("accounts", "list").stdout


def test_accounts_alone_lists(three):
    """``accounts`` is ``accounts list``."""
    assert three.run("accounts").output == three.run("accounts", "list").output


def test_json_list(three):
    """Programs get every fact but the token, in the order in which the accounts were added, the same each time."""
    three.run("accounts", "disable", "work")
    rows = json.loads(three.run("accounts", "list", "--json").stdout)

    assert [row["label"] for row in rows] == ["work", "personal", "acme"]
    work = three.decisions.accounts[0]
    assert rows[0] == {
        "label": "work",
        "id": "github.com:1",
        "login": "octocat",
        "host": "github.com",
        "api_host": "api.business.githubcopilot.com",
        "credential": "direct",
        "plan": "business",
        "enabled": False,
        "home": True,
        "serving": False,
        "fence": "default",
        "priority": 0,
        "fingerprint": work.fingerprint,
        "added_at": "2026-09-21T14:13:20Z",
    }
    three.add("Dog", "personal")
    three.run("accounts", "enable", "work")
    again = json.loads(three.run("accounts", "list", "--json").stdout)
    assert [row["label"] for row in again] == ["work", "personal", "acme"]


def test_who_serves(three):
    """``serving`` in JSON is false for who is off, waits for the terms, or is not home while balancing is off."""

    def serving():
        return [row["serving"] for row in json.loads(three.run("accounts", "list", "--json").stdout)]

    assert serving() == [True, True, True]
    three.run("balancing", "off")
    assert serving() == [True, False, False]
    three.run("balancing", "on")
    three.env.store.edit_decisions(lambda decisions: decisions.model_copy(update={"terms_accepted_at": None}))
    assert serving() == [True, False, False]


def test_list_says_what_limits(three):
    """Below the table stands what is easily forgotten: balancing off, terms not accepted, nobody on."""
    three.run("balancing", "off")
    assert "only work serves while balancing is off" in three.run("accounts", "list").stderr
    three.run("accounts", "disable", "work")
    assert "nobody serves while balancing is off" in three.run("accounts", "list").stderr
    three.run("accounts", "disable", "personal")
    assert "nobody serves until you enable one" in three.run("accounts", "disable", "acme").stderr


def test_alone(three):
    """`accounts` alone is `accounts list`, in JSON too."""
    assert three.run("accounts").stdout == three.run("accounts", "list").stdout
    assert three.run("accounts", "--json").stdout == three.run("accounts", "list", "--json").stdout


def test_path(cli):
    """The places of all files are printed, and nothing is made there."""
    state, config = cli.env.paths.state, cli.env.paths.config

    shown = cli.run("accounts", "path").stdout
    told = json.loads(cli.run("accounts", "path", "--json").stdout)

    assert told == {
        "accounts": str(state / "accounts.json"),
        "state": str(state / "state.json"),
        "config": str(config / "config.toml"),
        "requests": str(state / "events.jsonl"),
        "proxy logs": str(state / "logs"),
        "CA": str(state / "mitmproxy"),
    }
    assert all(place in shown for place in told.values())
    assert not state.exists()


# ── decide ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_use(three):
    """``use`` makes another account home, by label or login."""
    assert three.run("accounts", "use", "acme").stdout == "acme is the home account.\n"
    assert three.decisions.home.label == "acme"
    assert three.run("accounts", "use", "OctoDog").stdout == "personal is the home account.\n"


def test_disable_and_enable(three):
    """An account is switched off and on; on tells when, which ends an abuse block."""
    assert three.run("accounts", "disable", "work").stdout == "work is off.\n"
    assert not three.decisions.find("work").enabled
    three.now += 60
    assert three.run("accounts", "enable", "work").stdout == "work is on.\n"
    assert (three.decisions.find("work").enabled, three.decisions.find("work").enabled_at) == (True, three.now)


def test_remove(three):
    """With --yes an account and its token are gone, and it is said that GitHub does not know that."""
    result = three.run("accounts", "remove", "acme", "--yes")

    assert result.stdout == "Removed account acme.\n"
    assert "https://acme.ghe.com/settings/applications" in result.stderr
    assert three.labels == ["work", "personal"]
    assert token("Jane") not in three.env.store.accounts_path.read_text()
    assert three.decisions.removed == {"acme.ghe.com:4": three.now}


def test_remove_by_typing_the_label(three):
    """A person is told what goes and types its label."""
    result = three.run("accounts", "remove", "work", typed="work\n", at_terminal=True)

    assert "This deletes work (octocat on github.com) and its token." in result.stderr
    assert "personal is the home account now" in result.stderr
    assert three.labels == ["personal", "acme"]


@pytest.mark.parametrize("typed", ["\n", "y\n", "yes\n", "personal\n", "WORK\n"], ids=repr)
def test_remove_with_another_word(three, typed):
    """Any other word removes nothing."""
    assert "nothing was removed" in three.refused("accounts", "remove", "work", typed=typed, at_terminal=True)


def test_remove_and_leave(three):
    """Who leaves at the question has removed nothing."""
    three.run("accounts", "remove", "work", typed="", at_terminal=True, exit_code=1)

    assert three.labels == ["work", "personal", "acme"]


def test_remove_without_anybody_to_ask(three):
    """From a pipe nothing is removed without --yes, whatever it says."""
    assert "not a terminal: pass --yes" in three.refused("accounts", "remove", "work", typed="work\n")


def test_remove_unverified_and_last(cli):
    """The last account can go; of one that nobody verified no GitHub page is known."""
    cli.add("Work", "work", "--no-verify")

    result = cli.run("accounts", "remove", "work", typed="work\n", at_terminal=True)

    assert "work (not verified on github.com)" in result.stderr
    assert "note:" not in result.stderr
    assert cli.labels == []


def test_removed_and_back(three):
    """A removed account comes back when it is imported again, at the end."""
    three.run("accounts", "remove", "work", "--yes")
    three.now += 60

    three.add("Work", "again")

    assert three.labels == ["personal", "acme", "again"]
    assert three.decisions.removed == {}


# ── show ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def learnt(cli: CommandLine, **facts) -> None:
    """What a proxy learnt about the account `work`."""
    work = cli.decisions.find("work")
    cli.env.store.merge_memory(Memory({work.id: AccountState(credential=work.fingerprint, **facts)}))


def test_show(three):
    """All that is known about an account is shown: what was decided, its state, its quota."""
    learnt(
        three,
        cooldowns=[
            Cooldown(three.now, three.now + 720, "session limit", source="server"),
            Cooldown(three.now, three.now + 30, "model limit", "o9"),
        ],
        models={"o9": ModelFact(False, three.now + 60, three.now + 1)},
        quota={
            "premium": QuotaWindow(68.1, three.now + 86400, remaining=204.3, entitlement=300, seen_at=three.now - 60),
            "chat": QuotaWindow(100, unlimited=True, seen_at=three.now - 90),
        },
        last_used=three.now - 3600,
        served=12,
        refused=3,
    )
    three.run("accounts", "priority", "work", "3")

    result = three.run("accounts", "show", "octocat")

    assert result.stdout == (
        "work  (home account)\n"
        "  login       octocat on github.com\n"
        "  plan        business\n"
        "  API host    api.business.githubcopilot.com\n"
        "  credential  is used as it is\n"
        "  state       cooling: session limit, 12 min; model limit (o9), 30 s\n"
        "  serves      no: rests after a session limit\n"
        "  fence       default\n"
        "  priority    3\n"
        "  weight      1\n"
        "  reserve     0 %\n"
        "  allow       all models\n"
        "  block       no model\n"
        "  lacks       o9\n"
        "  added       2026-09-21 14:13 UTC\n"
        "  last used   2026-09-21 13:13 UTC\n"
        "  requests    12 served, 3 refused\n"
        "  quota       as of 2026-09-21 14:12 UTC\n"
        "    chat     unlimited\n"
        "    premium  [##############......]  68 %  204 of 300  resets 2026-09-22 14:13 UTC\n"
    )


def test_show_of_a_fresh_account(cli):
    """An account of which nothing is known is shown as well; one that is exchanged or off says so."""
    cli.add("Work", "work", "--no-verify")
    work = cli.decisions.accounts[0]
    cli.env.store.edit_decisions(lambda now: now.with_account(work.model_copy(update={"credential": "exchange"})))
    cli.run("accounts", "disable", "work")

    shown = cli.run("accounts", "show", "work").stdout

    for line in (
        "login       not verified on github.com",
        "plan        unknown",
        "credential  is exchanged for a short-lived one",
        "state       off",
        "last used   never",
        "lacks       no model that was asked for",
    ):
        assert line in shown
    assert "quota" not in shown


def test_show_in_json(three):
    """Programs get the same, with times as text and rests in seconds."""
    learnt(three, cooldowns=[Cooldown(three.now, three.now + 720, "limit")], last_used=three.now)
    three.run("accounts", "clear", "work", "gpt-5")

    facts = json.loads(three.run("accounts", "show", "work", "--json").stdout)

    assert facts["status"] == "cooling"
    assert facts["rests"] == [{"reason": "limit", "model": None, "seconds": 720.0, "source": "ladder"}]
    assert facts["cleared"] == {"gpt-5": "2026-09-21T14:13:20Z"}
    assert (facts["label"], facts["last_used"]) == ("work", "2026-09-21T14:13:20Z")
    assert json.loads(three.run("accounts", "show", "acme", "--json").stdout)["last_used"] is None


# ── change ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rename(three):
    """An account gets another label, and keeps its history and its conversations, which go by its id."""
    learnt(three, served=3)
    three.env.store.merge_memory(Memory(conversations={"c": Affinity("github.com:1", three.now)}))

    assert three.run("accounts", "rename", "work", " My Job ").stdout == "my-job is the new label of work.\n"
    assert three.labels == ["my-job", "personal", "acme"]
    assert "3 served" in three.run("accounts", "show", "my-job").stdout
    assert three.run("accounts", "rename", "my-job", "my-job").stderr == ""


def test_rename_to_a_taken_label(three):
    """A label that another account has is refused with that account."""
    sentence = three.refused("accounts", "rename", "work", "Personal")

    assert sentence == "the label personal is taken by octodog on github.com"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[routes]]\nmodels = ["gpt*"]\naccounts = ["work"]\n', "routes in your settings still name work"),
        ('[preseed]\nwork = ["gpt*"]\n', "preseed in your settings still name work"),
        ('[[routes]]\nmodels = ["gpt*"]\naccounts = ["personal"]\n', None),
        ("nonsense", None),
    ],
    ids=["a route", "preseed", "another account's route", "broken settings"],
)
def test_rename_of_an_account_in_settings(three, text, said):
    """Settings that still name the old label are told; settings that cannot be read do not hinder."""
    folder = three.env.paths.config
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(text)

    result = three.run("accounts", "rename", "work", "job")

    assert "job is the new label of work" in result.stdout
    assert result.stderr == "" if said is None else said in " ".join(result.stderr.split())


def test_priority_and_fence(three):
    """Priority and fence are set, told, and seen in JSON."""
    assert three.run("accounts", "priority", "acme", "5").stdout == "acme has priority 5.\n"
    assert three.run("accounts", "fence", "acme", "Work Only").stdout == "acme is in the fence work-only.\n"

    acme = json.loads(three.run("accounts", "list", "--json").stdout)[2]
    assert (acme["priority"], acme["fence"]) == (5, "work-only")


@pytest.mark.parametrize(
    ("arguments", "name", "value", "default"),
    [
        (("--weight", "2.5"), "weight", 2.5, 1.0),
        (("--reserve", "20"), "reserve", 20.0, 0.0),
        (("--allow", "gpt-*", "--allow", "o9"), "allow", ("gpt-*", "o9"), ()),
        (("--block", "claude-*"), "block", ("claude-*",), ()),
    ],
    ids=["weight", "reserve", "allow", "block"],
)
def test_set(three, arguments, name, value, default):
    """Each setting is set alone, shown, kept when another is set, and put back by --reset."""
    assert three.run("accounts", "set", "acme", *arguments).stdout == f"acme has new settings: {name}.\n"
    three.run("accounts", "set", "acme", "--weight", "3") if name != "weight" else None
    assert getattr(three.decisions.find("acme"), name) == value
    three.run("accounts", "set", "acme", "--reset", name)
    assert getattr(three.decisions.find("acme"), name) == default


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--weight", "0"), 1),
        (("--weight", "nan"), 1),
        (("--weight", "1001"), 1),
        (("--reserve", "-1"), 1),
        (("--reserve", "101"), 1),
        (("--allow", "two words"), 1),
        (("--block", "x" * 201), 1),
        (("--weight", "many"), 2),
        (("--weight", "2", "--reset", "weight"), 2),
        ((), 2),
    ],
    ids=lambda one: " ".join(one)[:30] if isinstance(one, tuple) else None,
)
def test_set_refuses(three, arguments, code):
    """A value that is not allowed is one sentence, and nothing of the account changes."""
    before = three.decisions.find("acme")
    three.run("accounts", "set", "acme", *arguments, exit_code=code)
    assert three.decisions.find("acme") == before


@pytest.mark.parametrize("number", ["-1", "1001", "x"])
def test_priority_out_of_bounds(three, number):
    """A priority is a number from 0 to 1000."""
    three.run("accounts", "priority", "--", "acme", number, exit_code=2)


@pytest.mark.parametrize(
    ("arguments", "said", "cleared"),
    [
        (("work",), "Cleared: work.", [{"": 60.0}, {}]),
        (("work", "o9"), "Cleared: work (o9).", [{"o9": 60.0}, {}]),
        ((), "Cleared: work, personal, acme.", [{"": 60.0}, {"": 60.0}]),
    ],
    ids=["account", "model", "all"],
)
def test_clear(three, arguments, said, cleared):
    """Clearing is a date in the decisions; an account's clears those of its models, too."""
    began = three.now
    three.now += 60

    assert three.run("accounts", "clear", *arguments).stdout == f"{said}\n"
    found = [{model: at - began for model, at in one.cleared.items()} for one in three.decisions.accounts[:2]]
    assert found == cleared


def test_cleared_account_is_ready(three):
    """What was cleared rests no more, and a login that was refused is tried again."""
    learnt(three, cooldowns=[Cooldown(three.now, three.now + 720, "limit")], rejected_at=three.now)
    assert "needs login" in three.run("accounts", "show", "work").stdout
    three.now += 1

    three.run("accounts", "clear", "work")

    assert "state       ready" in three.run("accounts", "show", "work").stdout


def test_clear_model_after_model(three):
    """Two models are cleared one after the other; clearing all forgets both dates."""
    three.run("accounts", "clear", "work", "a")
    three.run("accounts", "clear", "work", "b")
    assert set(three.decisions.find("work").cleared) == {"a", "b"}
    (row,) = json.loads(three.run("accounts", "clear", "work", "--json").stdout)
    assert row["label"] == "work"
    assert set(three.decisions.find("work").cleared) == {""}


def test_clear_without_accounts(cli):
    """Without an account there is nothing to clear."""
    assert cli.run("accounts", "clear").stdout == "Nothing to clear.\n"
    assert cli.run("accounts", "clear", "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("use", "acme"), {"label": "acme", "home": True}),
        (("disable", "work"), {"label": "work", "enabled": False, "serving": False}),
        (("enable", "work"), {"label": "work", "enabled": True}),
        (("rename", "work", "job"), {"label": "job"}),
        (("priority", "work", "2"), {"priority": 2}),
        (("fence", "work", "f"), {"fence": "f"}),
        (("remove", "work", "--yes"), {"removed": "work", "id": "github.com:1", "home": "personal"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_changes_in_json(three, arguments, expected):
    """Each change tells a program what the account is now."""
    facts = json.loads(three.run("accounts", *arguments, "--json").stdout)

    assert {name: facts[name] for name in expected} == expected


@pytest.mark.parametrize(
    "verb", ["use", "enable", "disable", "remove", "show", "rename", "priority", "fence", "clear", "login"]
)
def test_unknown_account(three, verb):
    """A name that nobody has is refused with the names that there are."""
    more = {"remove": ["--yes"], "rename": ["x"], "priority": ["1"], "fence": ["x"]}

    sentence = three.refused("accounts", verb, "nobody", *more.get(verb, []))

    assert sentence == "there is no account 'nobody' (accounts: work, personal, acme)"


@pytest.mark.parametrize("verb", ["list", "use", "enable", "disable", "remove", "import"])
def test_store_that_others_can_read(three, verb):
    """A store with a wrong mode is refused by every command with path and remedy, and left as it is."""
    path = three.env.store.accounts_path
    path.chmod(0o644)
    before = path.read_bytes()
    more = {"list": [], "remove": ["work", "--yes"], "import": ["--from", "stdin", "--label", "x"]}.get(verb, ["work"])

    result = three.run("accounts", verb, *more, typed=token("Dog"), exit_code=1)

    assert result.stderr.startswith(f"error: {path}: ")
    assert "chmod 600" in result.stderr
    assert path.read_bytes() == before


def test_login_shared_by_two_hosts(cli):
    """The same login on two hosts is two accounts, told apart by their labels."""
    cli.run("terms", "accept", "--yes")
    cli.people[token("Dog2")] = replace(OCTODOG, api_host="copilot-api.acme.ghe.com")
    cli.add("Dog", "one")
    cli.add("Dog2", "two", "--host", "acme.ghe.com")

    assert "names 2 accounts; use a label" in cli.refused("accounts", "use", "octodog")
