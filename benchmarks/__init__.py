"""How fast replication is, side by side with zc.zrs, in processes of their own.

python -m benchmarks [--quick] [NAMES]
"""
