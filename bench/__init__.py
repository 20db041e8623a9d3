"""How fast quelmdb is, beside raw py-lmdb (the floor) and the standard library's sqlite3.

    python -m bench.report            measures, and writes bench/REPORT.md and bench/report.json
    python -m bench.readme            puts the table of bench/report.json into README.md
    pytest bench                      the same workloads as pytest-benchmark suites

`data` is what is stored, `contestant` what can be asked of each of the three, `workloads` what
is asked, `harness` how it is timed. Of quelmdb the public API alone is used.
"""
