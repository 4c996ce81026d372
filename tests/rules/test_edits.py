"""What the dashboard can decide: each edit alone, without a screen and without a file."""

import pytest

from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules import edits
from copilot_balancer.rules.accounts import Decisions, RouteTable
from support.dashboards import ACCOUNTS, DECISIONS, HOME, NOW, ROUTES, WORK

SETTINGS = (RouteTable(models=("a",)), RouteTable(models=("b",)))
ANEW = RouteTable(models=("new-*",), accounts=("home",))
PLAIN = Decisions(accounts=ACCOUNTS)


def of(decisions, account_id):
    return next(one for one in decisions.accounts if one.id == account_id)


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        pytest.param(edits.turned_off(WORK), {"enabled": False}, id="off"),
        pytest.param(edits.turned_on(WORK, NOW), {"enabled": True, "enabled_at": NOW}, id="on"),
        pytest.param(edits.ranked(WORK, 7), {"priority": 7}, id="priority"),
        pytest.param(edits.cleared(WORK, NOW), {"cleared": {"": NOW}}, id="cleared"),
        pytest.param(edits.renamed(WORK, " My Job "), {"label": "my-job"}, id="renamed"),
    ],
)
def test_an_edit_changes_one_account(edit, changed):
    """An edit changes what it says, of one account, and nothing else."""
    after = edit(PLAIN)
    assert after.accounts[0] == ACCOUNTS[0].model_copy(update=changed)
    assert after.accounts[1:] == ACCOUNTS[1:]


@pytest.mark.parametrize(
    ("before", "enabled_at", "is_stopped"),
    [
        pytest.param({}, 0.0, True, id="GitHub stopped it"),
        pytest.param({"enabled_at": 5.0}, 0.0, False, id="the user turned it on meanwhile"),
        pytest.param({"stopped_at": 3.0, "stopped_why": "first"}, 0.0, True, id="stopped already"),
        pytest.param({"enabled": False}, 0.0, True, id="off, and stopped"),
    ],
)
def test_a_stop_is_a_decision(before, enabled_at, is_stopped):
    """A stop by GitHub stands in the decisions, unless the user decided later; only turning it on ends it."""
    account = ACCOUNTS[0].model_copy(update=before)
    decisions = PLAIN.model_copy(update={"accounts": (account, *ACCOUNTS[1:])})
    after = edits.stopped(WORK, NOW, "x" * 300, enabled_at)(decisions)
    found = of(after, WORK)
    assert (found.stopped_at is not None) == is_stopped
    assert len(found.stopped_why) <= 200
    if before.get("stopped_at"):
        assert (found.stopped_at, found.stopped_why) == (3.0, "first")
    assert found.enabled == account.enabled
    for change in (edits.turned_off(WORK), edits.cleared(WORK, NOW), edits.ranked(WORK, 3), edits.renamed(WORK, "job")):
        assert of(change(after), WORK).stopped_at == found.stopped_at
    assert of(edits.turned_on(WORK, NOW + 1)(after), WORK).stopped_at is None
    assert edits.stopped("github.com:gone", NOW, "x", 0.0)(decisions) == decisions


def test_a_rename_goes_through_the_matrix():
    """Rows that name an account follow when it gets another label; those of the settings are not ours to change."""
    after = edits.renamed(WORK, "job")(DECISIONS)
    assert [route.accounts for route in after.routes] == [("acme", "job"), ("job", "home", "acme"), ("home", "gone")]
    assert edits.renamed(WORK, "job")(PLAIN).routes is None


def test_labels_stay_unique():
    """A label that another account has is refused; its own is no collision."""
    with pytest.raises(InvalidInput, match="the label home is taken by octocat"):
        edits.renamed(WORK, "home")(DECISIONS)
    assert edits.renamed(WORK, "work")(DECISIONS) == DECISIONS


