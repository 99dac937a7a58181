"""The tree of continuations.

question.py   the question and its answer as plain data
answer.py     how it is computed
tree.py       nodes, pruning, growth
tree_file.py  read and write the tree as a JSON file
"""
