"""copilot-balancer: one proxy, several GitHub Copilot accounts of one person.

The rooms, top to bottom; an arrow points down only (``pyproject.toml``, import-linter)::

    programs   script          what mitmproxy runs: builds the addon object, nothing else
               cli             the command ``copilot-balancer``; each noun's commands are a ``cli_...`` of its own
               addon           class CopilotBalancer: options, hooks, what listens and which hosts are opened
               exchange        one client request, from the first choice to its attribution
               demo            a story for newcomers, with the fake in the place of GitHub
               terminal        how commands read and print
               explained       an explanation of the pool's as text and as JSON
               attribution     one record a request -> log line, flow comment, marker, response header
    edges      guard           may this credential go on this request on this connection? the one place that puts it on
               minting         short-lived tokens for accounts that need them
               admission       how a credential becomes an account
               store           disk: accounts.json (what the user decided), state.json (what the proxy learnt)
               folder          the open folder that the store works in: rights, owners, replacing a file whole
               decision_file   the decision log on disk
               github          network: who is this token, what plan, which API host
               asking          one bounded, verified question over HTTPS
               logins          where other programs keep their Copilot login
               clients         how each client is pointed at the proxy
               client_files    what ``setup`` changes in a client's files, and how that is undone
               local_proxy     a proxy of ours on this machine: is one running, start one
               fake            an embedded fake Copilot, for ``demo`` and for the tests
               layer           mitmproxy's HTTP layer, asking two more questions: with what? and again?
               config          settings: defaults < config.toml < project file < mitmproxy options
    rules      pool            assign a request to an account; record what came of it
    (pure)     decision_log    what the pool was asked and decided; ``decision_replay`` asks it again
               explain         what the pool would do and why; the snapshot that is shown
               choosing        who serves a request, or why nobody does
               selection       who may serve, best first
               eligibility     what keeps an account from serving
               cooldowns       how long a rest; what an attempt teaches
               strategies      the order in which the pool prefers accounts
               assignment      the nouns of a decision: Policy, PoolRequest, Attempt, Hold, Nobody
               outcomes        (status, code, text) -> Outcome: a table, first match wins
               device_flow     RFC 8628 as a generator: what to post, show, wait for
               catalogue       what an account's list of models says
               conversation    which conversation a request belongs to
               error_body      what an upstream's error says, whatever its form
               copilot         facts of the wire: hosts, paths, model and stream flag, our own error bodies
               quota           quota headers and bodies -> QuotaWindow
               memory          the nouns of what the proxy learnt: Cooldown, AccountState, Memory
               accounts        the nouns of what the user decided: Account, Decisions, Status
               retry_after     every way a server says "not before"
               errors          the few ways to fail that a user is told about
"""

__version__ = "0.1.0"
