"""What an account's own list of models says, and what it teaches."""

import pytest
from hypothesis import given, strategies
from pydantic import SecretStr

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.fake.bodies import models_document
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.catalogue import (
    Catalogue,
    Listed,
    Shelf,
    completed,
    learnt,
    newest,
    read_models,
    shelf,
    warning,
    warnings,
)
from copilot_balancer.rules.state import MAX_MODELS, AccountState, Cooldown, ModelFact

NOW, TTL = 1000.0, 600.0
WORK = Account(id="github.com:1", label="work", token=SecretStr("gho_work_work_work"))


def entry(name: object = "gpt-4.1", **more: object) -> dict[str, object]:
    return {"id": name, "object": "model", **more}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param([], (), id="empty"),
        pytest.param([entry(), entry("o9")], (Listed("gpt-4.1"), Listed("o9")), id="two"),
        pytest.param([entry(), entry()], (Listed("gpt-4.1"),), id="twice"),
        pytest.param([entry(billing={"is_premium": False})], (Listed("gpt-4.1", included=True),), id="not premium"),
        pytest.param([entry(billing={"multiplier": 0})], (Listed("gpt-4.1", included=True),), id="costs nothing"),
        pytest.param([entry(billing={"is_premium": True, "multiplier": 1})], (Listed("gpt-4.1"),), id="premium"),
        pytest.param([entry(billing=None)], (Listed("gpt-4.1"),), id="no billing"),
        pytest.param([entry(policy={"state": "enabled"})], (Listed("gpt-4.1"),), id="enabled"),
        pytest.param([entry(policy={"state": "unconfigured"})], (Listed("gpt-4.1"),), id="unconfigured"),
        pytest.param([entry(policy={"state": "disabled"})], (), id="disabled"),
        pytest.param([entry(model_picker_enabled=False)], (Listed("gpt-4.1"),), id="hidden, and called all the same"),
        pytest.param([entry(7), entry(""), entry("a b"), entry("x" * 201), entry("é"), "gpt", None], (), id="no names"),
    ],
)
def test_list(data, expected):
    """A list names the models that the account has, and which of them cost nothing."""
    assert read_models({"data": data, "object": "list"}) == expected


@pytest.mark.parametrize("document", [None, [], {}, {"data": None}, {"data": {}}, "x"], ids=repr)
def test_no_list(document):
    """What is no list teaches nothing."""
    assert read_models(document) is None


def test_long_list():
    """No more models are read than are remembered."""
    names = [f"m{number}" for number in range(MAX_MODELS + 9)]

    assert len(read_models(models_document(names)) or ()) == MAX_MODELS


@given(strategies.recursive(strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(), lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.sampled_from(["data", "id", "billing", "policy"]), inner), max_leaves=9))  # fmt: skip
def test_any_document(document):
    """A foreign document never raises."""
    read_models(document)
    read_models({"data": document if isinstance(document, list) else [document]})


def test_what_a_list_teaches():
    """Listed models are had from now on, also one that was lacking; what is not listed is left as it was."""
    before = AccountState(
        credential=WORK.fingerprint,
        models={"o9": ModelFact(False, NOW + 60, NOW - 1, 2), "old": ModelFact(True, NOW + 5, NOW - 1, 4)},
        cooldowns=[Cooldown(NOW, NOW + 9, "limit")],
        quota={"premium": QuotaWindow(50.0)},
        served=3,
    )

    after = learnt(WORK, [Listed("o9"), Listed("gpt-4.1", included=True)], before, NOW, TTL)

    assert after == AccountState(
        credential=WORK.fingerprint,
        models={
            "gpt-4.1": ModelFact(True, NOW + TTL, NOW, 0, included=True),
            "o9": ModelFact(True, NOW + TTL, NOW, 0),
            "old": ModelFact(True, NOW + 5, NOW - 1, 4),
        },
        listed_at=NOW,
    )
    assert before.models["o9"].has is False


@pytest.mark.parametrize("before", [None, AccountState(credential="other", models={"old": ModelFact(True, NOW + 5)})])
def test_facts_about_another_credential(before):
    """What was known of an older credential does not count for this one."""
    assert list(learnt(WORK, [Listed("o9")], before, NOW, TTL).models) == ["o9"]


ENTRIES = [{"id": "gpt-4.1", "name": "GPT"}, {"id": "claude", "policy": {"state": "enabled"}}]


def test_entries_are_kept_as_they_were_written():
    """A shelf holds each entry of a list as the service wrote it, for the credential that saw it."""
    models = read_models(
        {"data": [*ENTRIES, {"id": "huge", "x": "y" * 30_000}, {"id": "off", "policy": {"state": "disabled"}}]}
    )
    kept = shelf(WORK, models, 5.0)
    assert kept == Shelf(WORK.fingerprint, 5.0, {entry["id"]: entry for entry in ENTRIES})


