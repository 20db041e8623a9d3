"""quelmdb beside others: the same workload, the same durability, one machine, one run.

`peer` is what takes part and what can be asked of it, `peers` has a module for each;
`queues`, `threads`, `tasks`, `processes`, `latency`, `listings` and `memory` are the
workloads, `harness` times them, `run` runs them all. `figures` is what comes out, `reach`
judges it, `render`, `charts` and `report` show it.
"""
