"""State: keyed state in rows of bytes behind one port (`backend`), objects in front of it (`cells`,
`keyed`), operator state (`operator_state`), and how values become bytes (`serializers`).

Nothing here knows about checkpoints' meaning: a backend can be frozen, copied out and filled again,
and that is all. `rocks` is the only door to rocksdict.
"""
