"""The heavy work: pure Python that keeps one CPU busy."""


def count_primes(limit: int) -> int:
    """How many primes there are below `limit`, the slow way."""
    return sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in range(2, limit))
