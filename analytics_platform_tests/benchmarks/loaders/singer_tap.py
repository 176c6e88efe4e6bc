"""A Singer tap on singer-sdk, as its cookiecutter makes them.

Belongs here: the tap. Does not belong here: the target (target-duckdb), measuring. Runs in Singer's environment.

    python singer_tap.py --config CONFIG | target-duckdb --config CONFIG
"""

from urllib.parse import parse_qsl

from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.pagination import BaseHATEOASPaginator

TEXTS = th.ArrayType(th.StringType)
PART = th.ObjectType(additional_properties=True)


class NextPage(BaseHATEOASPaginator):
    """Follows `_links.nextPage`."""

    def get_next_url(self, response):
        return response.json()["_links"]["nextPage"]


class Sessions(RESTStream):
    """The one stream."""

    name = "sessions"
    path = "/api/v1/sessions"
    primary_keys = ("id",)
    records_jsonpath = "$.sessions[*]"
    schema = th.PropertiesList(
        th.Property("id", th.StringType),
        th.Property("visitorId", th.StringType),
        th.Property("identification", PART),
        th.Property("duration", th.NumberType),
        th.Property("startedAt", th.DateTimeType),
        th.Property("endedAt", th.DateTimeType),
        th.Property("referrer", th.StringType),
        th.Property("pageUrl", TEXTS),
        th.Property("notes", TEXTS),
        th.Property("domain", th.StringType),
    ).to_dict()

    @property
    def url_base(self):
        return self.config["url"]

    def get_new_paginator(self):
        return NextPage()

    def get_url_params(self, context, next_page_token):
        return dict(parse_qsl(next_page_token.query)) if next_page_token else {}


class TapSessions(Tap):
    """The tap."""

    name = "tap-sessions"
    config_jsonschema = th.PropertiesList(th.Property("url", th.StringType, required=True)).to_dict()

    def discover_streams(self):
        return [Sessions(self)]


if __name__ == "__main__":
    TapSessions.cli()
