"""What stickygw costs, measured. ``python -m benchmarks`` runs everything and keeps the figures in ``results/``."""
