"""Our server measured, beside others where they are installed; run by `python -m benchmarks`.

No part of the distribution: it needs a checkout, Linux (`/proc`) and a minute to half an hour.
"""
