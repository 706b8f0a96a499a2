"""The benchmarks of `make bench`: what is measured (`parts`), and how figures become a report (`report`)."""
