"""What the commands use, and the parser that finds them.

command.py           how a command is added to the parser; the layout of help pages
options.py           options and arguments that several commands have
parser.py            the names of the commands, and the parser made from their files
app.py               `tui-llm` itself: its options, its help page, opening the app
engine.py            the engine, tokenizer and request that a command's options name
output.py            print text or JSON
streams.py           standard input, output and error
text_input.py        a command's text: an argument, a file, or standard input
spaces.py            notes on targets without their leading space
problems.py          an exception as one line
report_stages.py     the stages and temperatures of logits and softmax, as text and JSON
inside.py            what attention, lens and neighbours share
instruct.py          train --instruct
run_curves.py        runs curves: charts as a list, as points, in a file
foreign_steps.py     runs steps: checkpoints of another program, read and as a table
branch.py            train --branch
run_cost.py          train --cost
pin_tables.py        pin readings as text and JSON
bench_reading.py     the parts of bench for decoding, typing and training
bench_peers.py       bench --against: other programs beside this one, in turn
completion_script.py the script that completes tui-llm in a shell
server.py            the web server behind serve
class_server.py      the server of a class, behind serve --lesson
classroom.py         a class: who is at which step, and its pages
browser_messages.py  messages of the browser, checked
"""
