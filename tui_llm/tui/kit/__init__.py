"""Widgets, formats and themes: know nothing of models.

command.py          Command; bindings and footer from a screen's KEYS
base_screen.py      BaseScreen: closes once, lays out for the newest size only
closing_keys.py     keys meant for a screen that has closed
live.py             drop what arrives for a widget that is gone
last_resort.py      an uncaught exception is logged, the app goes on
textual_private.py  Textual's private names, in one place
palette.py          the command palette
full.py             FullScreen: title, lines, keys
over.py             OverLab: what screens over the lab share
ask.py              a form for one line of text
confirm.py          a question before something is lost
actions.py          run an action off the screen's thread and report its result
save.py             a file name that is free
text.py             wrap styled text
format.py           numbers as text
themes.py           the dark and the light theme
shades.py           weights from 0 to 1 as characters and colours
loss_shade.py       losses as colours and marks
token_shades.py     what tokens are coloured by
"""
