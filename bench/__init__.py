"""How fast quelmdb is.

    python -m bench.compare           quelmdb beside others; writes bench/REPORT.md and its charts
    python -m bench.readme            puts the table of bench/report.json into README.md
    pytest bench                      quelmdb alone, with pytest-benchmark: a guard for its authors

`data` is what is stored. Of quelmdb the public API alone is used.
"""
