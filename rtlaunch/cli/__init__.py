"""TALK: the command line; turns errors into exit codes, in one place; imports all."""
