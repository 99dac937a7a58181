"""The command line. Each file is the command of its name: `add` holds its options and its help page, the function it names is
the action. What several commands use is in `shared/`.

`tui-llm --help` imports all of these files, so what is slow is imported inside their functions.
"""
