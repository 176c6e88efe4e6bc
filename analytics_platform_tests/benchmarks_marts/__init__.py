"""What a build of the marts costs on two years of days, from ten thousand sessions to ten million: `make bench-marts`.

Belongs here: a synthetic lake of any size (`lake`), the real dbt project run over it (`builds`), the page
(`report`) and the command (`__main__`). Does not belong here: whether the marts are right (`dbt_project`).
"""
