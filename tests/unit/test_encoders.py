"""What encoders that tests use leave behind."""

from __future__ import annotations

import os

from tests.flow.clips import make_clip


def test_encoding_av1_leaves_no_thread_real_time_priority() -> None:
    before, user = os.sched_getscheduler(0), os.geteuid()
    if user == 0:
        os.seteuid(65_534)
        os.seteuid(user)  # which makes all that is permitted effective
    assert make_clip("libsvtav1", 4)
    assert (before, os.sched_getscheduler(0)) == (os.SCHED_OTHER, os.SCHED_OTHER)
