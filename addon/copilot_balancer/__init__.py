"""copilot-balancer: one proxy, several GitHub Copilot accounts of one person.

The rooms, top to bottom; an arrow points down only (``pyproject.toml``, import-linter)::

    programs   script          what mitmproxy runs: builds the addon object, nothing else
               cli             the command ``copilot-balancer``; each noun's commands are a ``cli_...`` of its own
               dashboard       everything on one screen of a terminal, live from the files (extra ``tui``)
               addon           class CopilotBalancer: options, hooks, what listens and which hosts are opened
               commands        mitmproxy's commands ``copilot.*``
               upkeep          what a running proxy keeps up to date: files on disk, both ways
               ending          the end of a request: what its answer taught, and its attribution
               exchange        one client request, from the first choice to its answer
               frames          a WebSocket after its handshake
               listing         the list of models, and sessions: what the home account answers
               doorkeeper      who may come in: this machine, this user, no web page
               upstreams       how long a connection to a Copilot host may take, and that each is closed
               live            what all requests of a running proxy share
               passing         an answer on its way to the client: what is read of it, and kept
               request_body    what is read of a client's body, and what of it goes upstream
               own_answers     the answers that we make ourselves
               journal         what is told about finished requests
               contentview     an answer as a person reads it, in mitmweb and the console; ``answer_text`` and ``page``
                               are its parts
               demo            a story for newcomers, with the fake in the place of GitHub; ``demo_cast`` says who plays
                               in it, ``demo_page`` how it is printed
               terminal        how commands read and print
               explained       an explanation of the pool's as text and as JSON
               overview        accounts, proxies and requests as the files tell them
               attribution     one record a request -> log line, flow comment, marker, response header, event
               edits           what the user can decide about accounts and routes, as changes of the decisions
    edges      guard           may this credential go on this request on this connection? the one place that puts it on
               admission       how a credential becomes an account
               store           disk: accounts.json (what the user decided), state.json (what the proxy learnt)
               folder          the open folder that the store works in: rights, owners, replacing a file whole
               decision_file   the decision log on disk; ``event_file`` the finished requests, ``live_file`` who runs
               peers           whose a loopback connection is
               github          network: who is this token, what plan, which API host
               minting         short-lived tokens for accounts that need them
               asking          one bounded, verified question over HTTPS
               logins          where other programs keep their Copilot login
               clients         how each client is pointed at the proxy
               client_files    what ``setup`` changes in a client's files, and how that is undone
               local_proxy     a proxy of ours on this machine: is one running, start one
               fake            an embedded fake Copilot, for ``demo`` and for the tests
               layer           mitmproxy's HTTP layer of one client connection, with our streams in it
               stream          one request over several upstream attempts; it asks: with what? and again?
               arriving        an upstream's answer as it arrives: held back, passed on, cut where it does not end
               steady          mitmproxy's stream: a fault of ours ends it alone, what passes often costs little
               questions       those two questions, as values and hooks
               hidden          what a client brings that must not stand in a flow; the copy that goes upstream
               hooks           mitmproxy's hooks of a request, told to its addons on the spot
               config          settings: defaults < config.toml < project file < mitmproxy options
    rules      pool            assign a request to an account; record what came of it
    (pure)     decision_log    what the pool was asked and decided; ``decision_replay`` asks it again
               explain         what the pool would do and why; the snapshot that is shown
               choosing        who serves a request, or why nobody does
               selection       who may serve, best first
               strategies      the order in which the pool prefers accounts
               eligibility     what keeps an account from serving
               cooldowns       how long a rest; what an attempt teaches
               assignment      the nouns of a decision: Policy, PoolRequest, Attempt, Hold, Nobody
               answer_stream   what a model's answer says as it streams by: begun, failed, complete, what is bound
               outcomes        (status, code, text) -> Outcome: a table, first match wins
               device_flow     RFC 8628 as a generator: what to post, show, wait for
               catalogue       what an account's list of models says
               conversation    which conversation a request belongs to
               bound           what a request carries that only its maker takes back, and how it is left out
               ownership       whose that is
               error_body      what an upstream's error says, whatever its form
               abridged        a long request body without what nobody looks at
               copilot         facts of the wire: hosts, paths, model and stream flag, our own error bodies
               quota           quota headers and bodies -> QuotaWindow
               memory          the nouns of what the proxy learnt: Cooldown, AccountState, Memory
               accounts        the nouns of what the user decided: Account, Decisions, Status
               retry_after     every way a server says "not before"
               redaction       secrets taken out of bytes, in whatever writing they stand there
               json_slices     a long JSON text, read slice by slice; ``json_spans``: where its parts stand
               errors          the few ways to fail that a user is told about
"""

__version__ = "0.1.0"
