"""quelmdb's runner beside other runners: `python -m bench.runners`.

`jobs`, `tasks` and `popping` are what the runners run: the same jobs, for each in its own
way. `contenders` says who takes part, how jobs are added and how the runner is started;
`processes` starts it and sees what it costs. `throughput`, `live` and `waiting` measure,
`scale` says how much; `figures` is what comes out, `reach` judges it, `render` shows it.
"""
