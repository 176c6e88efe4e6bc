"""What is written to Smartlook and is no recording: webhooks and mapping files of one project.

Belongs here: what the vendor keeps of them, what it refuses, and how they read back. Does not belong here: deleting
visitors and events (`smartlook`: it changes recordings), routes, tokens and limits (`smartlook`).

Source: contracts/smartlook §1.1 (schemas of webhooks and mapping-files; no public words on their errors, so statuses of
refusals are 400, 404 and 409 [inferred]).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Final
from urllib.parse import urlsplit

from analytics_platform.sandbox.observe import Refusal, identifier, iso_millis

__all__ = ["MappingFiles", "Webhooks"]

_CREATE: Final[Mapping[str, type]] = {"type": str, "url": str, "source": str, "secret": str}
_CHANGE: Final[Mapping[str, type]] = {"url": str, "secret": str, "enabled": bool}


def _bad(message: str) -> Refusal:
    return Refusal(400, {"error": "Bad Request", "message": message})


@dataclass
class Webhooks:
    """Webhooks of one project, in the order they were made. `secret` is kept and never answered."""

    project: str
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)
    _made: int = 0

    def listed(self) -> list[dict[str, Any]]:
        """The bare array of the list."""
        return [self._shown(webhook) for webhook in self._known.values()]

    def one(self, webhook_id: str) -> dict[str, Any]:
        """One of them; its last delivery is absent, because this vendor delivers to nobody."""
        return self._shown(self._found(webhook_id))

    def create(self, body: Mapping[str, Any]) -> dict[str, str]:
        """A new, enabled webhook."""
        given = _checked(body, _CREATE)
        if not {"type", "url"} <= set(given):
            raise _bad("type and url are required")
        self._made += 1
        webhook_id = identifier("webhook", self.project, self._made)
        self._known[webhook_id] = {"id": webhook_id, "enabled": True, **given}
        return {"id": webhook_id}

    def change(self, webhook_id: str, body: Mapping[str, Any]) -> dict[str, str]:
        """Some of url, secret and enabled."""
        self._found(webhook_id).update(_checked(body, _CHANGE))
        return {"id": webhook_id}

    def delete(self, webhook_id: str) -> None:
        """Gone from the list."""
        del self._known[self._found(webhook_id)["id"]]

    def _found(self, webhook_id: str) -> dict[str, Any]:
        if webhook_id not in self._known:
            raise Refusal(404, {"error": "Not Found", "message": "Webhook not found"})
        return self._known[webhook_id]

    @staticmethod
    def _shown(webhook: Mapping[str, Any]) -> dict[str, Any]:
        return {name: webhook[name] for name in ("id", "url", "type", "enabled")}


def _checked(body: Mapping[str, Any], known: Mapping[str, type]) -> dict[str, Any]:
    for name, value in body.items():
        if name not in known:
            raise _bad(f"unknown property {name}")
        if type(value) is not known[name]:
            raise _bad(f"{name} has the wrong type")
    if "url" in body and not (
        urlsplit(str(body["url"])).scheme in ("http", "https") and urlsplit(body["url"]).hostname
    ):
        raise _bad("url must be an address")
    return dict(body)


@dataclass
class MappingFiles:
    """Mapping files of one project: one a release, replaced only when forced."""

    project: str
    _files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)

    def upload(
        self, release: tuple[str, str, str], *, content_type: str, body: bytes, is_forced: bool, now_ms: int
    ) -> dict[str, str]:
        """Keep the file of (bundle, platform, version); a 409 when there is one and it is not forced."""
        content = _file_of(content_type, body)
        if release in self._files and not is_forced:
            raise Refusal(409, {"error": "Conflict", "message": "The release has a mapping file; use force"})
        self._files[release] = content
        return {
            "oid": identifier("mapping", self.project, *release, content.hex()),
            "createdAt": iso_millis(now_ms),
            "state": "uploaded",
        }


def _file_of(content_type: str, body: bytes) -> bytes:
    """The first file of a multipart form; a 400 when there is none."""
    if not content_type.startswith("multipart/form-data"):
        raise _bad("a mapping file is uploaded as multipart/form-data")
    parsed: Message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    for part in parsed.get_payload() if parsed.is_multipart() else []:
        content = part.get_payload(decode=True) if isinstance(part, Message) else None
        if isinstance(content, bytes) and content and isinstance(part, Message) and part.get_filename():
            return content
    raise _bad("there is no file in the form")
