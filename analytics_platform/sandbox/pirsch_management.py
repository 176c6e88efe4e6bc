"""What a Pirsch account is made of: clients, domains, access links, members, e-mail reports, conversion goals.

Belongs here: the objects, their state in memory, and creating, reading, changing and deleting them as the document
says. Does not belong here: tokens and who may call what (`pirsch`), what is counted. A change lives as long as the
server; nothing is mailed to anybody. Sources: vendor document, "Managing Domains" to "Managing Conversion Goals";
contracts/pirsch.md A7, A8 (traps 4, 6, 7, 12, 13, 14).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from analytics_platform.sandbox.pirsch_domain import Goal, is_timezone, pattern_regex
from analytics_platform.sandbox.pirsch_later import Funnel, FunnelStep
from analytics_platform.sandbox.pirsch_wire import Refused, go_time
from analytics_platform.sandbox.truth import SiteTruth, World
from analytics_platform.sandbox.wire import Credentials

__all__ = ["Account", "Action", "Client", "Record", "access_key_of"]

_USER_ID = "pzy1bjD1lv"
_SINCE = "2021-05-22T10:11:12.123456Z"
_CHANGED = "2026-03-02T08:09:10.5Z"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SCOPES = {"scope_hit": {"", "w"}, "scope_event": {"", "w"}, "scope_statistics": {"", "r"},
           "scope_domains": {"", "r", "w", "rw"}}  # fmt: skip
_MAIL = re.compile(r"[^@\s]+@[^@\s]+")

Body = Mapping[str, Any]


def _token(seed: str, length: int) -> str:
    """Letters and digits that look like the vendor's; the same seed gives the same."""
    digits, number = [], int.from_bytes(sha256(seed.encode()).digest() * 2, "big")
    for _ in range(length):
        number, rest = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[rest])
    return "".join(digits)


def access_key_of(domain_id: str) -> str:
    """The write-only access key this sandbox has for a domain of its world: `pa_` and 45 characters."""
    return f"pa_{_token(f'access key of {domain_id}', 45)}"


@dataclass(frozen=True, kw_only=True)
class Client:
    """Credentials and what they may do. Without a domain it is a user client: it reaches all domains."""

    id: str
    client_id: str
    secret: str
    domain_id: str | None
    description: str
    scopes: Mapping[str, str]
    made_at: str
    changed_at: str

    @property
    def is_access_key(self) -> bool:
        """Write-only, used as it is instead of a token."""
        return self.secret.startswith("pa_")

    def may(self, scope: str, verb: str) -> bool:
        """Whether `scope` holds `verb`, r or w."""
        return verb in self.scopes.get(scope, "")

    def shown(self) -> dict[str, object]:
        """As the API lists it: never with its secret."""
        return {"id": self.id, "def_time": self.made_at, "mod_time": self.changed_at, "domain_id": self.domain_id,
                "client_id": self.client_id, "description": self.description, **self.scopes}  # fmt: skip


@dataclass
class Record:
    """One domain: its site, what is set about it, and what belongs to it (by id)."""

    site: SiteTruth
    shown: dict[str, Any]
    goals: dict[str, tuple[Goal, dict[str, Any]]] = field(default_factory=dict)
    funnels: tuple[Funnel, ...] = ()

    @property
    def id(self) -> str:
        """The domain id."""
        return self.site.pirsch_domain_id

    @property
    def timezone(self) -> str:
        """IANA name of the zone whose days the statistics have."""
        return str(self.shown["timezone"])

    @property
    def group_by_title(self) -> bool:
        """Whether pages are told apart by title too."""
        return bool(self.shown["group_by_title"])


@dataclass(frozen=True)
class Action:
    """One management endpoint.

    Attributes:
        run: does it, given the client and the fields (body, or query of GET and DELETE); None means an empty body.
        user_only: a domain client is refused, whatever its scopes.
        verb: "r" or "w" of the scope `domains`.
    """

    run: Callable[[Client, Body], object]
    user_only: bool = False
    verb: str = "w"


