"""What the make targets do: checks, builds, the test environment, the test driver.

Python 3.9 or newer, standard library only, so that a fresh machine can run it.
"""
