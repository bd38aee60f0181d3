"""The commands, one module each; ``cli.py`` lists them.

A command is a plain function: its parameters are its options, its docstring its help. Heavy packages are
imported inside the functions, so that ``maskring --help`` answers at once.
"""
