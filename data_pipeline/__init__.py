"""Source videos -> dataset.

    sources -> measure (Ray Data: decode -> speech -> faces -> encode) -> ledger -> pack -> dataset

`config` says what and how, `stages/` measure, `policy` decides, `pack` writes shards and manifest,
`dataset` reads them, `report` shows them to the person who sets the thresholds.
"""
