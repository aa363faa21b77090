"""Throwaway hosts: real products are installed, used and purged there, and the host compared with what it was."""
