"""What changes a Smartlook project: public links, deletes, webhooks and mapping files, behind an explicit yes.

Belongs here: every call of the API that creates, changes or destroys something at the vendor, with the confirmation
each destructive one needs. Does not belong here: reading data (`client`, which has another transport and cannot reach
this module), deciding whom to forget (`erasure`, `core`), Dagster.

The vendor's one kind of token can do all of this (contract Smartlook §1.1: no scopes), so the opt-in is ours. Nothing
is sent twice by itself: a delete that was received and not answered is asked again by a person, who then gets a 404.

Source: contracts/smartlook §1.1; the vendor document names none of these calls.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from analytics_platform.core.auth import Bearer
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import ConfigurationError, MalformedResponse, NotFound, Where
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.core.origin import path_segment
from analytics_platform.core.redaction import register_secret
from analytics_platform.core.strict_json import parse

__all__ = [
    "MappingFile",
    "Method",
    "SmartlookManagement",
    "Webhook",
    "deleted_items",
    "http_for_writing",
    "uids_parameter",
]

_VENDOR = "smartlook"
_CONTRACT = "contract Smartlook §1.1, "
_HERE: Final = Where(vendor=_VENDOR)

Method = Literal["GET", "POST", "PATCH", "DELETE"]


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where the vendor posts what happens. The address often holds a key of the receiver, so `repr` leaves it out.

    `last_response` and `last_response_at` come with a single webhook only.
    """

    id: str
    type: str | None
    url: str | None = field(repr=False)
    is_enabled: bool | None
    last_response: str | None = field(default=None, repr=False)
    last_response_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class MappingFile:
    """An upload as the vendor took it; `state` and `created_at` in its own words."""

    id: str
    state: str | None
    created_at: str | None


def http_for_writing(
    *,
    methods: frozenset[Method],
    base_url: str,
    token: SecretStr,
    variable: str,
    meter: Meter | None,
    limits: HttpLimits | None,
    clock: Clock,
) -> HttpClient:
    """A transport that may send only these methods, on the pinned origin of `base_url`.

    Raises:
        ConfigurationError: the base URL or the token cannot be used; names `variable`.
    """
    return HttpClient(
        vendor=_VENDOR,
        base_url=base_url,
        auth=Bearer(token, variable=variable),
        meter=meter or NullMeter(),
        limits=limits or HttpLimits(),
        path_prefixes=("/api/",),
        methods=frozenset(str(method) for method in methods),
        clock=clock,
    )