def test_the_newest_list_wins():
    """Of two lists of one account the newer one stays; other accounts' lists stay as well."""
    old, new = Shelf("f", 1.0, {}), Shelf("f", 2.0, {"a": {"id": "a"}})
    assert newest(Catalogue({"x": old, "y": old}), Catalogue({"x": new})) == Catalogue({"x": new, "y": old})
    assert newest(Catalogue({"x": new}), Catalogue({"x": old})) == Catalogue({"x": new})


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(
            {"object": "list", "data": ENTRIES[:1]}, [*ENTRIES[:1], {"id": "new"}, ENTRIES[1]], id="completed"
        ),
        pytest.param({"data": [*ENTRIES, {"id": "new"}]}, None, id="nothing is missing"),
        pytest.param({"data": "no list"}, None, id="no list of models"),
    ],
)
def test_completed(document, expected):
    """A list gets the entries that it lacks, each once, behind its own; the rest of it stays."""
    others = [{"new": {"id": "new"}}, {"claude": ENTRIES[1], "new": {"id": "new", "other": 1}, "gpt-4.1": {}}]
    found = completed(document, others)
    assert (found and found["data"]) == expected
    if found:
        assert found["object"] == "list"


def test_odd_entries_do_no_harm():
    """An entry whose id is no text, and entries that no file can hold, are neither compared nor kept."""
    document = {"data": [{"id": ["a"]}, {"id": {"b": 1}}, {"id": "here"}]}
    assert completed(document, [{"there": {"id": "there"}}])["data"][-1] == {"id": "there"}
    deep: dict = {"id": "deep"}
    inner = deep
    for _ in range(300):
        inner["x"] = inner = {}
    odd = [
        Listed("deep", False, deep),
        Listed("half", False, {"id": "half", "x": "\ud800"}),
        Listed("m", False, {"id": "m"}),
    ]
    account = Account(id="github.com:1", label="a", token=SecretStr("gho_aaaaaaaa"))
    assert list(shelf(account, odd, 1.0).entries) == ["m"]


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        pytest.param([entry("a")], [{"a": entry("a", b=1)}], None, id="has it"),
        pytest.param([entry("a")], [{"b": entry("b")}], [entry("a"), entry("b")], id="lacks one"),
        pytest.param(
            [entry("a", policy={"state": "disabled"}), entry("c")],
            [{"a": entry("a", b=1)}, {"a": entry("a", b=2)}],
            [entry("a", b=1), entry("c")],
            id="disabled: the whole entry of the first that can serve it, in its place",
        ),
        pytest.param([entry("a", policy={"state": "disabled"})], [{}], None, id="disabled everywhere"),
        pytest.param([entry(7, policy={"state": "disabled"}), "x", None], [{}], None, id="no entries"),
    ],
)
def test_a_disabled_entry(own, others, expected):
    """A list gets what the others have and it lacks; a disabled entry gives way to one that can be used."""
    document = {"data": own, "object": "list"}
    assert completed(document, others) == (None if expected is None else {"data": expected, "object": "list"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"info_messages": [{"code": "model_pending_deprecation", "warning_text": "Retires on 2026-10-02."}]}, "Retires on 2026-10-02."),
        ({"info_messages": [{"code": "model_pending_deprecation", "message": "Retires soon."}]}, "Retires soon."),
        ({"info_messages": [{"code": "new_model", "message": "Try it."}]}, ""),
        ({"warning_messages": [{"code": "anything", "message": "Slow today."}]}, "Slow today."),
        ({"warning_text": "Retires."}, "Retires."),
        ({"warning_text": "a\x1b[31m" + "b" * 999}, "a\\x1b[31m" + "b" * 291),
        ({"info_messages": "x", "warning_messages": [7, {"message": 7}], "warning_text": 7}, ""),
        ({}, ""),
    ],
    ids=["warning text", "message", "no warning", "warning", "flat", "unprintable and long", "odd", "nothing"],
)  # fmt: skip
def test_what_the_service_warns_of(changes, told):
    """The warning of a retired model is found where the service writes it, on one printable line."""
    assert warning(entry("gpt-5", **changes)) == told
    one = Account(id="github.com:1", label="a", token=SecretStr("gho_aaaaaaaa"))
    shelves = Catalogue({one.id: shelf(one, [Listed("gpt-5", False, entry("gpt-5", **changes))], 1.0)})
    assert warnings(shelves, [one]) == ({"gpt-5": told} if told else {})
    assert warnings(shelves, []) == {}
