"""Changing a Pirsch account: domains, access links, members, clients, e-mail reports and conversion goals.

Belongs here: every create, update and delete of the document's "Managing …" sections. Does not belong here: reading
what there is (`client`), sending hits (`outbound`). Nothing of the platform calls this by itself.

Calls that destroy something, or lock somebody out, take the words typed for them (`Confirmation`). Nothing is sent
twice: the visibility and the grouping are toggles, and a repeated toggle undoes the first (trap 4). Refusals do not
repeat the vendor's words, which may hold e-mail addresses. Needs a user client with the scope domains: write.

Source: vendor document, "Managing Domains" to "Managing Conversion Goals"; contract Pirsch A4, A8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

from pydantic import SecretStr

from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import ConfigurationError, MalformedResponse, Where
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, Response
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.core.redaction import register_secret
from analytics_platform.vendors.pirsch.access import (
    API,
    DEFAULT_BASE_URL,
    VENDOR,
    AccessLink,
    ConversionGoal,
    Domain,
    DomainClient,
    EmailReport,
    NotTheShape,
    Scopes,
    credentials,
    required,
    transport,
    wordless,
)

__all__ = ["PirschManagement"]

_Verb = Literal["POST", "PUT", "DELETE"]
_Found = TypeVar("_Found")
_Reader = Callable[[Mapping[str, object]], _Found]
_MAX_WEEKS: Final = 52


class PirschManagement:
    """Write access to the settings of one account; safe to share between threads.

    Every method sends one request, once, and raises

        ConfigurationError     an empty id, words that do not confirm, a value the vendor cannot mean; nothing was sent
        AuthenticationFailed, PermissionDenied, NotFound, RequestRejected, RateLimited, QuotaExhausted: not done
        VendorUnreachable, VendorUnavailable, TruncatedResponse: it may have been done; read before trying again
        MalformedResponse      done, but the answer is not of the documented shape

    Args:
        http: a transport for the API's origin that sends POST, PUT and DELETE once.
        opt_in: the yes to writing at this vendor.

    Raises:
        ConfigurationError: the opt-in is for another vendor.
    """

    def __init__(self, http: HttpClient, *, opt_in: WriteOptIn) -> None:
        opt_in.require(VENDOR)
        self._http = http

    @classmethod
    def connect(
        cls,
        *,
        client_id: SecretStr,
        client_secret: SecretStr,
        opt_in: WriteOptIn,
        base_url: str = DEFAULT_BASE_URL,
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A manager with its own connection pool and token.

        Raises:
            ConfigurationError: no opt-in, or base URL or credentials cannot be used.
        """
        opt_in.require(VENDOR)
        return cls(
            transport(
                base_url=base_url,
                auth=credentials(client_id, client_secret, clock),
                methods=frozenset({"POST", "PUT", "DELETE"}),
                meter=meter,
                limits=replace(limits or HttpLimits(), max_attempts=1),
                clock=clock,
            ),
            opt_in=opt_in,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------ domains

    @endpoint("POST /api/v1/domain", source="Pirsch API, Creating a Domain")
    def create_domain(self, *, hostname: str, subdomain: str, timezone: str) -> Domain:
        """Add a domain; `timezone` is an IANA name, the days of its statistics are local to it."""
        body = {
            "hostname": required("hostname", hostname),
            "subdomain": required("subdomain", subdomain),
            "timezone": required("timezone", timezone),
        }
        response = self._send("POST", "domain", body)
        return self._read(response, Domain.from_wire)

    @endpoint("DELETE /api/v1/domain", source="Pirsch API, Deleting a Domain")
    def delete_domain(self, domain_id: str, *, confirm: Confirmation) -> None:
        """Delete a domain with all its statistics. Words: `delete domain <id>`."""
        self._delete("domain", "domain", domain_id, confirm)

    @endpoint("PUT /api/v1/domain", source="Pirsch API, Resetting the Identification Code")
    def reset_identification_code(self, domain_id: str, *, confirm: Confirmation) -> str:
        """Give a domain a new identification code and return it; scripts with the old one stop counting.

        Words: `reset identification code of domain <id>`.
        """
        identifier = required("domain_id", domain_id)
        confirm.require(f"reset identification code of domain {identifier}")
        response = self._send("PUT", "domain", {"id": identifier})
        answered = _object(response)
        code = answered.get("identification_code")
        if not isinstance(code, str) or not code:
            raise _malformed(response, "no identification_code")
        return code

    @endpoint("POST /api/v1/domain/subdomain", source="Pirsch API, Updating the Subdomain")
    def set_subdomain(self, domain_id: str, *, subdomain: str) -> None:
        """Move the dashboard to `<subdomain>.pirsch.io`."""
        self._set(domain_id, "subdomain", {"subdomain": required("subdomain", subdomain)})

    @endpoint("POST /api/v1/domain/public", source="Pirsch API, Toggle the Visiblity of Your Dashboard (contract A4)")
    def toggle_visibility(self, domain_id: str) -> None:
        """Make a private dashboard public, or a public one private: read `Domain.is_public` before and after.

        The document prints the path of the subdomain here; the vendor corrected it to this one in 2022-08.
        """
        self._set(domain_id, "public", {})

    @endpoint("POST /api/v1/domain/title", source="Pirsch API, Toggle Grouping by Title")
    def toggle_grouping_by_title(self, domain_id: str) -> None:
        """Begin or stop to tell pages apart by title: read `Domain.is_grouped_by_title` before and after."""
        self._set(domain_id, "title", {})

    @endpoint("POST /api/v1/domain/timezone", source="Pirsch API, Changing the Timezone")
    def set_timezone(self, domain_id: str, *, timezone: str) -> None:
        """Change the zone of a domain's days. Its whole history is counted by the new days: load it again."""
        self._set(domain_id, "timezone", {"timezone": required("timezone", timezone)})

    # ------------------------------------------------------------------------------------------------- access links

    @endpoint("POST /api/v1/domain/link", source="Pirsch API, Managing Domains (creating an access link)")
    def create_access_link(self, domain_id: str, *, description: str = "") -> AccessLink:
        """Make a link that reads the dashboard without a login; its code is a key."""
        body = {"domain_id": required("domain_id", domain_id), "description": description}
        link = self._read(self._send("POST", "domain/link", body), AccessLink.from_wire)
        register_secret(link.code.get_secret_value())
        return link

    @endpoint("PUT /api/v1/domain/link", source="Pirsch API, Managing Domains (updating an access link)")
    def update_access_link(self, link_id: str, *, description: str) -> None:
        """Change the description of an access link."""
        self._send("PUT", "domain/link", {"id": required("link_id", link_id), "description": description})

    @endpoint("DELETE /api/v1/domain/link", source="Pirsch API, Managing Domains (deleting an access link)")
    def delete_access_link(self, link_id: str, *, confirm: Confirmation) -> None:
        """Delete an access link: who has it can no longer read. Words: `delete access link <id>`."""
        self._delete("domain/link", "access link", link_id, confirm)

    # ------------------------------------------------------------------------------------------------------ members

    @endpoint("POST /api/v1/member", source="Pirsch API, Inviting Members")
    def invite_members(self, domain_id: str, *, emails: Sequence[str]) -> None:
        """Invite people by e-mail; they become viewers."""
        self._send("POST", "member", {"id": required("domain_id", domain_id), "emails": _addresses(emails)})

    @endpoint("PUT /api/v1/member", source="Pirsch API, Updating the Role of a Member")
    def set_member_role(self, member_id: str, *, role: Literal["viewer", "admin"]) -> None:
        """Change a member's role. The id is the member's, not the user's; owners need a domain transfer."""
        if role.lower() not in {"viewer", "admin"}:
            raise ConfigurationError("A Pirsch member can be made viewer or admin.")
        self._send("PUT", "member", {"id": required("member_id", member_id), "role": role.lower()})

    @endpoint("DELETE /api/v1/member", source="Pirsch API, Removing a Member")
    def remove_member(self, member_id: str, *, confirm: Confirmation) -> None:
        """Take a domain away from a member. Words: `remove member <id>`."""
        self._delete("member", "member", member_id, confirm, verb="remove")

    # ------------------------------------------------------------------------------------------------------ clients

    @endpoint("POST /api/v1/client", source="Pirsch API, Creating a Client")
    def create_client(self, domain_id: str, *, scopes: Scopes, description: str = "") -> DomainClient:
        """Make credentials of one domain. The secret is in this answer and never again.

        Raises:
            MalformedResponse: the client was made but its secret did not come: delete it.
        """
        body = {"domain_id": required("domain_id", domain_id), "description": description, **scopes.as_wire()}
        response = self._send("POST", "client", body)
        made = self._read(response, DomainClient.from_wire)
        if made.client_secret is None:
            raise _malformed(response, "a client without its secret")
        register_secret(made.client_secret.get_secret_value())
        return made

    @endpoint("POST /api/v1/client", source="Pirsch API, Updating a Client")
    def update_client(self, record_id: str, *, description: str) -> DomainClient:
        """Change a client's description; the same path creates when the id is missing (trap 14)."""
        body = {"id": required("record_id", record_id), "description": description}
        return self._read(self._send("POST", "client", body), DomainClient.from_wire)

    @endpoint("DELETE /api/v1/client", source="Pirsch API, Deleting a Client")
    def delete_client(self, record_id: str, *, confirm: Confirmation) -> None:
        """Delete a client: what uses it stops. Words: `delete client <id>`."""
        self._delete("client", "client", record_id, confirm)

    # ----------------------------------------------------------------------------------------------- e-mail reports

    @endpoint("POST /api/v1/report", source="Pirsch API, Creating Email Reports")
    def create_email_reports(
        self, domain_id: str, *, emails: Sequence[str], interval_weeks: int
    ) -> tuple[EmailReport, ...]:
        """Mail a report to each address every so many weeks."""
        body = {
            "domain_id": required("domain_id", domain_id),
            "emails": _addresses(emails),
            "interval": _weeks(interval_weeks),
        }
        response = self._send("POST", "report", body)
        found = response.json() if response.body else None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise _malformed(response, "no list of reports")
        return tuple(_value(response, EmailReport.from_wire, one) for one in found)

    @endpoint("PUT /api/v1/report", source="Pirsch API, Updating an Email Report")
    def update_email_report(self, report_id: str, *, interval_weeks: int) -> EmailReport:
        """Change how often a report is mailed."""
        body = {"id": required("report_id", report_id), "interval": _weeks(interval_weeks)}
        return self._read(self._send("PUT", "report", body), EmailReport.from_wire)

    @endpoint("DELETE /api/v1/report", source="Pirsch API, Deleting an Email Report")
    def delete_email_report(self, report_id: str, *, confirm: Confirmation) -> None:
        """Stop an e-mail report. Words: `delete email report <id>`."""
        self._delete("report", "email report", report_id, confirm)

    # --------------------------------------------------------------------------------------------- conversion goals

    @endpoint("POST /api/v1/goal", source="Pirsch API, Creating a Conversion Goal")
    def create_goal(
        self,
        domain_id: str,
        *,
        name: str,
        path_pattern: str,
        visitor_goal: int | None = None,
        cr_goal_percent: float | None = None,
        is_deleted_when_reached: bool = False,
        is_mailed_when_reached: bool = False,
    ) -> ConversionGoal:
        """Make a goal on a path pattern (`/checkout/**`); targets of None are sent as 0, as the vendor wants them."""
        body = _goal_body(
            domain_id,
            name=name,
            path_pattern=path_pattern,
            visitor_goal=visitor_goal,
            cr_goal_percent=cr_goal_percent,
            is_deleted_when_reached=is_deleted_when_reached,
            is_mailed_when_reached=is_mailed_when_reached,
        )
        return self._read(self._send("POST", "goal", body), ConversionGoal.from_wire)

    @endpoint("PUT /api/v1/goal", source="Pirsch API, Updating a Conversion Goal")
    def update_goal(self, goal: ConversionGoal) -> ConversionGoal:
        """Replace everything of the goal with this id (change one that was read with `dataclasses.replace`)."""
        body = _goal_body(
            goal.domain_id,
            name=goal.name,
            path_pattern=goal.path_pattern,
            visitor_goal=goal.visitor_goal,
            cr_goal_percent=goal.cr_goal_percent,
            is_deleted_when_reached=goal.is_deleted_when_reached,
            is_mailed_when_reached=goal.is_mailed_when_reached,
        )
        response = self._send("PUT", "goal", {"id": required("goal_id", goal.goal_id), **body})
        return self._read(response, ConversionGoal.from_wire)

    @endpoint("DELETE /api/v1/goal", source="Pirsch API, Deleting a Conversion Goal")
    def delete_goal(self, goal_id: str, *, confirm: Confirmation) -> None:
        """Delete a goal. Words: `delete goal <id>`."""
        self._delete("goal", "goal", goal_id, confirm)

    # ------------------------------------------------------------------------------------------------------ sending

    def _send(self, verb: _Verb, path: str, body: Mapping[str, object]) -> Response:
        with wordless():
            return self._http.request(
                verb, f"{API}/{path}", endpoint=f"{verb} {API}/{path}", json=body, expect="any", retry=False
            )

    def _set(self, domain_id: str, what: str, fields: Mapping[str, object]) -> None:
        self._send("POST", f"domain/{what}", {"domain_id": required("domain_id", domain_id), **fields})

    def _delete(self, path: str, what: str, identifier: str, confirm: Confirmation, *, verb: str = "delete") -> None:
        """Delete by the id in the query, which is the thing's own (trap 12)."""
        identifier = required(f"id of the {what}", identifier)
        confirm.require(f"{verb} {what} {identifier}")
        with wordless():
            self._http.request(
                "DELETE",
                f"{API}/{path}",
                endpoint=f"DELETE {API}/{path}",
                params={"id": identifier},
                expect="any",
                retry=False,
            )

    def _read(self, response: Response, read: _Reader[_Found]) -> _Found:
        return _value(response, read, _object(response))


def _value(response: Response, read: _Reader[_Found], record: Mapping[str, object]) -> _Found:
    try:
        return read(record)
    except NotTheShape as error:
        raise _malformed(response, f"an object without a usable {error}") from None


def _object(response: Response) -> Mapping[str, object]:
    found = response.json() if response.body else None
    if not isinstance(found, dict):
        raise _malformed(response, "no object")
    return found


def _malformed(response: Response, what: str) -> MalformedResponse:
    return MalformedResponse(
        f"Pirsch did what was asked, but answered with {what}.",
        "Look at the dashboard before trying again.",
        Where(vendor=VENDOR, endpoint=response.endpoint),
        response.status,
    )


def _addresses(emails: Sequence[str]) -> list[str]:
    if isinstance(emails, str) or not emails or not all("@" in email for email in emails):
        raise ConfigurationError("Pirsch needs a list of e-mail addresses.")
    return [email.strip() for email in emails]


def _weeks(interval_weeks: int) -> int:
    if not 1 <= interval_weeks <= _MAX_WEEKS:
        raise ConfigurationError(f"A Pirsch e-mail report comes every 1 to {_MAX_WEEKS} weeks.")
    return interval_weeks


def _goal_body(
    domain_id: str,
    *,
    name: str,
    path_pattern: str,
    visitor_goal: int | None,
    cr_goal_percent: float | None,
    is_deleted_when_reached: bool,
    is_mailed_when_reached: bool,
) -> dict[str, object]:
    """The request's names differ from the answer's: `visitors` and `cr`, where 0 stands for none (trap 7)."""
    if visitor_goal is not None and visitor_goal < 0:
        raise ConfigurationError("A Pirsch goal wants 0 or more visitors.")
    if cr_goal_percent is not None and not 0 <= cr_goal_percent <= 100:
        raise ConfigurationError("The conversion rate of a Pirsch goal is a percentage, 0 to 100.")
    return {
        "domain_id": required("domain_id", domain_id),
        "name": required("name", name),
        "path_pattern": required("path_pattern", path_pattern),
        "visitors": visitor_goal or 0,
        "cr": cr_goal_percent or 0,
        "delete_reached": is_deleted_when_reached,
        "email_reached": is_mailed_when_reached,
    }
