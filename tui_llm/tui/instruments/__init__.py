"""Full screens over the lab: each file or folder is an instrument's, with its KEYS, and perhaps the key that opens it (`OPEN`).
Only `sampler_keys.py` is none: the keys that step the sampler's settings, of the lab and of the scratch table.
"""
