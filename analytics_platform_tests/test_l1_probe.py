import time
from datetime import date, timedelta
def test_probe(house, vendors):
    import dagster as dg
    t=time.time()
    from analytics_platform.runner import Runner
    with dg.DagsterInstance.ephemeral() as inst:
        r=Runner(house.settings, inst); print("runner", time.time()-t)
        from analytics_platform.vendors import vendor_names
        for x in r.run(date(2026,10,5),date(2026,10,8),vendors=vendor_names(),sites=["shop"],marts=False): print(x)
        print(len(vendors.requests))
        vendors.requests.clear()
        for x in r.run(date(2026,10,5),date(2026,10,8),vendors=vendor_names(),sites=["shop"],marts=False): print(x)
        print(len(vendors.requests))
