"""How well the marts explain a world whose truth is known: `python -m analytics_platform_tests.score`."""
