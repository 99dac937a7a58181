"""The lab screen: one prompt, five panes. `lab.py` is the screen. It makes a controller of each of the other files, and gives
each of them the `LabContext` of `tui_llm/tui/state/context.py`.

lab.py              the screen: what each message and each key calls
pane_layout.py      where the panes stand: room goes where the content is
keys.py             its keys, and which of them the footer shows
readings.py         request readings, show them in the panes
top_line.py         the open model, or what the engine is doing
generation.py       generate tokens, one or a stream
ghost_text.py       the likeliest continuation, dimmed behind the prompt
undo.py             undo and redo
sampler.py          temperature and cuts
steering.py         the coefficient of a direction that is added
candidate_table.py  rows, search and what-if of the candidate table
target.py           the loss's target
loss.py             gradient and Learn this of the Loss pane
token_cursor.py     the token cursor
token_settings.py   vocabulary, special tokens, chat template, colours
swap.py             open the Swap screen, take its text
inside.py           open the Inside screen
tree.py             open the tree, accept one of its paths
changed_model.py    parts of the model that are switched off
models.py           choose another model, keep prompt and settings with it
follow_run.py       follow a run's checkpoints
pins.py             pin the prompt that is shown
copy_save.py        copy and save
footer.py           the keys of the focused pane
tour.py             the tour, beside every screen
"""
