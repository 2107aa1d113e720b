"""SHOW: outcomes and findings in, text or JSON-able values out. Imports core only, does no I/O."""
