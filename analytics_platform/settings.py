"""sites.yaml and the environment, as typed settings.

Belongs here: where the home is, which sites exist, which vendor blocks they have. Secrets are not read here: a vendor's
resource reads its own variables when a run needs them, and names every missing one at once.
Does not belong here: any vendor's name or variable, any I/O beyond reading one YAML file.

Where things live below `ANALYTICS_PLATFORM_HOME` (default `./.analytics_platform`):

    sites.yaml      used when ANALYTICS_PLATFORM_CONFIG is not set and ./sites.yaml does not exist
    landing/        vendor pages as received                lake/         typed Parquet, one file a partition
    warehouse/      warehouse.duckdb (dbt writes it)        published/    immutable snapshots and the pointer to the
    newest
    state/          ledger.db: requests, deferrals          dagster/      DAGSTER_HOME
                    outbox.db: what is sent to vendors
"""

from __future__ import annotations

import os
import re
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from analytics_platform.core.errors import ConfigurationError

__all__ = ["Home", "Settings", "Site", "load_settings"]

HOME_VARIABLE = "ANALYTICS_PLATFORM_HOME"
CONFIG_VARIABLE = "ANALYTICS_PLATFORM_CONFIG"
DATABASE_VARIABLE = "ANALYTICS_PLATFORM_DATABASE_URL"
IDENTITY_KEY_VARIABLE = "ANALYTICS_PLATFORM_IDENTITY_KEY"

_SITE_KEY = re.compile(r"[a-z0-9][a-z0-9_-]*")
_NO_IDS = ("writes", "goals")
WriteName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{name!r} is not an IANA time zone, e.g. Europe/Berlin") from error
    return name


class Site(BaseModel):
    """One website with its vendors' ids, and what may be sent back to which vendor.

    A vendor's block holds ids (text), and where the site agrees to being written for: `writes: [what, …]` and `goals:
    {name: number}`, the vendor's own number of each conversion by name. `links_identities` says that the consent the
    site asks for covers linking a logged-in person's visitors across vendors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    start_date: date
    hostname: str | None = None
    links_identities: bool = False
    vendors: dict[str, dict[str, str]] = Field(default_factory=dict)
    writes: dict[str, tuple[WriteName, ...]] = Field(default_factory=dict)
    goals: dict[str, dict[str, Annotated[int, Field(strict=True, ge=0)]]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _what_is_no_id_leaves_the_blocks(cls, site: object) -> object:
        if not isinstance(site, dict):
            return site
        blocks = site.get("vendors")
        if not isinstance(blocks, dict) or not all(isinstance(block, dict | None) for block in blocks.values()):
            return site
        moved: dict[str, object] = {}
        for part in _NO_IDS:
            named = {name: block[part] for name, block in blocks.items() if block and part in block}
            moved |= {part: named} if named else {}
        ids = {name: {k: v for k, v in (block or {}).items() if k not in _NO_IDS} for name, block in blocks.items()}
        return {**site, "vendors": ids, **moved}

    @field_validator("key")
    @classmethod
    def _key_is_a_partition_key(cls, key: str) -> str:
        if not _SITE_KEY.fullmatch(key):
            raise ValueError(f"{key!r} must match [a-z0-9][a-z0-9_-]* (it becomes a partition key and a folder name)")
        return key

    @field_validator("vendors", mode="before")
    @classmethod
    def _ids_are_text(cls, vendors: object) -> object:
        if not isinstance(vendors, dict):
            return vendors
        return {
            name: {k: str(v) for k, v in (block or {}).items()} if isinstance(block, dict | None) else block
            for name, block in vendors.items()
        }

    def ids(self, vendor: str) -> dict[str, str] | None:
        """The vendor's block, or None where the site does not use the vendor."""
        return self.vendors.get(vendor)

    def writes_to(self, vendor: str) -> tuple[str, ...]:
        """What may be sent to the vendor for this site; nothing unless sites.yaml says so."""
        return self.writes.get(vendor, ())

    def goals_of(self, vendor: str) -> dict[str, int]:
        """The vendor's number of each conversion by name."""
        return self.goals.get(vendor, {})


