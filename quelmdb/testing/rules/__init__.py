"""The rules of the contract by theme: classes of tests, put together in `contract`."""
