"""What the path of a row costs, beside the barest pipe and beside other loaders, on this machine.

Belongs here: the loopback server, the pipes that are compared, measuring a process, the commands (`make bench`,
`make bench-peers`) and the page they write. Does not belong here: the code that is measured
(`analytics_platform.core`, `vendors`), tests of what it does (`core/`), the quota's figures (`simulation`).
"""
