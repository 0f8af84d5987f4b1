"""What is measured on a clip, one file a stage, cheap to costly.

    segment (with cuts, pieces, quality) -> speech -> faces -> caption -> encode

A stage has `__init__(config)`, `setup()` and `__call__(clip) -> clip`. It adds its own fields, knows
nothing of Ray, and decides nothing: thresholds are the policy's.
"""
