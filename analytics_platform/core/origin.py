"""The one place a vendor's credentials may go: scheme, host and port, fixed at construction.

Belongs here: reading a base URL, resolving a vendor's link against it (RFC 3986 §5), and every reason to refuse one.
Does not belong here: sending (`core.http`), checking the addresses a name resolves to (`core.wire`).

Credentials have leaked through next links and redirects in most HTTP libraries (RELIABILITY §1, CVE record), and one
vendor's own samples hold links to a foreign domain (Kissmetrics, `apikissmetrics.com`). So a link is never *sent*: it
is taken apart, refused unless it stays here, and the URL that goes out is put together anew from the pinned origin
plus the link's path and query.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, unquote, urlsplit

import httpx

from analytics_platform.core.errors import ConfigurationError, ForeignOrigin, MalformedResponse

__all__ = ["Origin", "check_path", "path_segment"]

_DEFAULT_PORTS = {"https": 443, "http": 80}
_LONGEST_LINK = 8192
_PRINTABLE = re.compile(r"[!-~]*")
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.(?!-)[a-z0-9-]{1,63})*")
_NEXT_STEP = "Nothing was sent. Report the link to the vendor; credentials only ever go to the configured host."


@dataclass(frozen=True)
class Origin:
    """Scheme, host and effective port (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Origin:
        """Read a base URL: scheme, host, optional port, and no more.

        Raises:
            ConfigurationError: not https (http is for loopback), userinfo, a path, query or fragment, a non-ASCII or
                malformed host, or an address literal that is neither public nor loopback.
        """
        if not _PRINTABLE.fullmatch(url) or "\\" in url:
            _misconfigured("holds a space, a control or a non-ASCII character")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            _misconfigured("cannot be read")
        if parts.scheme not in _DEFAULT_PORTS:
            _misconfigured("does not start with https://")
        if "@" in parts.netloc:
            _misconfigured("holds a user name or password")
        if parts.path not in {"", "/"} or "?" in url or "#" in url:
            _misconfigured("has more than scheme, host and port")
        origin = cls(parts.scheme, _checked_host(parts.hostname or ""), port or _DEFAULT_PORTS[parts.scheme])
        if port == 0 or parts.netloc.endswith(":"):
            _misconfigured("has no usable port")
        if origin.scheme == "http" and not origin.is_loopback:
            _misconfigured("is plain http: for loopback only, since the first request would carry the token in clear")
        return origin

    @property
    def is_loopback(self) -> bool:
        """The host is `localhost` or an address of 127.0.0.0/8 or ::1."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def url(self, path: str, query: str = "") -> httpx.URL:
        """A URL on this origin, whatever `path` and `query` came from: only their bytes are used."""
        raw = path if not query else f"{path}?{query}"
        return httpx.URL(scheme=self.scheme, host=self.host, port=self.port, raw_path=raw.encode("ascii"))

    def resolve(self, link: str, *, relative_to: str = "/") -> tuple[str, str]:
        """Path and query of a vendor's link, if it stays on this origin.

        RFC 3986 §5.2.2 against `relative_to`, with dot segments, fragments and userinfo refused instead of
        interpreted: no API of ours needs them, and every parser reads them a little differently.

        Raises:
            ForeignOrigin: another scheme, host or port; userinfo; a network-path or opaque reference; a fragment; any
                character a URL may not hold.
            MalformedResponse: an unexpanded template (`{`), or an HTML-escaped ampersand.
        """
        if len(link) > _LONGEST_LINK or not _PRINTABLE.fullmatch(link) or "\\" in link or "#" in link or not link:
            _foreign("it is empty, too long, or holds a character that has no place in a link")
        if "{" in link or "}" in link:
            raise MalformedResponse("The vendor's link is an unexpanded template.", _NEXT_STEP)
        if "&amp;" in link.lower():
            raise MalformedResponse(
                "The vendor's link is HTML-escaped: following it would ask for something else.", _NEXT_STEP
            )
        try:
            parts = urlsplit(link)
            port = parts.port
        except ValueError:
            _foreign("its authority cannot be read")
        if parts.scheme or parts.netloc or link.startswith("//"):
            self._check_authority(parts.scheme or self.scheme, parts.netloc, parts.hostname or "", port)
        elif not parts.path:
            return relative_to, parts.query
        path = parts.path or "/"
        if not path.startswith("/"):
            path = relative_to[: relative_to.rfind("/") + 1] + path
        return path, parts.query

    def _check_authority(self, scheme: str, netloc: str, host: str, port: int | None) -> None:
        if not netloc:
            _foreign("it has a scheme but no host")
        if "@" in netloc:
            _foreign("it holds a user name")
        if scheme != self.scheme or host != self.host or (port or _DEFAULT_PORTS.get(scheme)) != self.port or port == 0:
            _foreign("it names another scheme, host or port")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}")


def check_path(path: str, prefixes: tuple[str, ...]) -> None:
    """Refuse a path that is not plainly one of `prefixes` or below it (compared by whole segments).

    Raises:
        ForeignOrigin: outside the prefixes; dot or empty segments; encoded slashes, backslashes or dots (also doubly
            encoded); characters that must be percent-encoded.
    """
    if not _PATH.fullmatch(path):
        _foreign("its path holds a character that must be percent-encoded")
    for decoded in (path, unquote(path), unquote(unquote(path))):
        if decoded.count("/") != path.count("/") or "\\" in decoded or any(ord(c) < 0x20 for c in decoded):
            _foreign("its path holds an encoded separator or control character")
        segments = decoded.split("/")[1:]
        if "" in segments[:-1] or any(segment.partition(";")[0] in {".", ".."} for segment in segments):
            _foreign("its path holds dot segments or empty segments")
    if not any(path == prefix.rstrip("/") or path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes):
        _foreign("its path is outside the API")


def path_segment(value: str) -> str:
    """An id as one percent-encoded path segment.

    Raises:
        ConfigurationError: empty, a dot segment, or holding a slash, backslash or control character: no vendor has
            such ids.
    """
    if (
        value in {"", ".", ".."}
        or len(value) > 300
        or any(c in "/\\" or ord(c) < 0x20 or ord(c) == 0x7F for c in value)
    ):
        raise ConfigurationError("An id for a request path is empty, too long, or holds a slash or control character.")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise ConfigurationError("An id for a request path holds half of a surrogate pair.") from None


def _checked_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        last = host.rpartition(".")[2]
        if not _HOST_NAME.fullmatch(host) or last.isdigit() or last.startswith("0x"):
            _misconfigured("has no plain host name")
        return host
    if not (address.is_global or address.is_loopback):
        _misconfigured("points into a private network")
    return host


def _misconfigured(reason: str) -> NoReturn:
    raise ConfigurationError(
        f"The base URL {reason}.", "Set it to scheme, host and port only, for example https://api.example.com."
    )


def _foreign(reason: str) -> NoReturn:
    raise ForeignOrigin(f"A URL was refused: {reason}.", _NEXT_STEP)