class Account:
    """The state of one account, and every action on it.

    Args:
        world: its sites are the domains to begin with.
        credentials: of the user client everybody starts with.
        now_ms: the present of what is written.
        forget: told when a domain is deleted.
        unknown_domain_status: what an unknown domain is answered with.
    """

    def __init__(
        self,
        world: World,
        credentials: Credentials,
        *,
        now_ms: Callable[[], int],
        forget: Callable[[str], None],
        unknown_domain_status: int,
    ) -> None:
        self._unknown_domain_status = unknown_domain_status
        self._now_ms = now_ms
        self._forget = forget
        self._made = 0
        self.records = {site.pirsch_domain_id: _seeded(site, world.domain_timezone(site)) for site in world.sites}
        self._links: dict[str, dict[str, Any]] = {}
        self._reports: dict[str, dict[str, Any]] = {}
        self._members = {row["id"]: row for row in (_owner(identifier) for identifier in self.records)}
        everything = {"scope_hit": "w", "scope_event": "w", "scope_statistics": "r", "scope_domains": "rw"}
        self._clients = {
            "userclient": Client(
                id="userclient",
                client_id=credentials.pirsch_client_id,
                secret=credentials.pirsch_client_secret,
                domain_id=None,
                description="the sandbox's own",
                scopes=everything,
                made_at=_SINCE,
                changed_at=_SINCE,
            )
        }
        for identifier in self.records:
            self._clients[f"key-{identifier}"] = Client(
                id=_token(f"key {identifier}", 10),
                client_id=_token(f"key client {identifier}", 32),
                secret=access_key_of(identifier),
                domain_id=identifier,
                description="access key",
                scopes={"scope_hit": "w", "scope_event": "w", "scope_statistics": "", "scope_domains": ""},
                made_at=_SINCE,
                changed_at=_SINCE,
            )
        self.actions: Mapping[tuple[str, str], Action] = {
            ("POST", "/domain"): Action(self._create_domain, user_only=True),
            ("DELETE", "/domain"): Action(self._delete_domain, user_only=True),
            ("PUT", "/domain"): Action(self._reset_code),
            ("POST", "/domain/subdomain"): Action(self._subdomain),
            ("POST", "/domain/public"): Action(self._toggle("public")),
            ("POST", "/domain/title"): Action(self._toggle("group_by_title")),
            ("POST", "/domain/timezone"): Action(self._timezone),
            ("GET", "/domain/link"): Action(self._list_links, verb="r"),
            ("POST", "/domain/link"): Action(self._create_link),
            ("PUT", "/domain/link"): Action(self._update_link),
            ("DELETE", "/domain/link"): Action(self._delete_link),
            ("GET", "/member"): Action(self._list_members, verb="r"),
            ("POST", "/member"): Action(self._invite),
            ("PUT", "/member"): Action(self._change_role),
            ("DELETE", "/member"): Action(self._remove_member),
            ("GET", "/client"): Action(self._list_clients, user_only=True, verb="r"),
            ("POST", "/client"): Action(self._save_client, user_only=True),
            ("DELETE", "/client"): Action(self._delete_client, user_only=True),
            ("GET", "/report"): Action(self._list_reports, verb="r"),
            ("POST", "/report"): Action(self._create_reports),
            ("PUT", "/report"): Action(self._update_report),
            ("DELETE", "/report"): Action(self._delete_report),
            ("GET", "/goal"): Action(self._list_goals, verb="r"),
            ("POST", "/goal"): Action(self._create_goal),
            ("PUT", "/goal"): Action(self._update_goal),
            ("DELETE", "/goal"): Action(self._delete_goal),
            ("GET", "/funnel"): Action(self._list_funnels, verb="r"),
        }

    # --- who asks ----------------------------------------------------------------------------------------------------

    def client(self, identifier: str) -> Client | None:
        """The client with this key of this account, or None when it was deleted."""
        return self._clients.get(identifier)

    def holder_of(self, client_id: str, secret: str) -> str | None:
        """Key of the client these credentials are of."""
        for key, client in self._clients.items():
            if client.client_id == client_id and client.secret == secret and not client.is_access_key:
                return key
        return None

    def access_key(self, value: str) -> Client | None:
        """The client of an access key."""
        return next((one for one in self._clients.values() if one.is_access_key and one.secret == value), None)

    def visible(self, client: Client) -> list[Record]:
        """The domains a client sees."""
        return [record for key, record in self.records.items() if client.domain_id in (None, key)]

    def members_of(self, domain_id: str) -> int:
        """How many people may read a domain."""
        return sum(row["domain_id"] == domain_id for row in self._members.values())

    def seed_goals(self, domain_id: str, goals: Iterable[Goal]) -> None:
        """Give a domain of the world the goals somebody set up before."""
        record = self.records[domain_id]
        record.goals = {goal.id: (goal, _goal_row(goal, domain_id, _SINCE, _SINCE)) for goal in goals}
        steps = [FunnelStep(name=goal.name, regex=goal.regex) for goal in goals if goal.name != "Purchase"]
        steps += [FunnelStep(name=goal.name, regex=goal.regex) for goal in goals if goal.name == "Purchase"]
        if steps:
            record.funnels = (Funnel(id=_token(f"funnel {domain_id}", 10), name="Main", steps=tuple(steps)),)

    def funnel_row(self, funnel: Funnel, domain_id: str) -> dict[str, object]:
        """A funnel's definition as the API shows it."""
        base = {"def_time": _SINCE, "mod_time": _SINCE}
        steps = [
            {"id": _token(f"{funnel.id} {number}", 10), **base, "funnel_id": funnel.id, "name": step.name,
             "step": number, "filter": {"pattern": step.regex, "event": step.event}}
            for number, step in enumerate(funnel.steps, start=1)
        ]  # fmt: skip
        return {"id": funnel.id, **base, "domain_id": domain_id, "name": funnel.name, "steps": steps}

    # --- domains -----------------------------------------------------------------------------------------------------

    def _create_domain(self, client: Client, body: Body) -> object:
        hostname, subdomain, timezone = (_text(body, name) for name in ("hostname", "subdomain", "timezone"))
        wrong = {name: "this field is required" for name in ("hostname", "subdomain", "timezone") if not body.get(name)}
        if any(record.shown["hostname"] == hostname for record in self.records.values()):
            wrong["hostname"] = "the hostname exists already"
        wrong |= self._subdomain_problem(subdomain, own="")
        if timezone and not is_timezone(timezone):
            wrong["timezone"] = "the time zone is unknown"
        if wrong:
            raise Refused(400, validation=wrong)
        site = SiteTruth(
            key=f"pirsch-{subdomain}",
            hostname=hostname,
            timezone=timezone,
            wid=0,
            smartlook_token="",
            smartlook_project_id="",
            pirsch_domain_id=self._identifier("domain"),
            kameleoon_site_code="",
            kissmetrics_product_id="",
            kissmetrics_account_id="",
        )
        record = _seeded(site, site.timezone)
        now = self._now()
        code = _token(f"code {site.pirsch_domain_id}", 32)
        record.shown |= {"def_time": now, "mod_time": now, "subdomain": subdomain, "identification_code": code}
        self.records[record.id] = record
        owner = _owner(record.id)
        self._members[owner["id"]] = owner
        return dict(record.shown)

    def _delete_domain(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "id")
        del self.records[record.id]
        for kept in (self._links, self._reports, self._members):
            for key in [key for key, row in kept.items() if row["domain_id"] == record.id]:
                del kept[key]
        for key in [key for key, one in self._clients.items() if one.domain_id == record.id]:
            del self._clients[key]
        self._forget(record.id)
        return None

    def _reset_code(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "id")
        self._change(record, identification_code=_token(self._identifier("code"), 32))
        return {"identification_code": record.shown["identification_code"]}

    def _subdomain(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "domain_id")
        if "subdomain" not in body:
            # The document prints this path for the visibility toggle too (trap 4); the vendor's own is /domain/public.
            return self._toggle("public")(client, body)
        subdomain = _text(body, "subdomain")
        wrong = {} if subdomain else {"subdomain": "this field is required"}
        wrong |= self._subdomain_problem(subdomain, own=record.id)
        if wrong:
            raise Refused(400, validation=wrong)
        self._change(record, subdomain=subdomain)
        return None

    def _subdomain_problem(self, subdomain: str, *, own: str) -> dict[str, str]:
        if subdomain and not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", subdomain):
            return {"subdomain": "the subdomain is invalid"}
        if any(one.shown["subdomain"] == subdomain and one.id != own for one in self.records.values()):
            return {"subdomain": "the subdomain is in use already"}
        return {}

    def _toggle(self, name: str) -> Callable[[Client, Body], object]:
        def run(client: Client, body: Body) -> object:
            record = self._record(client, body, "domain_id")
            self._change(record, **{name: not record.shown[name]})
            return None

        return run

    def _timezone(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "domain_id")
        if not is_timezone(_text(body, "timezone")):
            raise Refused(400, validation={"timezone": "the time zone is unknown"})
        self._change(record, timezone=body["timezone"])
        return None

    # --- access links ------------------------------------------------------------------------------------------------

    def _list_links(self, client: Client, body: Body) -> object:
        return self._of(self._links, self._record(client, body, "domain_id"))

    def _create_link(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "domain_id")
        row = self._new("link", record)
        row |= {"code": _token(f"code {row['id']}", 16), "description": _text(body, "description")}
        self._links[row["id"]] = row
        return row

    def _update_link(self, client: Client, body: Body) -> object:
        row = self._row(self._links, client, body)
        row |= {"description": _text(body, "description"), "mod_time": self._now()}
        return None

    def _delete_link(self, client: Client, body: Body) -> object:
        del self._links[self._row(self._links, client, body)["id"]]
        return None

    # --- members -----------------------------------------------------------------------------------------------------

    def _list_members(self, client: Client, body: Body) -> object:
        return self._of(self._members, self._record(client, body, "id"))

    def _invite(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "id")
        for mail in _mails(body):
            row = self._new("member", record)
            user = {"id": _token(f"user {mail}", 10), "email": mail, "full_name": "", "picture": ""}
            self._members[row["id"]] = row | {"user_id": user["id"], "role": "viewer", "user": user}
        return None

    def _change_role(self, client: Client, body: Body) -> object:
        row = self._row(self._members, client, body)
        role = _text(body, "role").lower()
        if role not in {"viewer", "admin"}:
            raise Refused(400, validation={"role": "the role must be viewer or admin"})
        if row["role"] == "owner":
            raise Refused(400, message="the owner's role requires a domain transfer")
        row |= {"role": role, "mod_time": self._now()}
        return None

    def _remove_member(self, client: Client, body: Body) -> object:
        row = self._row(self._members, client, body)
        if row["role"] == "owner":
            raise Refused(400, message="the owner cannot be removed")
        del self._members[row["id"]]
        return None

    # --- clients -----------------------------------------------------------------------------------------------------

    def _list_clients(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "id")
        return [one.shown() for one in self._clients.values() if one.domain_id == record.id]

    def _save_client(self, client: Client, body: Body) -> object:
        """Creates without an id, changes the description with one (trap 14)."""
        if body.get("id"):
            key = self._client_key(body)
            changed = replace(self._clients[key], description=_text(body, "description"), changed_at=self._now())
            self._clients[key] = changed
            return changed.shown()
        record = self._record(client, body, "domain_id")
        wrong = {name: "the scope is invalid" for name, allowed in _SCOPES.items() if _text(body, name) not in allowed}
        if wrong:
            raise Refused(400, validation=wrong)
        identifier = self._identifier("client")
        is_key = _text(body, "type") == "token"
        made = Client(
            id=identifier,
            client_id=_token(f"client {identifier}", 32),
            secret=access_key_of(identifier) if is_key else _token(f"secret {identifier}", 64),
            domain_id=record.id,
            description=_text(body, "description"),
            scopes={name: _text(body, name) for name in _SCOPES},
            made_at=self._now(),
            changed_at=self._now(),
        )
        self._clients[identifier] = made
        shown = made.shown()
        return {**shown, "client_secret": made.secret}

    def _delete_client(self, client: Client, body: Body) -> object:
        del self._clients[self._client_key(body)]
        return None

    def _client_key(self, body: Body) -> str:
        for key, one in self._clients.items():
            if one.id == _text(body, "id") and one.domain_id is not None:
                return key
        raise Refused(404, message="client not found")

    # --- e-mail reports ----------------------------------------------------------------------------------------------

    def _list_reports(self, client: Client, body: Body) -> object:
        return self._of(self._reports, self._record(client, body, "id"))

    def _create_reports(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "domain_id")
        weeks = _weeks(body)
        rows = []
        for mail in _mails(body):
            row = self._new("report", record) | {"email": mail, "interval": weeks, "next_report": self._later(weeks)}
            self._reports[row["id"]] = row
            rows.append(row)
        return rows

    def _update_report(self, client: Client, body: Body) -> object:
        row = self._row(self._reports, client, body)
        weeks = _weeks(body)
        row |= {"interval": weeks, "next_report": self._later(weeks), "mod_time": self._now()}
        return row

    def _delete_report(self, client: Client, body: Body) -> object:
        del self._reports[self._row(self._reports, client, body)["id"]]
        return None

    # --- goals and funnels -------------------------------------------------------------------------------------------

    def _list_goals(self, client: Client, body: Body) -> object:
        return [row for _, row in self._record(client, body, "id").goals.values()]

    def _create_goal(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "domain_id")
        now = self._now()
        return self._put_goal(record, self._identifier("goal"), body, made_at=now)

    def _update_goal(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "domain_id")
        if _text(body, "id") not in record.goals:
            raise Refused(404, message="conversion goal not found")
        _, row = record.goals[_text(body, "id")]
        return self._put_goal(record, row["id"], body, made_at=row["def_time"])

    def _put_goal(self, record: Record, identifier: str, body: Body, *, made_at: str) -> dict[str, Any]:
        wrong = {name: "this field is required" for name in ("name", "path_pattern") if not _text(body, name)}
        visitors, percent = body.get("visitors") or 0, body.get("cr") or 0
        if not isinstance(visitors, int) or isinstance(visitors, bool) or visitors < 0:
            wrong["visitors"] = "a positive whole number is expected"
        if not isinstance(percent, int | float) or isinstance(percent, bool) or not 0 <= percent <= 100:
            wrong["cr"] = "a percentage is expected"
        if wrong:
            raise Refused(400, validation=wrong)
        pattern = _text(body, "path_pattern")
        goal = Goal(
            id=identifier,
            name=_text(body, "name"),
            path_pattern=pattern,
            regex=pattern_regex(pattern),
            visitor_goal=visitors or None,  # 0 passes nothing
            cr_goal=float(percent) or None,
        )
        flags = {name: bool(body.get(name)) for name in ("delete_reached", "email_reached")}
        row = _goal_row(goal, record.id, made_at, self._now()) | flags
        record.goals[identifier] = (goal, row)
        return row

    def _delete_goal(self, client: Client, body: Body) -> object:
        for record in self.visible(client):
            if record.goals.pop(_text(body, "id"), None) is not None:
                return None
        raise Refused(404, message="conversion goal not found")

    def _list_funnels(self, client: Client, body: Body) -> object:
        record = self._record(client, body, "id")
        return [self.funnel_row(funnel, record.id) for funnel in record.funnels]

    # --- parts -------------------------------------------------------------------------------------------------------

    def record(self, client: Client, identifier: str, *, field_name: str = "id") -> Record:
        """The domain with this id, as far as the client reaches.

        Raises:
            Refused: 400 without an id, 401 or 404 for one there is not, 403 for another client's.
        """
        if not identifier:
            raise Refused(400, validation={field_name: "the domain ID is required"})
        record = self.records.get(identifier)
        if record is None:
            status = self._unknown_domain_status
            raise Refused(status, message="unauthorized" if status == 401 else "domain not found")
        if client.domain_id not in (None, identifier):
            raise Refused(403, message="the client has no access to this domain")
        return record

    def _record(self, client: Client, body: Body, name: str) -> Record:
        return self.record(client, _text(body, name), field_name=name)

    def _row(self, rows: Mapping[str, dict[str, Any]], client: Client, body: Body) -> dict[str, Any]:
        row = rows.get(_text(body, "id"))
        if row is None:
            raise Refused(404, message="not found")
        if client.domain_id not in (None, row["domain_id"]):
            raise Refused(403, message="the client has no access to this domain")
        return row

    @staticmethod
    def _of(rows: Mapping[str, dict[str, Any]], record: Record) -> list[dict[str, Any]]:
        return [row for row in rows.values() if row["domain_id"] == record.id]

    def _new(self, kind: str, record: Record) -> dict[str, Any]:
        now = self._now()
        return {"id": self._identifier(kind), "def_time": now, "mod_time": now, "domain_id": record.id}

    def _change(self, record: Record, **fields: Any) -> None:
        record.shown |= {**fields, "mod_time": self._now()}

    def _identifier(self, kind: str) -> str:
        self._made += 1
        return _token(f"{kind} {self._made}", 10)

    def _now(self) -> str:
        return go_time(self._now_ms() * 1_000_000)

    def _later(self, weeks: int) -> str:
        return go_time((self._now_ms() + weeks * 7 * 86_400_000) * 1_000_000)


