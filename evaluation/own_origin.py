"""Nothing but this page: the browser asks nobody else for anything, nor does the server for the browser.

Gradio fetches an address that a page hands it (`/file=https://...`). Ours has no use for that.
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

FETCHES = re.compile(r"/(file|proxy)[=/]\s*[a-z][a-z0-9+.-]*:", re.IGNORECASE)
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'self'; frame-ancestors 'self'"
)
"""Gradio's scripts are in the page."""


class OwnOrigin:
    """ASGI middleware: fetches no addresses, and tells the browser to ask only where the page is from."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if FETCHES.search(scope["path"]):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            return await send({"type": "http.response.body", "body": b"addresses are not fetched"})

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message.get("headers", []), policy]}
            await send(message)

        return await self._app(scope, receive, with_policy)
