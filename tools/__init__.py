"""The command line `quelmdb`: a thin module a command, over public functions of the library.

All printing is here. Installed it is `quelmdb.tools`; in a checkout `python -m tools`.
"""
