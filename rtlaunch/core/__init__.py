"""DECIDE: pure functions and records; no os, no I/O, nothing of ours from elsewhere."""
