"""The vendors' own clients against the sandbox, unpatched; see docs/official_clients.md."""
