"""Azure's answers as cases: runs them against the emulator, and records them from Azure."""
