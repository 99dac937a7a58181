"""The command line. Each file has the command of its name: `add` declares its options, its help page, and the function that
runs it. `shared/` has what several commands use.

`tui-llm --help` imports all of these files, so what is slow is imported inside their functions.
"""
