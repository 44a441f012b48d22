"""Counters, and metrics in the text that Prometheus reads."""

from __future__ import annotations

from gpuflow.memory import Slab
from gpuflow.observe import Counters, exposition, labelled, merged
from gpuflow.transfer import Publisher, Reader


def test_labels_are_written_in_order() -> None:
    assert labelled("a_total", z="1", b="2") == 'a_total{b="2",z="1"}'
    assert labelled("a_total") == "a_total"


def test_counters_and_gauges_are_told_apart_and_a_family_is_declared_once() -> None:
    counters = Counters()
    counters.add("gpuflow_media_total", kind="image")
    counters.add("gpuflow_media_total", 2, kind="frames")
    text = exposition(merged([counters.snapshot(), {"gpuflow_wait_seconds": 0.25}, {"gpuflow_wait_seconds": 1.0}]))
    assert text == (
        "# TYPE gpuflow_media_total counter\n"
        'gpuflow_media_total{kind="frames"} 2\n'
        'gpuflow_media_total{kind="image"} 1\n'
        "# TYPE gpuflow_wait_seconds gauge\n"
        "gpuflow_wait_seconds 1.25\n"
    )


def test_slab_publisher_and_reader_report_under_names_that_do_not_collide() -> None:
    with (
        Slab("1MiB") as slab,
        Publisher(slab, transports=("inproc",)) as publisher,
        Reader(slab_bytes="1MiB", device="cpu", transports=("inproc",)) as reader,
    ):
        parts = [part.statistics().metrics() for part in (slab, publisher, reader)]
        whole = merged(parts)
        assert len(whole) == sum(map(len, parts))
        assert all(name.startswith("gpuflow_") for name in whole)
        assert exposition(whole).count("# TYPE") == len({name.partition("{")[0] for name in whole})
