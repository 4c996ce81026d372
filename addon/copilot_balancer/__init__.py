"""copilot-balancer: one proxy, several GitHub Copilot accounts of one person.

The rooms, top to bottom; an arrow points down only (``pyproject.toml``, import-linter)::

    programs   script       what mitmproxy runs: builds the addon object, nothing else
               cli          the command ``copilot-balancer``
               addon        class CopilotBalancer: options, hooks; translates, decides nothing
               demo         an embedded fake Copilot, for ``demo`` and for the tests
               attribution  one record a request -> log line, flow comment, marker, response header
    edges      guard        may this credential go on this request on this connection? the one place that puts it on
               store        disk: accounts.json (what the user decided), state.json (what the proxy learnt)
               github       network: who is this token, what plan, which API host
               clients      where other programs keep their Copilot login
               layer        mitmproxy's HTTP layer, asking two more questions: with what? and again?
               config       settings: defaults < config.toml < project file < mitmproxy options
    rules      pool         assign a request to an account; record what came of it
    (pure)     strategies   the order in which the pool prefers accounts
               outcomes     (status, code, text) -> Outcome: a table, first match wins
               conversation which conversation a request belongs to
               copilot      facts of the wire: hosts, paths, model and stream flag, our own error bodies
               quota        quota headers and bodies -> QuotaSnapshot
               retry_after  every way a server says "not before"
               memory       the nouns of what the proxy learnt: Cooldown, AccountState, Memory
               accounts     the nouns of what the user decided: Account, Decisions, Status
               errors       the few ways to fail that a user is told about
"""

__version__ = "0.1.0"
