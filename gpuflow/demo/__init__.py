"""The demonstration: real media through the whole way, read back in a second process, and a picture of it."""
