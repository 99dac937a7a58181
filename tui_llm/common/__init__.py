"""What every floor uses. Imports nothing else of this package.

errors.py         UserError and Overtaken
crash_log.py      tracebacks go to a file
display.py        the one gate between foreign text and the terminal
numbers.py        rounding of printed numbers
files.py          atomic writes, JSON files
storage.py        every change to the disk, where tests inject faults
foreign_files.py  read files that others made: regular, bounded
memory.py         free memory, checked before large allocations
address_space.py  whether torch fits under `ulimit -v`
process_exit.py   end the process while threads are at work
new_files.py      write a file that must not exist yet
paths.py          the user's data and cache folders
openmp.py         how long idle OpenMP threads spin
"""
