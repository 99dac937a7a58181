"""The command line, one command per file: `add` holds its options and its help page, the function it names is the action.

`tui-llm --help` imports all of these files, so what is slow is imported inside their functions.

command.py           how a command is added to the parser; the layout of help pages
options.py           options and arguments that several commands share
parser.py            the table of commands, and the parser made from it
app.py               `tui-llm` itself: its options, its help page, opening the app
engine.py            the engine, tokenizer and request that a command's options name
output.py            print text or JSON
streams.py           standard input, output and error
problems.py          an exception as one line
tokens.py            tokens
examples.py          examples
merges.py            merges
letters.py           letters
logits.py            logits
softmax.py           softmax
report_stages.py     the stages and temperatures of logits and softmax, as text and JSON
loss.py              loss
generate.py          generate
surprisal.py         surprisal
attention.py         attention
lens.py              lens
neighbours.py        neighbours
inside.py            what attention, lens and neighbours share
draws.py             draw
tree.py              tree
learn.py             learn
train.py             train
instruct.py          train --instruct
control.py           control
stop.py              stop
export.py            export
runs.py              runs: list, rename, delete, compare
batch.py             batch
samples.py           samples
probes.py            probes
pin_tables.py      pin readings as text and JSON
evaluate.py          evaluate
models.py            models: list, pull, info, delete
vocabulary.py        vocabulary: train, add
bench.py             bench, and the table of its parts
bench_reading.py     the parts of bench for decoding, typing and training
serve.py             serve
server.py            the web server behind serve
browser_messages.py  messages of the browser, checked
tour.py              tour
completion.py        completion
"""
