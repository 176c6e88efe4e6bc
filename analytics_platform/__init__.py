"""Five web-analytics vendors, one warehouse. The public doors are `catalog.Catalog` and the `analytics-platform`
command.
"""
