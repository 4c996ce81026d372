"""Names in settings and decisions that name nothing are told, with the nearest one."""

import pytest
from pydantic import SecretStr

from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.state import AccountState, Memory, ModelFact
from copilot_balancer.rules.types import Policy, Route
from copilot_balancer.views.names import known_models, nearest, unknown_fence, unknown_model, unknown_names

MODELS = frozenset({"gpt-5.4", "gpt-4.1", "claude-sonnet-4.5"})


def account(number: int, label: str, fence: str = "default") -> Account:
    return Account(id=f"github.com:{number}", label=label, token=SecretStr(f"gho_{number:030}"), fence=fence)


THERE = "there are: claude-sonnet-4.5, gpt-4.1, gpt-5.4"
NOBODY = "; requests that name no fence are in this one, so no account can serve them"
STORED = Decisions(accounts=(account(1, "work"), account(2, "personal")))


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("wrk", ["work", "personal"], "did you mean work?"),
        ("WORK", ["work"], "did you mean work?"),
        ("zzz", ["work", "personal"], "there are: work, personal"),
        ("zzz", [f"a{number}" for number in range(9)], "there are: a0, a1, a2, a3, a4, a5, ..."),
        ("zzz", [], "there are none"),
    ],
)
def test_nearest(name, known, said):
    """The nearest name is offered, else the first few that there are."""
    assert nearest(name, known) == said


@pytest.mark.parametrize(
    ("model", "models", "said"),
    [
        ("gpt-5.4", MODELS, None),
        ("GPT-*", MODELS, None),
        ("gpt-5.5", MODELS, "gpt-5.5 is on no account's list (did you mean gpt-5.4?)"),
        ("o9*", MODELS, f"o9* matches no model that an account is known to have ({THERE})"),
        ("o9", frozenset(), None),
    ],
)
def test_unknown_model(model, models, said):
    """A model is unknown only where lists are known; a pattern, where nothing matches it."""
    assert unknown_model(model, models) == said


def test_unknown_fence():
    """A fence without an account is told; without any account there is nothing to tell."""
    assert unknown_fence("default", STORED) is None
    assert unknown_fence("wrk", STORED) == "no account is in the fence wrk (there are: default)"
    assert unknown_fence("wrk", Decisions()) is None


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        pytest.param(Policy(), [], id="nothing"),
        pytest.param(Policy(routes=(Route(("gpt-5.4",), ("work",)),)), [], id="known names"),
        pytest.param(Policy(routes=(Route(("o9",), ("wrk",), enabled=False),)), [], id="a route that is off"),
        pytest.param(
            Policy(routes=(Route(("gpt-5.4",), ("wrk",)),)),
            [
                "the route for gpt-5.4 names the account wrk, which is not stored (did you mean work?)",
                "the route for gpt-5.4 names no stored account, so no account can serve these models",
            ],
            id="an unknown account alone",
        ),
        pytest.param(
            Policy(routes=(Route(("gpt-5.4",), ("work", "gone")),)),
            ["the route for gpt-5.4 names the account gone, which is not stored (there are: work, personal)"],
            id="an unknown account beside a known one",
        ),
        pytest.param(
            Policy(routes=(Route(("gpt-5.5",), ("work",), ("gpt-4.2",)),)),
            [
                "the route for gpt-5.5: gpt-5.5 is on no account's list (did you mean gpt-5.4?)",
                "the route for gpt-5.5: gpt-4.2 is on no account's list (did you mean gpt-4.1?)",
            ],
            id="unknown models",
        ),
        pytest.param(
            Policy(preseed={"wrk": ("gpt*",)}),
            ["the setting preseed names the account wrk, which is not stored (did you mean work?)"],
            id="preseed",
        ),
        pytest.param(
            Policy(fence="defualt"),
            ["no account is in the fence defualt (did you mean default?)" + NOBODY],
            id="the fence of the settings",
        ),
    ],
)
def test_unknown_names(policy, said):
    """Each name that names nothing is one sentence."""
    assert list(unknown_names(policy, STORED, MODELS)) == said
    assert unknown_names(policy, Decisions(), MODELS) == ()


def test_an_account_and_a_fence_of_one_name():
    """A label that is the name of a fence of other accounts is told: as a proxy user it means the fence."""
    both = Decisions(accounts=(account(1, "work"), account(2, "acme", "work")))
    [sentence] = unknown_names(Policy(), both, frozenset())
    assert sentence.startswith("work is the name of an account and of a fence that holds other accounts")
    assert unknown_names(Policy(fence="work"), Decisions(accounts=(account(1, "work", "work"),)), frozenset()) == ()


def test_known_models():
    """What an account lists counts, unless it lacks it, was never listed, or was shown to another credential."""
    work, personal = STORED.accounts
    facts = {"a": ModelFact(True, 99.0), "b": ModelFact(False, 99.0)}
    memory = Memory(
        {
            work.id: AccountState(credential=work.fingerprint, listed_at=1.0, models=facts),
            personal.id: AccountState(credential="other", listed_at=1.0, models={"c": ModelFact(True, 99.0)}),
        }
    )
    assert known_models(memory, STORED) == {"a"}
    assert known_models(Memory({work.id: AccountState(credential=work.fingerprint, models=facts)}), STORED) == set()
