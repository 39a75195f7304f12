"""Instruments at given checkpoints as runs: one record each, from which commands are made."""
