"""Values that describe what primaries and secondaries do, and the counters that they come from.

`Primary.status` and `Secondary.status` return them. Sessions count into them; the status server,
which shows them, is `zrs_core.monitor`.
"""