@pytest.mark.parametrize(
    "edit",
    [
        edits.made_home("github.com:9"), edits.renamed("github.com:9", "x"), edits.turned_on("github.com:9", NOW),
        edits.turned_off("github.com:9"), edits.ranked("github.com:9", 1), edits.cleared("github.com:9", NOW),
        edits.removed("github.com:9", NOW),
    ],
)  # fmt: skip
def test_an_account_that_is_gone(edit):
    """Nothing brings back an account that was removed meanwhile."""
    with pytest.raises(InvalidInput, match="removed meanwhile"):
        edit(DECISIONS)


def test_removing_widens_no_route():
    """A route that named a removed account goes on naming it: it must not become one for all accounts."""
    after = edits.removed(HOME, NOW)(DECISIONS)
    assert [one.label for one in after.accounts] == ["work", "acme", "old-seat"]
    assert (after.removed, after.home_id, after.routes) == ({HOME: NOW}, None, ROUTES)


def test_what_concerns_all():
    """Home account, balancing, strategy and terms; terms are accepted once."""
    after = edits.ordered_by("sticky")(edits.balanced(on=False)(edits.made_home(WORK)(PLAIN)))
    assert (after.home_id, after.balancing, after.strategy) == (WORK, False, "sticky")
    assert edits.ordered_by(None)(after).strategy is None
    accepted = edits.accepted(NOW)(PLAIN)
    assert accepted.terms_accepted_at == NOW
    assert edits.accepted(NOW + 5)(accepted) is accepted


@pytest.mark.parametrize(
    ("edit", "models"),
    [
        pytest.param(edits.route_added(SETTINGS, ANEW), ["a", "b", "new-*"], id="added"),
        pytest.param(edits.route_replaced(SETTINGS, SETTINGS[0], ANEW), ["new-*", "b"], id="replaced"),
        pytest.param(edits.route_replaced(SETTINGS, SETTINGS[0], SETTINGS[0]), ["a", "b"], id="replaced by itself"),
        pytest.param(edits.route_deleted(SETTINGS, SETTINGS[0]), ["b"], id="deleted"),
        pytest.param(edits.route_moved(SETTINGS, SETTINGS[0], 1), ["b", "a"], id="down"),
        pytest.param(edits.route_moved(SETTINGS, SETTINGS[1], -1), ["b", "a"], id="up"),
        pytest.param(edits.route_moved(SETTINGS, SETTINGS[1], 5), ["a", "b"], id="no further down"),
        pytest.param(edits.route_moved(SETTINGS, SETTINGS[0], -5), ["a", "b"], id="no further up"),
    ],
)
def test_the_first_edit_takes_the_settings_rows_over(edit, models):
    """An edit of the matrix begins with the rows of the settings, and from then on with the user's own."""
    after = edit(PLAIN)
    assert [route.models[0] for route in after.routes] == models
    assert edits.routes_of_settings()(after).routes is None


def test_own_rows_count_even_when_there_are_none():
    """Once the user has deleted all rows, those of the settings do not come back by the next edit."""
    empty = PLAIN.model_copy(update={"routes": ()})
    assert edits.route_added(SETTINGS, ANEW)(empty).routes == (ANEW,)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        pytest.param(edits.route_deleted((), ANEW), "changed by another program", id="gone"),
        pytest.param(edits.route_added((), ROUTES[1]), "such a route already", id="added twice"),
        pytest.param(edits.route_replaced((), ROUTES[0], ROUTES[1]), "such a route already", id="replaced by a twin"),
    ],
)
def test_what_cannot_be_done_to_routes(edit, why):
    """A row that is gone, or would stand twice, is refused with a sentence."""
    with pytest.raises(InvalidInput, match=why):
        edit(DECISIONS)


def test_the_matrix_is_bounded():
    """There is an end to the rows."""
    rows = tuple(RouteTable(models=(f"m{n}",)) for n in range(edits.MAX_ROUTES))
    with pytest.raises(InvalidInput, match="200 routes already"):
        edits.route_added(rows, ANEW)(PLAIN)
