"""An event as a proxy tells it, for the tests of what writes and reads events."""

from copilot_balancer.store.request_record import AttemptRecord, RequestRecord

EVENT = RequestRecord(
    at=1_790_000_000.125,
    id="f1",
    what="gpt-5",
    verdict="failed over",
    status=200,
    ms=812.0,
    account="spare",
    host="api.githubcopilot.com",
    attempts=(
        AttemptRecord("work", "api.githubcopilot.com", "sticky", "limit", 429, 30.0, "slow down"),
        AttemptRecord("spare", "api.githubcopilot.com", "least recently used", "served", 200),
    ),
    conversation="0123456789ab",
)
