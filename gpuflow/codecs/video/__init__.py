"""Video on either device: one demuxer, one packet table, one plan; only packet to picture differs."""
