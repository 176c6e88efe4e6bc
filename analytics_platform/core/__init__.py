"""The thin core every vendor stands on: transport, quota, landing, lake, partitions, checks.

Belongs here: what knows no vendor and no SQL model. Each module's own docstring says what it holds.
Does not belong here: a vendor's name, an asset, a mart. Nothing is re-exported: import the module you mean.
"""
