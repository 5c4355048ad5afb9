"""What programs are compiled with in tests: they are many and small, each is hardly run, and most time goes by in XLA.

Without most optimizations, and by XLA's older emitters for CPUs, they take about half the time; the older emitters with
all optimizations would take longer (tests/benchmarks/LOG.md, "The tests"). What is bit for bit the same in two
processes must be compiled by both in the same way: give QUICK to those that a test starts.
"""

XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false"
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true", "XLA_FLAGS": XLA_FLAGS}
