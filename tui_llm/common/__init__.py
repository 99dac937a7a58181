"""Helpers that every layer uses. Imports nothing else of this package.

errors.py         UserError and Overtaken
suggestions.py    the known name that a mistyped one may have meant
crash_log.py      write tracebacks to a file
display.py        make untrusted text safe for the terminal
numbers.py        format and round numbers for display
ticks.py          axis ticks of charts
svg_to_png.py     pictures through an installed converter
files.py          atomic writes, JSON files
storage.py        all file system writes, with fault injection for tests
foreign_files.py  read untrusted files: regular, of bounded size
memory.py         free memory, checked before large allocations
address_space.py  whether torch fits under `ulimit -v`
process_exit.py   end the process while daemon threads are running
new_files.py      create files without overwriting existing ones
paths.py          the user's data and cache folders
library_environment.py  environment variables for C libraries only
openmp.py         how long idle OpenMP threads spin
run_load.py       how much other processes slow this one down
onednn.py         how many shapes' kernels torch keeps in memory
"""
