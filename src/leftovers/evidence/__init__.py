"""Readers of what products write down. Each takes a Host and paths, trusts no byte of them, and returns plain Records.

They share one shape: `(list[Record], list[str])`, what was found and one line for each thing that could not be read.
An absent file is neither. No reader raises for bad content.
"""
