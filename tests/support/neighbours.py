"""A mitmproxy script for tests alone: another addon, which does with each response what the request's model names.

Each does what one example of mitmproxy's own documentation does (docs.mitmproxy.org, "Examples"), in other words.
"""

import asyncio
import io

from mitmproxy import http
from mitmproxy.io import FlowWriter

kept = io.BytesIO()


def named(flow: http.HTTPFlow) -> str:
    return flow.metadata.get("neighbour", "")


class Neighbour:
    def request(self, flow: http.HTTPFlow) -> None:
        for name in (
            "stream",
            "upper",
            "header",
            "edit",
            "slow",
            "write",
            "kill",
            "raise",
            "kill-head",
            "hold",
            "reply",
        ):
            if f'"{name}"' in flow.request.get_text():
                flow.metadata["neighbour"] = name
        if named(flow) == "reply":
            flow.response = http.Response.make(
                200, b'{"reply": "from the neighbour"}', {"content-type": "application/json"}
            )

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        match named(flow):
            case "stream":
                flow.response.stream = True
            case "upper":
                flow.response.stream = lambda data: data.upper()
            case "hold":
                flow.response.stream = False
            case "kill-head":
                flow.kill()
            case "raise":
                raise RuntimeError("a neighbour's own fault")

    async def response(self, flow: http.HTTPFlow) -> None:
        match named(flow):
            case "header":
                flow.response.headers["x-neighbour"] = "was here"
            case "edit" | "hold" if flow.response.content is not None:
                flow.response.text = flow.response.text.replace("Hello", "Edited")
            case "slow":
                await asyncio.sleep(0.1)
            case "write":
                FlowWriter(kept).add(flow)
            case "kill":
                flow.kill()


addons = [Neighbour()]
