"""What is measured on a clip, one file a stage, cheap to costly.

    segment (with cuts, pieces, quality) -> speech -> faces -> sync -> caption -> encode

A stage has `__init__(config)`, `setup()` and `__call__(clip) -> clip` (sync takes the clip's face crops,
too, which are decoded for it). It adds its own fields, knows nothing of Ray, and decides nothing:
thresholds are the policy's.
"""
