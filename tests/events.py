"""An event as a proxy tells it, for the tests of what writes and reads events."""

from copilot_balancer.event import Event, EventAttempt

EVENT = Event(
    at=1_790_000_000.125,
    id="f1",
    what="gpt-5",
    verdict="failed over",
    status=200,
    ms=812.0,
    account="spare",
    host="api.githubcopilot.com",
    attempts=(
        EventAttempt("work", "api.githubcopilot.com", "sticky", "limit", 429, 30.0, "slow down"),
        EventAttempt("spare", "api.githubcopilot.com", "least recently used", "served", 200),
    ),
    conversation="0123456789ab",
)
