"""TOUCH: one function per kernel operation, named after it; imports core."""
