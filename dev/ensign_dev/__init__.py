"""Implementation of the make targets: preflight checks, builds, the local environment and the test runner.

Needs Python 3.9 or newer and nothing but the standard library, so that it runs on a fresh machine.
"""
