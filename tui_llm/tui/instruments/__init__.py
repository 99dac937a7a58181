"""Full screens over the lab. Each file or folder is the screen of one instrument, with its keys (`KEYS`) and, in some files, the
key that opens it (`OPEN`). `sampler_keys.py` is no screen: it has the keys that step the sampler's settings, which the lab
and the scratch table share; `open_keys.py` has keys that open a screen and stand in a pane's footer;
`copy_saver.py` saves the copy that Learn this, Prefer, Reward or Fine-tune trains;
`token_screen.py` is the base of lens grid, block and backward pass, which show one token of the text.
"""
