"""From the dbt manifest to Dagster: keys, lineage, groups, kinds, owners, tags, column schemas and checks.

Belongs here: one reading of the manifest, used twice: to define the assets (`asset_specs`, without importing
dagster-dbt, which alone costs more than the import budget of the definitions) and to name the events of a running
build (`dagster_dbt_translator`). Does not belong here: running dbt (`assets`), finding the manifest (`project`).

A relation's asset key is its name (`fct_sessions`); a source's is `[vendor, table]`, the key of the vendor's own
asset. A test is a check of the relation it is attached to; a singular test over several relations belongs to the one
its name begins with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from analytics_platform.settings import Settings
from analytics_platform.transform import MART_GROUPS
from analytics_platform.transform.project import decoded_manifest, manifest_path
from analytics_platform.transform.warehouse import MAIN_SCHEMA

if TYPE_CHECKING:
    from dagster_dbt import DagsterDbtTranslator

__all__ = [
    "Manifest",
    "current_manifest",
    "dagster_dbt_translator",
    "day_column",
    "is_thorough",
    "is_windowed",
    "masked_columns",
    "relation_name",
    "schema_name",
    "window_days",
]

OWN_SOURCE: Final = "ops"
"""The dbt source that no vendor delivers: what the platform knows of its own work."""
_ASSET_TYPES: Final = ("model", "seed", "snapshot")
_OWNER: Final = "team:analytics"

# Of the columns that carry a local day, the one a person means by "from … to …".
_DAY_COLUMNS: Final = ("stat_date", "session_date_local", "snapshot_date", "partition_date", "_day")

Node = Mapping[str, Any]


@lru_cache(maxsize=2)
def _manifest(path: Path, modified_ns: int) -> Manifest:
    return Manifest(decoded_manifest(path, modified_ns))


def current_manifest(settings: Settings) -> Manifest:
    """The project's manifest as of now; what was worked out of it is kept as long as it stays the same."""
    path = manifest_path(settings)
    return _manifest(path, path.stat().st_mtime_ns)


