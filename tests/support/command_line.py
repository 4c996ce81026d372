"""The command line in a temporary home, with a scripted GitHub; every call checks that no token came out."""

from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path

import httpx
from click.testing import CliRunner, Result

from copilot_balancer.cli.env import Env
from copilot_balancer.cli.main import cli
from copilot_balancer.fake.answers import Document
from copilot_balancer.fake.bodies import exchanged_document, models_document
from copilot_balancer.fake.device import FakeLogin
from copilot_balancer.fake.seen import Seen
from copilot_balancer.github.api import GitHub


@dataclass(frozen=True)
class Person:
    """What the scripted GitHub says about a token."""

    id: int
    login: str
    plan: str | None = "individual"
    sku: str | None = "monthly_subscriber_quota"
    api_host: str | None = "api.individual.githubcopilot.com"
    may_ask: bool = True
    models: tuple[str, ...] = ("gpt-4.1", "gpt-5.4")
    direct: bool = True
    """The Copilot API takes the token as it is."""
    exchange: bool = False
    """The token can be exchanged."""
    quota: dict | None = None
    """What ``/copilot_internal/user`` says besides."""


def token(name: str) -> str:
    """A token that no other text in an output can be mistaken for."""
    return f"gho_Canary{name}Canary{name}Canary"


OCTOCAT = Person(1, "octocat", "business", "copilot_for_business_seat_quota", "api.business.githubcopilot.com")
OCTODOG = Person(2, "octodog")
OPENCAT = Person(3, "opencat", may_ask=False)
JANE = Person(4, "jane_acme", "enterprise", None, "copilot-api.acme.ghe.com")
FREE = Person(5, "octofree", "individual", "free_limited_copilot")
FREE2 = Person(6, "octofree2", "free", None)


class CommandLine:
    """Runs commands in `home`; a person sits at the terminal only where `interactive` says so."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.people = {
            token("Work"): OCTOCAT,
            token("Dog"): OCTODOG,
            token("Opencat"): OPENCAT,
            token("Jane"): JANE,
            token("Free"): FREE,
            token("Free2"): FREE2,
        }
        self.logins: dict[str, FakeLogin] = {}
        """Login host -> who logs in there."""
        self.down: set[str] = set()
        """Hosts that cannot be reached."""
        self.asked: list[str] = []
        self.clients: set[str] = set()
        """The OAuth clients that somebody logged in with."""
        self.opened: list[str] = []
        self.now = 1_790_000_000.0
        self.passed = 0.0
        """Seconds that were slept."""
        self.env = Env(
            environ={"COPILOT_BALANCER_HOME": str(home / "ours"), "XDG_DATA_HOME": str(home / "data")},
            home=home,
            github=GitHub(httpx.MockTransport(self._github)),
            now=lambda: self.now,
            interactive=lambda: False,
            folder=lambda: home / "project",
            sleep=self._sleep,
            clock=lambda: self.passed,
            open_page=self._open,
            zone=UTC,
        )

    def _sleep(self, seconds: float) -> None:
        self.passed += seconds

    def _open(self, page: str) -> bool:
        self.opened.append(page)
        return True

    def _github(self, request: httpx.Request) -> httpx.Response:
        host, path = request.url.host, request.url.path
        self.asked.append(f"{host}{path}")
        if host in self.down:
            raise httpx.ConnectError("no route")
        if host in self.logins:
            return self._login(request)
        scheme, _, secret = request.headers["authorization"].partition(" ")
        bought = secret.startswith("tid=")
        person = self.people.get(secret.removeprefix("tid="))
        if person is None or (bought and path != "/models"):
            return httpx.Response(401, json={"message": "Bad credentials"})
        if path == "/models":
            if scheme != "Bearer" or not (bought or person.direct):
                return httpx.Response(401, json={"message": "Bad credentials"})
            return httpx.Response(200, json=models_document(person.models))
        if path == "/user":
            return httpx.Response(200, json={"id": person.id, "login": person.login})
        if path == "/copilot_internal/v2/token" and person.exchange:
            until = int(self.now) + 1500
            endpoints = {"api": f"https://{person.api_host}"}
            return httpx.Response(200, json=exchanged_document(f"tid={secret}", until, 1200, endpoints))
        if path != "/copilot_internal/user" or not person.may_ask:
            return httpx.Response(404, json={"message": "Not Found"})
        facts = {"copilot_plan": person.plan, "access_type_sku": person.sku, **(person.quota or {})}
        return httpx.Response(200, json={**facts, "endpoints": {"api": f"https://{person.api_host}"}})

    def _login(self, request: httpx.Request) -> httpx.Response:
        host, path = request.url.host, request.url.path
        seen = Seen(host, request.method, path, None, [], request.content, self.passed, 1)
        self.clients.add(dict(httpx.QueryParams(request.content.decode()))["client_id"])
        answer = self.logins[host].answer(seen)
        if isinstance(answer, Document):
            return httpx.Response(answer.status, json=answer.body)
        return httpx.Response(answer.status, content=answer.content, headers={"content-type": answer.content_type})

    def run(
        self,
        *arguments: str,
        typed: str | None = None,
        at_terminal: bool = False,
        exit_code: int = 0,
        foreign: bool = False,
    ) -> Result:
        """Run ``copilot-balancer ARGUMENTS``; `typed` is stdin, `foreign`: other programs' files hold tokens."""
        env = replace(self.env, interactive=lambda: at_terminal)
        runner = CliRunner()
        result = runner.invoke(
            cli, arguments, input=typed, obj=env, prog_name="copilot-balancer", catch_exceptions=False
        )
        assert result.exit_code == exit_code, result.output
        self._no_token_in(result.output + result.stdout + result.stderr + repr(result.exception) + repr(env))
        for path in (self.home / "ours" if foreign else self.home).rglob("*"):
            if path.is_file() and path.name not in ("accounts.json", "auth.json"):
                self._no_token_in(path.read_bytes().decode(errors="replace"))
        return result

    def refused(self, *arguments: str, **call) -> str:
        """Run a command that must fail with one sentence on stderr, and return that."""
        before = self.decisions
        result = self.run(*arguments, exit_code=1, **call)
        assert self.decisions == before, "a refusal changes nothing"
        last = result.stderr.splitlines()[-1]
        assert last.startswith("error: ")
        return last.removeprefix("error: ")

    def add(self, name: str, label: str, *more: str, **call) -> Result:
        """Import the token called `name` from stdin."""
        return self.run(
            "accounts", "import", "--from", "stdin", "--label", label, *more, typed=token(name) + "\n", **call
        )

    @property
    def decisions(self):
        """What stands in accounts.json."""
        return self.env.store.read_decisions()

    @property
    def labels(self) -> list[str]:
        """The labels in accounts.json, in order."""
        return [account.label for account in self.decisions.accounts]

    @staticmethod
    def _no_token_in(text: str) -> None:
        assert "Canary" not in text
