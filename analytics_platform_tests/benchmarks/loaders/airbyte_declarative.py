"""Airbyte's declarative CDK read through PyAirbyte into its DuckDB cache.

Belongs here: the manifest as its documentation writes it. Does not belong here: measuring. Runs in Airbyte's
environment.

    python airbyte_declarative.py URL FOLDER [thrown-away]
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("AIRBYTE_OFFLINE_MODE", "1")

import airbyte as ab
from airbyte.caches import DuckDBCache

url, folder = sys.argv[1], Path(sys.argv[2])
MANIFEST = {
    "version": "6.0.0",
    "type": "DeclarativeSource",
    "check": {"type": "CheckStream", "stream_names": ["sessions"]},
    "streams": [
        {
            "type": "DeclarativeStream",
            "name": "sessions",
            "primary_key": "id",
            "schema_loader": {
                "type": "InlineSchemaLoader",
                "schema": {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string"},
                        "visitorId": {"type": "string"},
                        "identification": {"type": "object", "additionalProperties": True},
                        "duration": {"type": "number"},
                        "startedAt": {"type": "string"},
                        "endedAt": {"type": "string"},
                        "referrer": {"type": "string"},
                        "pageUrl": {"type": "array", "items": {"type": "string"}},
                        "notes": {"type": "array", "items": {"type": "string"}},
                        "domain": {"type": "string"},
                    },
                },
            },
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {
                    "type": "HttpRequester",
                    "url_base": url,
                    "path": "/api/v1/sessions",
                    "http_method": "GET",
                },
                "record_selector": {
                    "type": "RecordSelector",
                    "extractor": {"type": "DpathExtractor", "field_path": ["sessions"]},
                },
                "paginator": {
                    "type": "DefaultPaginator",
                    "page_token_option": {"type": "RequestPath"},
                    "pagination_strategy": {
                        "type": "CursorPagination",
                        "cursor_value": url + "{{ response._links.nextPage }}",
                        "stop_condition": "{{ not response._links.nextPage }}",
                    },
                },
            },
        }
    ],
    "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
}

source = ab.get_source("source-sessions", config={}, source_manifest=MANIFEST)
source.select_all_streams()
if sys.argv[3:] == ["thrown-away"]:
    records = source.get_records("sessions")  # kept: a dataset that nobody holds stops its source
    rows = sum(1 for _ in records)
else:
    result = source.read(cache=DuckDBCache(db_path=folder / "rows.duckdb"), force_full_refresh=True)
    rows = len(result["sessions"])
sys.stdout.write(f"rows {rows}\n")