class Manifest:
    """A read-only view of dbt's manifest.json with the platform's names for its nodes."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content

    @cached_property
    def assets(self) -> tuple[Node, ...]:
        """Models, seeds and snapshots that exist as relations, by name."""
        found = [node for node in self.content["nodes"].values() if node["resource_type"] in _ASSET_TYPES]
        return tuple(
            sorted((node for node in found if _materialized(node) != "ephemeral"), key=lambda node: str(node["name"]))
        )

    @cached_property
    def tests(self) -> Mapping[str, Node]:
        """Data tests attached to a relation: "relation.test" → test node. Unit tests are not among them."""
        return {
            f"{owner['name']}.{node['name']}": node
            for node in self.content["nodes"].values()
            if node["resource_type"] == "test" and (owner := self.owner_of_test(node)) is not None
        }

    def marts(self) -> tuple[Node, ...]:
        """Relations that are published as tables."""
        return tuple(node for node in self.assets if group_of(node) == "marts")

    @cached_property
    def marts_and_below(self) -> frozenset[str]:
        """Names of the marts and of every relation made of one: Dagster is told of a relation after those it reads."""
        found = {node["unique_id"] for node in self.marts()}
        while below := {
            node["unique_id"]
            for node in self.assets
            if node["unique_id"] not in found and found & set(node.get("depends_on", {}).get("nodes", ()))
        }:
            found |= below
        return frozenset(relation_name(node) for node in self.assets if node["unique_id"] in found)

    def staging(self) -> tuple[Node, ...]:
        """Staging views, one a lake table."""
        return tuple(node for node in self.assets if group_of(node) == "staging" and node["resource_type"] == "model")

    def asset_specs(self, partitions: dg.PartitionsDefinition[str], io_manager_key: str) -> list[dg.AssetSpec]:
        """One spec a relation. `io_manager_key` only loads: dbt's outputs carry no value."""
        return [self._asset_spec(node, partitions).with_io_manager_key(io_manager_key) for node in self.assets]

    def own_source_specs(self) -> list[dg.AssetSpec]:
        """What the platform writes about itself before each build: read by dbt, materialised by nobody."""
        return [
            dg.AssetSpec(
                key=asset_key(source),
                description=f"{source['description']} {source['source_description']}",
                group_name=OWN_SOURCE,
                kinds={"parquet"},
                owners=["team:analytics"],
            )
            for source in self.content["sources"].values()
            if source["source_name"] == OWN_SOURCE
        ]

    def check_specs(self) -> list[dg.AssetCheckSpec]:
        """One spec a data test. A test of severity error blocks what is downstream, as dbt itself does."""
        return [self._check_spec(node) for node in self.tests.values()]

    @cached_property
    def thorough_checks(self) -> frozenset[dg.AssetCheckKey]:
        """Checks that ordinary builds leave out: tests tagged `thorough` and not `guard`, as selectors.yml says."""
        return frozenset(
            dg.AssetCheckKey(asset_key(owner), node["name"])
            for node in self.tests.values()
            if is_thorough(node) and (owner := self.owner_of_test(node)) is not None
        )

    def owner_of_test(self, test: Node) -> Node | None:
        """The relation a test is a check of, None for a test of a source."""
        nodes = self.content["nodes"]
        candidates: list[Node] = [
            nodes[i] for i in test["depends_on"]["nodes"] if i in nodes and nodes[i]["resource_type"] in _ASSET_TYPES
        ]
        attached: Node | None = nodes.get(test.get("attached_node") or "")
        if attached is not None:
            return attached if attached["resource_type"] in _ASSET_TYPES else None
        named = _meta(test).get("ref", {}).get("name")
        for node in candidates:
            if node["name"] == named:
                return node
        prefixed = [node for node in candidates if str(test["name"]).startswith(str(node["name"]))]
        found: Node | None = max(prefixed or candidates, key=lambda node: len(node["name"]), default=None)
        return found

    def is_windowed(self, name: str) -> bool:
        """`is_windowed` of the relation of this name."""
        return name in self._windowed

    @cached_property
    def _windowed(self) -> frozenset[str]:
        return frozenset(relation_name(node) for node in self.assets if is_windowed(node))

    def key_of(self, unique_id: str) -> dg.AssetKey:
        """Asset key of a model, seed, snapshot or source."""
        return asset_key(self.content["nodes"].get(unique_id) or self.content["sources"][unique_id])

    def with_attached_tests(self) -> Mapping[str, Any]:
        """The manifest as dagster-dbt wants it: singular tests name the relation they are a check of in their meta."""
        nodes = dict(self.content["nodes"])
        for unique_id, test in self.content["nodes"].items():
            if test["resource_type"] != "test" or test.get("attached_node"):
                continue
            owner = self.owner_of_test(test)
            if owner is not None:
                reference = {"dagster": {"ref": {"name": owner["name"]}}}
                nodes[unique_id] = {**test, "meta": reference, "config": {**test["config"], "meta": reference}}
        return {**self.content, "nodes": nodes}

    def _asset_spec(self, node: Node, partitions: dg.PartitionsDefinition[str]) -> dg.AssetSpec:
        return dg.AssetSpec(
            asset_key(node),
            deps=[self.key_of(unique_id) for unique_id in self._upstream(node)],
            description=node.get("description") or f"dbt {node['resource_type']} {node['name']}.",
            group_name=group_of(node),
            kinds={"dbt", "duckdb"},
            owners=list(_meta(node).get("owners", [_OWNER])),
            tags=_tags(node),
            code_version=str(node.get("checksum", {}).get("checksum", ""))[:12] or None,
            skippable=True,
            partitions_def=partitions if is_windowed(node) else None,
            metadata=_metadata(node),
        )

    def _upstream(self, node: Node) -> Iterator[str]:
        """Direct parents, looking through ephemeral models."""
        for unique_id in node.get("depends_on", {}).get("nodes", ()):
            parent = self.content["nodes"].get(unique_id)
            if parent is not None and _materialized(parent) == "ephemeral":
                yield from self._upstream(parent)
            elif parent is not None or unique_id in self.content["sources"]:
                yield unique_id

    def _check_spec(self, test: Node) -> dg.AssetCheckSpec:
        owner = self.owner_of_test(test)
        if owner is None:
            raise ValueError(f"{test['name']} is not attached to a relation")
        key = asset_key(owner)
        others = {self.key_of(unique_id) for unique_id in self._upstream(test)} - {key}
        severity = str(test["config"].get("severity") or "error").lower()
        return dg.AssetCheckSpec(
            test["name"],
            asset=key,
            description=test.get("description") or f"dbt test {test['name']}.",
            additional_deps=sorted(others),
            blocking=severity == "error",
            metadata={"dbt_unique_id": test["unique_id"], "severity": severity},
        )


def asset_key(node: Node) -> dg.AssetKey:
    """`fct_sessions` for a relation of ours, `smartlook/sessions` for a source."""
    explicit = _meta(node).get("asset_key")
    if explicit:
        return dg.AssetKey(list(explicit))
    if node["resource_type"] == "source":
        return dg.AssetKey([node["source_name"], node["name"]])
    return dg.AssetKey(relation_name(node))


