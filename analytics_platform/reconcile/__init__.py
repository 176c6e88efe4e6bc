"""Why vendors disagree: the parts of it that SQL says badly, and the words for what the marts found.

Belongs here: where a ratio of two counts changes (`change_points`), the frames the dbt Python models hand over
(`frames`), likely causes in words (`explaining`). Does not belong here: reading or writing the warehouse, the statuses
and the waterfall (dbt: `fct_vendor_reconciliation`, `fct_reconciliation_waterfall`), plots, any vendor's name.
"""