class _SitesFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sites: list[Site]

    @field_validator("sites")
    @classmethod
    def _keys_are_unique(cls, sites: list[Site]) -> list[Site]:
        keys = [site.key for site in sites]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"site keys used twice: {', '.join(twice)}")
        return sites


class Home(BaseModel):
    """Paths below one data root. Creates nothing."""

    model_config = ConfigDict(frozen=True)
    root: Path

    @property
    def landing(self) -> Path:
        return self.root / "landing"

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def warehouse(self) -> Path:
        return self.root / "warehouse" / "warehouse.duckdb"

    @property
    def published(self) -> Path:
        return self.root / "published"

    @property
    def data_docs(self) -> Path:
        return self.root / "data_docs"

    @property
    def ledger(self) -> Path:
        return self.root / "state" / "ledger.db"

    @property
    def outbox(self) -> Path:
        return self.root / "state" / "outbox.db"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    @property
    def running(self) -> Path:
        return self.root / "state" / "running"

    @property
    def dbt_target(self) -> Path:
        return self.root / "dbt"


class Settings(BaseModel):
    """Everything that is known without a secret."""

    model_config = ConfigDict(frozen=True)

    home: Home
    sites: tuple[Site, ...] = ()
    config_path: Path | None = None
    database_url: str | None = Field(default=None, repr=False)
    identity_key: str | None = Field(default=None, repr=False)

    @cached_property
    def site_keys(self) -> tuple[str, ...]:
        return tuple(site.key for site in self.sites)

    @cached_property
    def start_date(self) -> date:
        return min((site.start_date for site in self.sites), default=date(2024, 1, 1))

    def site(self, key: str) -> Site:
        """Raises ConfigurationError naming the known keys."""
        for site in self.sites:
            if site.key == key:
                return site
        known = ", ".join(self.site_keys) or "none"
        raise ConfigurationError(f"No site {key!r} in {self.config_path or 'sites.yaml'}.", f"Use one of: {known}.")

    def sites_with(self, vendor: str) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if vendor in site.vendors)


def load_settings(environment: dict[str, str] | None = None) -> Settings:
    """Read the environment and sites.yaml. A missing file means no sites: definitions still load.

    Raises:
        ConfigurationError: the file is named but absent, is not YAML, or says something unusable (all faults at once).
    """
    env = dict(os.environ) if environment is None else environment
    home = Home(root=Path(env.get(HOME_VARIABLE) or ".analytics_platform").absolute())
    path = _config_path(env, home)
    sites: tuple[Site, ...] = ()
    if path is not None:
        sites = _read_sites(path)
    return Settings(
        home=home,
        sites=sites,
        config_path=path,
        database_url=env.get(DATABASE_VARIABLE) or None,
        identity_key=env.get(IDENTITY_KEY_VARIABLE) or None,
    )


def _config_path(env: dict[str, str], home: Home) -> Path | None:
    named = env.get(CONFIG_VARIABLE)
    if named:
        path = Path(named).absolute()
        if not path.is_file():
            raise ConfigurationError(f"{CONFIG_VARIABLE} names {path}, which is not a file.", "Create it or unset it.")
        return path
    for candidate in (Path("sites.yaml").absolute(), home.root / "sites.yaml"):
        if candidate.is_file():
            return candidate
    return None


def _read_sites(path: Path) -> tuple[Site, ...]:
    try:
        return _parsed_sites(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "cannot be read"
        raise ConfigurationError(f"{path} {reason}.", "Compare it with sites.example.yaml.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {error}", "Compare it with sites.example.yaml.") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"{path} cannot be used: {faults}.", "Compare it with sites.example.yaml.") from error


@lru_cache(maxsize=4)
def _parsed_sites(text: str) -> tuple[Site, ...]:
    """A run asks for its settings 250 times, and reading YAML takes a hundred times as long as reading the file."""
    return tuple(_SitesFile.model_validate(yaml.safe_load(text)).sites)
