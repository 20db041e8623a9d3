"""TEMPORARY stand-in until the real one is written."""

import time


class Wakeup:
    def __init__(self, path):
        self.n = 0

    def seen(self):
        return self.n

    def wake(self, number):
        self.n = number

    def wait(self, seen, seconds):
        end = time.monotonic() + seconds
        while self.n == seen and time.monotonic() < end:
            time.sleep(0.002)

    def close(self):
        pass