def relation_name(node: Node) -> str:
    """Name of the table or view in the warehouse."""
    return str(node.get("alias") or node["name"])


def schema_name(node: Node) -> str:
    """Schema of the relation in the warehouse: `main`, or that of relations which are not read like the others."""
    return str(node.get("schema") or MAIN_SCHEMA)


def is_windowed(node: Node) -> bool:
    """Whether a build replaces the rows of its days and keeps the others: only such a relation has days that are there
    or missing. A view, a seed and a table that is made anew are there whole or not at all, and an event for each of
    their days would say nothing more.
    """
    return _materialized(node) == "incremental" and bool(node["config"]["meta"].get("window_column"))


def is_thorough(test: Node) -> bool:
    """Whether a test is left out of ordinary builds (the same rule as the selector `daily` of selectors.yml)."""
    return "thorough" in test["tags"] and "guard" not in test["tags"]


def masked_columns(node: Node) -> tuple[str, ...]:
    """Columns a reader sees only when asking for them (`meta.masked_columns` of a model)."""
    meta = node.get("config", {}).get("meta") or node.get("meta") or {}
    return tuple(meta.get("masked_columns", ()))


def group_of(node: Node) -> str:
    """staging, intermediate or marts, by the folder of the model; seeds are inputs and go with staging."""
    folder = node["fqn"][1] if len(node["fqn"]) > 2 else ""
    return folder if folder in MART_GROUPS else "staging" if node["resource_type"] == "seed" else "marts"


def day_column(names: Sequence[str], node: Node | None = None) -> str | None:
    """The column a date range filters on, None where rows have no day."""
    chosen = (node or {}).get("meta", {}).get("window_column")
    if chosen in names:
        return str(chosen)
    # Staging keeps the lake's partition day, which prunes files; a vendor's own date column would read them all.
    order = ("partition_date", *_DAY_COLUMNS) if node is not None and group_of(node) == "staging" else _DAY_COLUMNS
    known = next((name for name in order if name in names), None)
    return known or next((name for name in names if name.endswith("_date_local")), None)


def dagster_dbt_translator(manifest: Manifest, partitions: dg.PartitionsDefinition[str]) -> DagsterDbtTranslator:
    """The same names for dagster-dbt's event stream. Imports dagster-dbt."""
    from dagster_dbt import DagsterDbtTranslator

    class Translator(DagsterDbtTranslator):
        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
            return asset_key(dbt_resource_props)

        def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
            return None if dbt_resource_props["resource_type"] == "source" else group_of(dbt_resource_props)

        def get_partitions_def(self, dbt_resource_props: Mapping[str, Any]) -> dg.PartitionsDefinition[str] | None:
            return partitions if is_windowed(dbt_resource_props) else None

    return Translator()


def _materialized(node: Node) -> str:
    return str(node.get("config", {}).get("materialized", ""))


def _meta(node: Node) -> Mapping[str, Any]:
    """The `meta.dagster` block, from wherever this dbt version puts meta."""
    meta = node.get("config", {}).get("meta") or node.get("meta") or {}
    found: Mapping[str, Any] = meta.get("dagster", {})
    return found


def _tags(node: Node) -> dict[str, str]:
    tags = {str(tag): "" for tag in node.get("tags", ())}
    if group_of(node) in ("staging", "intermediate") and len(node["fqn"]) > 3:
        tags["vendor"] = str(node["fqn"][2])
    return tags


def _metadata(node: Node) -> dict[str, Any]:
    columns = node.get("columns", {})
    metadata: dict[str, Any] = {
        "dagster/table_name": relation_name(node),
        "dbt_unique_id": node["unique_id"],
        "materialized": _materialized(node),
        "file": node["original_file_path"],
    }
    if columns:
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=name,
                    type=str(column.get("data_type") or "unknown"),
                    description=column.get("description") or None,
                    constraints=_constraints(column),
                )
                for name, column in columns.items()
            ]
        )
        day = day_column(list(columns), node)
        if day is not None:
            metadata["day_column"] = day
    return metadata


def _constraints(column: Mapping[str, Any]) -> dg.TableColumnConstraints:
    kinds = {constraint.get("type") for constraint in column.get("constraints", ())}
    return dg.TableColumnConstraints(
        nullable="not_null" not in kinds, unique="unique" in kinds or "primary_key" in kinds
    )


def window_days(keys: Sequence[str]) -> tuple[date, date]:
    """First and last day of a contiguous range of partition keys."""
    days = sorted(date.fromisoformat(key) for key in keys)
    return days[0], days[-1]
