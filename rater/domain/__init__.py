"""The rating core: pure. No Kafka, clock, randomness, float, await or logging; standard library and msgspec only.

Read in this order: `money`, `moments` (amounts and instants), `messages` (what comes in and goes out), `deck`, `plans`,
`wallet` (what an account is rated with), `account` (the aggregate), `rating` (call → decision), `commands`, `recharge`,
and `core`, the one entry: a record in, rows and output records out.
"""
