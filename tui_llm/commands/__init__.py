"""The command line, one file a command: its options (`add`) and the function of its name that runs it.

`tui-llm --help` imports all of them, so what is slow is imported inside the functions.

parser.py            the parser: commands that are defined here, then those of each file's `add`
options.py           options that several commands share
manual.py            the pages that `--help` prints
output.py            print text or JSON
streams.py           standard input, output and error
problems.py          an exception as one line
app.py               open the app
engine.py            open the engine, or a tokenizer, that an option names
prompts.py           tokens, examples, logits, softmax, loss, generate
tables.py            the tables of logits and softmax
report_stages.py     their stages and temperatures, as text and JSON
tokens.py            merges, letters, surprisal
inside.py            attention, lens, neighbours
draws.py             draw
tree.py              tree
learn.py             learn
training.py          train, control, stop, export
instruct.py          train --instruct
runs.py              runs: list, rename, delete, compare
run_files.py         batch, samples
probes.py            probes
models.py            models: list, pull, info, delete
evaluate.py          evaluate
vocabulary.py        vocabulary: train, add
bench.py             bench, and the table of its parts
bench_reading.py     the parts of bench that read, write and train
serve.py             serve
server.py            the web server behind serve
browser_messages.py  messages of the browser, checked
tour.py              tour
completion.py        completion
"""
