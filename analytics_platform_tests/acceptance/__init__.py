"""The acceptance suite: what every connector must do, asked of every vendor in the same words.

In the manner of Airbyte's connector acceptance tests: a vendor is a value (`case.VendorCase`), a kind is one test
function over all of them. Where a kind means something else for a vendor, the case says so in words, the test asserts
the fact behind them, and the words stand in the run's summary. No kind is skipped for any vendor.

Belongs here: behaviour all vendors share, over the real wire into a real landing and lake. Does not belong here: one
vendor's traps and endpoints (`vendors/<v>`), a transport's details (`core/test_http`).
"""
