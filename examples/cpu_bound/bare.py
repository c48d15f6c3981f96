"""Computes for some seconds without any gateway, and says how often a second, and for which share of them it had a CPU.

Run by compare.py as ``bare.py LIMIT SECONDS``; begins when a line comes, so that several begin together.
"""

import sys
import time

from primes import count_primes

limit, seconds = int(sys.argv[1]), float(sys.argv[2])
count_primes(limit)
print("ready", flush=True)
sys.stdin.readline()
started, cpu = time.perf_counter(), time.process_time()
count = 0
while (elapsed := time.perf_counter() - started) < seconds:
    count_primes(limit)
    count += 1
print(count / elapsed, (time.process_time() - cpu) / elapsed)