class SmartlookManagement:
    """One project of Smartlook, to be changed. A context manager; thread-safe as `HttpClient` is.

    Every method may raise the VendorError and QuotaError classes of `core.errors`; the destructive ones want their
    words in a `Confirmation` and raise ConfigurationError, with nothing sent, when they are other words.
    """

    def __init__(self, http: HttpClient, *, opt_in: WriteOptIn) -> None:
        opt_in.require(_VENDOR)
        self._http = http

    @classmethod
    def connect(
        cls,
        *,
        base_url: str,
        token: SecretStr,
        opt_in: WriteOptIn,
        variable: str = "SMARTLOOK_API_TOKEN",
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A writing client on the pinned origin of `base_url`.

        Raises:
            ConfigurationError: no yes to this vendor; the base URL or the token cannot be used.
        """
        opt_in.require(_VENDOR)
        http = http_for_writing(
            methods=frozenset({"GET", "POST", "PATCH", "DELETE"}),
            base_url=base_url,
            token=token,
            variable=variable,
            meter=meter,
            limits=limits,
            clock=clock,
        )
        return cls(http, opt_in=opt_in)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what cannot be taken back -----------------------------------------------------------------------------------

    @endpoint("GET /api/v1/sessions/{session_id}/public-link", source=_CONTRACT + "sessions/{sessionId}/public-link")
    def public_link(self, session_id: str, *, confirm: Confirmation) -> SecretStr:
        """A link with which anybody can watch a recording; by GET, yet it creates a capability. No call takes it back.

        Confirm with `publish session <id>`. The link is masked wherever the platform writes text.
        """
        confirm.require(f"publish session {session_id}")
        label = "GET /api/v1/sessions/{session_id}/public-link"
        path = f"/api/v1/sessions/{path_segment(session_id)}/public-link"
        # Not repeated by itself, although it is a GET: nobody says that a second call gives the same link.
        answer = _object(self._http.request("GET", path, endpoint=label, retry=False).json(), label)
        link = answer.get("publicLink")
        if not isinstance(link, str) or not link:
            raise _unexpected(label, "there is no publicLink")
        register_secret(link)
        return SecretStr(link)

    @endpoint("DELETE /api/v1/events/{event_id}", source=_CONTRACT + "DELETE events/{eventId}")
    def delete_event(self, event_id: str, *, confirm: Confirmation) -> None:
        """Delete a definition of an event, and with it its history. Confirm with `delete event <id>`.

        Raises:
            NotFound: no such event; perhaps an earlier delete came through.
        """
        confirm.require(f"delete event {event_id}")
        self._send("DELETE", f"/api/v1/events/{path_segment(event_id)}", "DELETE /api/v1/events/{event_id}")

    @endpoint("DELETE /api/v1/visitors/{visitor_id}", source=_CONTRACT + "DELETE visitors/{visitorId}")
    def delete_visitor(self, visitor_id: str, *, confirm: Confirmation) -> None:
        """Delete a visitor with all recordings. Confirm with `delete visitor <id>`.

        Raises:
            NotFound: no such visitor; perhaps an earlier delete came through.
        """
        confirm.require(f"delete visitor {visitor_id}")
        label = "DELETE /api/v1/visitors/{visitor_id}"
        response = self._send("DELETE", f"/api/v1/visitors/{path_segment(visitor_id)}", label)
        # Answered with a number, or with nothing: the contract has both.
        if response.body and deleted_items(response) == 0:
            raise NotFound("The vendor deleted no visitor.", where=Where(vendor=_VENDOR, endpoint=label))

    @endpoint("DELETE /api/v1/visitors", source=_CONTRACT + "DELETE visitors?uids=")
    def delete_visitors(self, uids: Sequence[str], *, confirm: Confirmation) -> int:
        """Delete the visitors the site identified by these ids of its own, and return how many there were.

        Confirm with `delete visitors of <n> uids`: the ids themselves are personal and stand in no message.

        Raises:
            ConfigurationError: none, or one that cannot be told apart in a list separated by commas.
        """
        parameter = uids_parameter(uids)
        confirm.require(f"delete visitors of {len(uids)} uids")
        label = "DELETE /api/v1/visitors"
        response = self._http.request("DELETE", "/api/v1/visitors", endpoint=label, params={"uids": parameter})
        return deleted_items(response)

    # -- webhooks ----------------------------------------------------------------------------------------------------

    @endpoint("GET /api/v1/webhooks", source=_CONTRACT + "webhooks")
    def webhooks(self) -> tuple[Webhook, ...]:
        """All webhooks of the project: the answer is a bare array."""
        label = "GET /api/v1/webhooks"
        listed = self._http.request("GET", "/api/v1/webhooks", endpoint=label).json()
        if not isinstance(listed, list):
            raise _unexpected(label, "it is not an array")
        return tuple(_webhook(entry, label) for entry in listed)

    @endpoint("GET /api/v1/webhooks/{webhook_id}", source=_CONTRACT + "webhooks/{webhookOid}")
    def webhook(self, webhook_id: str) -> Webhook:
        """One webhook, with the vendor's note on its last delivery."""
        label = "GET /api/v1/webhooks/{webhook_id}"
        return _webhook(self._http.request("GET", _webhook_path(webhook_id), endpoint=label).json(), label)

    @endpoint("POST /api/v1/webhooks", source=_CONTRACT + "webhooks")
    def create_webhook(self, *, type: str, url: str, source: str | None = None, secret: SecretStr | None = None) -> str:
        """Have the vendor post to `url` from now on; returns the webhook's id.

        Args:
            type: what is posted, in the vendor's words (its list is not public).
            url: https.
            source: as the vendor's schema has it; not explained there.
            secret: what the receiver checks the posts with.

        Raises:
            ConfigurationError: a URL that is not https: visitors' data would travel in clear.
        """
        body: dict[str, object] = {"type": type, "url": _https(url)}
        if source is not None:
            body["source"] = source
        return self._webhook_id("POST", "/api/v1/webhooks", "POST /api/v1/webhooks", {**body, **_secret(secret)})

    @endpoint("PATCH /api/v1/webhooks/{webhook_id}", source=_CONTRACT + "PATCH webhooks/{webhookOid}")
    def update_webhook(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        secret: SecretStr | None = None,
        is_enabled: bool | None = None,
    ) -> None:
        """Change what is given and leave the rest.

        Raises:
            ConfigurationError: nothing to change, or a URL that is not https.
        """
        body: dict[str, object] = {**_secret(secret)}
        if url is not None:
            body["url"] = _https(url)
        if is_enabled is not None:
            body["enabled"] = is_enabled
        if not body:
            raise ConfigurationError("There is nothing to change on the webhook.", where=_HERE)
        self._webhook_id("PATCH", _webhook_path(webhook_id), "PATCH /api/v1/webhooks/{webhook_id}", body)

    @endpoint("DELETE /api/v1/webhooks/{webhook_id}", source=_CONTRACT + "DELETE webhooks/{webhookOid}")
    def delete_webhook(self, webhook_id: str, *, confirm: Confirmation) -> None:
        """Delete a webhook. Confirm with `delete webhook <id>`."""
        confirm.require(f"delete webhook {webhook_id}")
        self._send("DELETE", _webhook_path(webhook_id), "DELETE /api/v1/webhooks/{webhook_id}")

    # -- mapping files -----------------------------------------------------------------------------------------------

    @endpoint(
        "POST /api/v1/bundles/{bundle_id}/platforms/{platform}/releases/{app_version}/mapping-files",
        source=_CONTRACT + "mapping-files",
    )
    def upload_mapping_file(
        self,
        *,
        bundle_id: str,
        platform: str,
        app_version: str,
        content: bytes,
        file_name: str = "mapping.txt",
        is_forced: bool = False,
    ) -> MappingFile:
        """Give the vendor the names behind a mobile release's crash reports (multipart, one part).

        Args:
            bundle_id: the app's, `com.example.shop`.
            platform: as the vendor calls it, `android`.
            app_version: the release.
            content: the file.
            file_name: letters, digits, `.`, `-` and `_`. The part's name, `file`, is [inferred]: the schema is silent.
            is_forced: replace an earlier upload of the release.
        """
        label = "POST /api/v1/bundles/{bundle_id}/platforms/{platform}/releases/{app_version}/mapping-files"
        path = (
            f"/api/v1/bundles/{path_segment(bundle_id)}/platforms/{path_segment(platform)}"
            f"/releases/{path_segment(app_version)}/mapping-files"
        )
        boundary, body = _multipart(content, file_name)
        response = self._http.request(
            "POST",
            path,
            endpoint=label,
            params={"force": "true"} if is_forced else None,
            content=body,
            headers={"content-type": f"multipart/form-data; boundary={boundary}"},
        )
        answer = _object(response.json(), label)
        return MappingFile(
            id=_id(answer.get("oid"), label),
            state=_text(answer.get("state")),
            created_at=_text(answer.get("createdAt")),
        )

    # -- sending -----------------------------------------------------------------------------------------------------

    def _send(self, method: Method, path: str, label: str) -> Response:
        return self._http.request(method, path, endpoint=label, expect="any")

    def _webhook_id(self, method: Method, path: str, label: str, body: Mapping[str, object]) -> str:
        answer = _object(self._http.request(method, path, endpoint=label, json=dict(body)).json(), label)
        return _id(answer.get("id"), label)


def uids_parameter(uids: Sequence[str]) -> str:
    """The ids as one query value, separated by commas [inferred: the schema says text, the name says several].

    Raises:
        ConfigurationError: none, an empty one, or one with a comma, which would name two people.
    """
    if not uids or any(not uid.strip() or "," in uid for uid in uids):
        raise ConfigurationError(
            "There is no uid, or one is empty or holds a comma.",
            "Delete that visitor by the vendor's visitor id instead.",
            _HERE,
        )
    return ",".join(uids)


def deleted_items(response: Response) -> int:
    """`deletedItems` of a delete's answer.

    Raises:
        MalformedResponse: the answer does not say how many.
    """
    counted = _object(parse(response.body), response.endpoint).get("deletedItems")
    if isinstance(counted, bool) or not isinstance(counted, int | float):
        raise _unexpected(response.endpoint, "there is no deletedItems")
    return int(counted)


def _webhook_path(webhook_id: str) -> str:
    return f"/api/v1/webhooks/{path_segment(webhook_id)}"


def _webhook(entry: object, label: str) -> Webhook:
    answer = _object(entry, label)
    is_enabled = answer.get("enabled")
    return Webhook(
        id=_id(answer.get("id"), label),
        type=_text(answer.get("type")),
        url=_text(answer.get("url")),
        is_enabled=is_enabled if isinstance(is_enabled, bool) else None,
        last_response=_text(answer.get("lastResponse")),
        last_response_at=_text(answer.get("lastResponseAt")),
    )


def _secret(secret: SecretStr | None) -> dict[str, object]:
    if secret is None:
        return {}
    register_secret(secret.get_secret_value())
    return {"secret": secret.get_secret_value()}


def _https(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ConfigurationError("A webhook's address must be https.", "Visitors' data would travel in clear.", _HERE)
    return url


def _multipart(content: bytes, file_name: str) -> tuple[str, bytes]:
    """Boundary and body of a form with one file (RFC 7578); a boundary that the file does not hold."""
    if not file_name or not all(
        character.isascii() and (character.isalnum() or character in "._-") for character in file_name
    ):
        raise ConfigurationError("A mapping file's name has letters, digits, dots, dashes and underscores only.")
    boundary = secrets.token_hex(16)
    while boundary.encode() in content:
        boundary = secrets.token_hex(16)
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return boundary, head.encode("ascii") + content + f"\r\n--{boundary}--\r\n".encode("ascii")


def _object(value: object, label: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _unexpected(label, "an object is missing")
    return value


def _id(value: object, label: str) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise _unexpected(label, "there is no id")
    return str(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _unexpected(label: str, reason: str) -> MalformedResponse:
    return MalformedResponse(
        f"The answer is not what the contract says: {reason}.",
        "The vendor may have changed the endpoint; compare with vendors/smartlook/README.md.",
        Where(vendor=_VENDOR, endpoint=label),
        200,
    )
