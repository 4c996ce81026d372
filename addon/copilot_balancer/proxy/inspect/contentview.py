"""Content view "Copilot": renders a response as text, in mitmweb and in mitmproxy's console.

Laws of this file:

1. It only looks: a flow is never changed, and nothing here raises. What cannot be read is shown as it came.
2. It is bounded, since mitmproxy calls it on the loop that serves requests: how an answer is read is the business of
   ``transcript``, how it is written that of ``page``, and each keeps its bounds.
"""

import re
from collections.abc import Callable

from mitmproxy import contentviews, http
from mitmproxy.contentviews import Contentview, Metadata, SyntaxHighlight

from copilot_balancer.copilot.hosts import login_host_of, plain_host
from copilot_balancer.copilot.protocol import api_of
from copilot_balancer.proxy.inspect.page import FACT, SHOWN, Page, arguments
from copilot_balancer.proxy.inspect.transcript import Answer, read, usage

REFUSAL = 2048
"""Characters of a refusal's body that are shown as they came."""


def show(data: bytes, metadata: Metadata, shown: Callable[[str], str] = str) -> str:
    """The page of an answer; `shown` is a text without the credentials that were sent.

    An answer may spell one over several events: the bytes of each hold only a part of it.
    """
    flow = metadata.flow if isinstance(metadata.flow, http.HTTPFlow) else None
    message = metadata.http_message
    stream = (metadata.content_type or "").lower() == "text/event-stream" or data.startswith((b"data:", b"event:"))
    answer = read(data, stream=stream)
    page = Page()
    page.fact("model", answer.model)
    _tell_who(page, flow, message, data)
    page.fact("finish", answer.finish)
    page.fact("usage", usage(answer.usage))
    page.fact("quota left", ", ".join(f"{name} {left:g} %" for name, left in answer.quota.items()))
    told = str(flow.metadata.get("copilot_error", "")) if flow else ""
    for error in answer.errors:
        if not told or error.rpartition(": ")[2][:100] not in told:  # it stands there already
            page.fact("error", shown(error))
    for part in answer.parts.values():
        text = shown(part.text)
        page.block(part.title, text if part.prose else arguments(text, page.left), wrap=part.prose)
    if page.dropped:
        page.remark(f"{page.dropped:,} parts more")
    refused = isinstance(message, http.Response) and message.status_code >= 400
    if refused or not (answer.parts or answer.errors):
        limit = REFUSAL if refused else SHOWN
        page.block("body", arguments(shown(data[: 4 * limit].decode("utf-8", "replace"))[:limit], limit))
    _remark(page, answer, data, flow, stream=stream)
    return "\n".join(page.lines) + "\n"


def _tell_who(page: Page, flow: http.HTTPFlow | None, message: http.Message | None, data: bytes) -> None:
    """Who served it, and each refusal before: the flow's metadata, else the headers that the client got."""
    told = {str(key): str(value) for key, value in flow.metadata.items()} if flow else {}
    headers = message.headers if message else {}
    attempts = told.pop("copilot_attempts", "") or headers.get("x-copilot-attempts", "")
    verdict = told.pop("copilot", "")
    account = told.pop("copilot_account", "") or ("nobody" if verdict else headers.get("x-copilot-account", ""))
    refused = int(attempts) - (account != "nobody") if re.fullmatch("[0-9]{1,3}", attempts) else 0
    count = f"after {refused} refusal{'s' * (refused > 1)}" if refused > 0 else ""
    how = "" if verdict in ("served", "failed over", "passed", "refused") else verdict
    account = "the client's own credential" if verdict == "passed" else account
    page.fact("served by", ", ".join(word for word in (account, count, how) if word))
    page.fact("the refusal is of", headers.get("x-copilot-refused-by", ""))
    changed = told.pop("copilot_model", "") or headers.get("x-copilot-model-changed-to", "")
    page.fact("ANOTHER MODEL, by your route", changed)
    # a flow that was read from a file has its metadata in any order
    for key, value in sorted(told.items(), key=lambda item: re.sub("[0-9]+", lambda n: n[0].zfill(6), item[0])):
        if key.endswith("_body") and data.startswith(value.encode("utf-8", "replace")):
            continue  # the client got this very refusal: it stands below
        if key.startswith("copilot_"):
            name = key.removeprefix("copilot_").replace("_", " ")
            if "\n" in value or len(value) > FACT:
                page.block(name, value, wrap=True)
            else:
                page.fact(name, value)


def _remark(page: Page, answer: Answer, data: bytes, flow: http.HTTPFlow | None, *, stream: bool) -> None:
    if answer.unread:
        page.remark(f"{answer.unread:,} events could not be read; the first: {answer.first_unread}")
    if answer.silent:
        page.remark(f"only the beginning is shown: {len(data):,} bytes are too much")
    if stream and not answer.whole:
        why = flow.error.msg if flow and flow.error else "the rest was not kept (copilot_keep_bodies) or never came"
        page.remark(f"cut here, {len(data):,} bytes: {why}")


# --- what mitmproxy sees ---------------------------------------------------------------------------------------------


class CopilotContentview(Contentview):
    """The view "Copilot"; mitmproxy takes the name from the class."""

    shown: Callable[[str], str] = staticmethod(str)
    """A text without the credentials that were sent."""

    @property
    def syntax_highlight(self) -> SyntaxHighlight:
        """The page looks enough like YAML: headings coloured, foreign text in one colour."""
        return "yaml"

    def prettify(self, data: bytes, metadata: Metadata) -> str:
        """The page."""
        return show(data, metadata, self.shown)

    def render_priority(self, data: bytes, metadata: Metadata) -> float:  # noqa: ARG002 - mitmproxy's signature
        """Above every view of mitmproxy's for what is ours to show; never for anything else."""
        return 2 if _is_ours(metadata) else -1


def _is_ours(metadata: Metadata) -> bool:
    flow = metadata.flow
    if not isinstance(flow, http.HTTPFlow) or flow.response is None or metadata.http_message is not flow.response:
        return False
    if any(key.startswith("copilot_attempt_") for key in flow.metadata):
        return True
    if api_of(flow.request.path) is None:
        return False
    if "copilot" not in flow.metadata and login_host_of(plain_host(flow.request.host)) is None:
        return False
    return (metadata.content_type or "").lower() in ("text/event-stream", "application/json")


def register(shown: Callable[[str], str] = str) -> None:
    """Offer the view; again is harmless, since a script is run again when it is saved.

    `shown`: a text without the credentials that were sent.
    """
    CopilotContentview.shown = staticmethod(shown)
    view = CopilotContentview()
    if view.name not in contentviews.registry:
        contentviews.add(view)
