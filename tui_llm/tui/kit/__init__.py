"""Widgets, formats and themes; they do not depend on models.

command.py          Command; bindings and footer from a screen's KEYS
base_screen.py      BaseScreen: closes once, lays out for the newest size only
closing_keys.py     ignores keys meant for a screen that has closed
end_signals.py      SIGTERM and SIGHUP end the app in order
key_order.py        handles keys one after another
live.py             drops results for a widget that is gone
last_resort.py      logs uncaught exceptions and keeps the app running
textual_private.py  Textual's private names, but for those of styles
textual_styles.py   styles in less time, by Textual's private names
static_text.py      sets a widget's text, if it is another one
palette.py          the command palette
full.py             FullScreen: a screen of a title, lines and keys
over.py             OverLab: base class of the screens that cover the lab
ask.py              a modal screen for one line of text
progress.py         the work that a screen waits for
visits.py           which fields of a form show their problems
confirm.py          a modal screen that asks for confirmation
doubled_space.py    a modal screen that asks whether several spaces in a row are meant
spaces.py           spaces drawn as `·`
actions.py          FileActions: run an action on a worker thread, notify its result
save.py             writes to a new file, never over an existing one
text.py             wraps styled text; lines side by side
format.py           numbers as text
themes.py           the dark and the light theme, and palettes safe for the colour-blind
shades.py           weights from 0 to 1 as characters and colours
loss_shade.py       losses as colours and marks
token_shades.py     what tokens can be coloured by
token_changes.py    tokens coloured by the change of their log-probability
columns.py          curves as text
raster.py           lines as braille characters
"""
