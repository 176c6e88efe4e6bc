"""Five web-analytics vendors, one warehouse. The public doors are `catalog.Catalog` and the `analytics-platform`
command.

Belongs here: this sentence. Does not belong here: imports, every process that touches the package would pay for them.
"""