def _seeded(site: SiteTruth, timezone: str) -> Record:
    shown = {
        "id": site.pirsch_domain_id,
        "def_time": _SINCE,
        "mod_time": _CHANGED,
        "user_id": _USER_ID,
        "hostname": site.hostname,
        "subdomain": site.key,
        "identification_code": f"code-of-{site.key}",
        "public": False,
        "google_user_id": None,
        "google_user_email": None,
        "gsc_domain": None,
        "new_owner": None,
        "timezone": timezone,
        "group_by_title": False,
        "user_role": "Owner",
    }
    return Record(site=site, shown=shown)


def _owner(domain_id: str) -> dict[str, Any]:
    user = {"id": _USER_ID, "email": "owner@example.org", "full_name": "Sandbox Owner", "picture": ""}
    return {"id": _token(f"owner {domain_id}", 10), "def_time": _SINCE, "mod_time": _SINCE, "user_id": _USER_ID,
            "domain_id": domain_id, "role": "owner", "user": user}  # fmt: skip


def _goal_row(goal: Goal, domain_id: str, made_at: str, changed_at: str) -> dict[str, Any]:
    return {
        "id": goal.id,
        "def_time": made_at,
        "mod_time": changed_at,
        "domain_id": domain_id,
        "name": goal.name,
        "path_pattern": goal.path_pattern,
        "pattern": goal.regex,
        "visitor_goal": goal.visitor_goal,
        "cr_goal": goal.cr_goal,
        "delete_reached": False,
        "email_reached": True,
    }


def _text(body: Body, name: str) -> str:
    value = body.get(name)
    return value.strip() if isinstance(value, str) else ""


def _mails(body: Body) -> list[str]:
    mails = body.get("emails")
    if not isinstance(mails, list) or not mails or not all(isinstance(m, str) and _MAIL.fullmatch(m) for m in mails):
        raise Refused(400, validation={"emails": "a list of e-mail addresses is expected"})
    return mails


def _weeks(body: Body) -> int:
    weeks = body.get("interval")
    if not isinstance(weeks, int) or isinstance(weeks, bool) or not 1 <= weeks <= 52:
        raise Refused(400, validation={"interval": "a number of weeks is expected"})
    return weeks
