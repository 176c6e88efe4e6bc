"""dlt's declarative REST source, nested, Parquet files loaded into DuckDB: its fast way.

Belongs here: the pipeline as its documentation writes it. Does not belong here: measuring. Runs in dlt's environment.

    python dlt_rest_api.py URL FOLDER
"""

import sys
from pathlib import Path

import dlt
from dlt.sources.rest_api import rest_api_source

url, folder = sys.argv[1], Path(sys.argv[2])
source = rest_api_source(
    {
        "client": {
            "base_url": url,
            "paginator": {"type": "json_link", "next_url_path": "_links.nextPage"},
        },
        "resources": [
            {
                "name": "sessions",
                "endpoint": {"path": "/api/v1/sessions", "data_selector": "sessions"},
                "primary_key": "id",
                "write_disposition": "append",
            }
        ],
    }
)
pipeline = dlt.pipeline(
    "sessions", pipelines_dir=str(folder / "work"), destination=dlt.destinations.duckdb(str(folder / "rows.duckdb"))
)
pipeline.run(source, loader_file_format="parquet")
with pipeline.sql_client() as client, client.execute_query("SELECT count(*) FROM sessions") as found:
    sys.stdout.write(f"rows {found.fetchone()[0]}\n")
