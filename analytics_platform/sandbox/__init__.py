"""Five vendors as one real HTTP server over one generated (or replayed) truth.

Belongs here: what happened on the sites (`truth`, `replay`), how each vendor sees it (one observer module a vendor) and
the wire it is served over (`wire`, `faults`, `server`). Does not belong here: any client, any landing or lake code: the
sandbox imports nothing of the platform, so that an error cannot hide on both ends of the wire.
"""
