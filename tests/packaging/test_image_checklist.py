"""The image checklist's steps run here on nvImageCodec's CPU backend, in host memory that stands in for a GPU's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _gpu_place, _nvimgcodec, _nvimgcodec_load, _nvimgcodec_steps, h200_image_checklist
from benchmarks._checklist import Step, answer
from benchmarks._nvimgcodec_first import first_call
from benchmarks._pictures import encoded
from tests.kernels_host import building
from tests.packaging.host_place import HostPlace


@pytest.fixture(autouse=True)
def host_place_wiring_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gpu_place, "PLACE", HostPlace())


def answered(step: Step) -> dict[str, Any]:
    found = answer(step, True)
    assert "failed" not in found, found
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def test_a_picture_goes_to_its_place_and_nowhere_else() -> None:
    found = answered(_nvimgcodec_steps.into_the_slab)
    assert found["lease"] == found["planes"] == {"same": True}
    assert found["within_a_block"] == found["tile_of_a_canvas"] == {"same": True, "outside_untouched": True}
    assert "too small" in found["too_small"]
    assert found["off_libjpeg"]["max"] == 0


def test_every_kind_of_jpeg_is_asked_of_every_kind_of_decoder() -> None:
    found = answered(_nvimgcodec_steps.routes)
    assert {row["default"]["max"] for name, row in found.items() if name != "seconds"} == {0.0}
    assert len(found) == 10
    assert "Could not create decoder" in found["baseline 411"]["hardware"]
    assert "4 channels" in found["CMYK"]["gpuflow"]
    assert answered(_nvimgcodec_steps.differences)["640x480 444, default"]["max"] == 0


def test_the_canary_tells_nearest_chroma_from_libjpegs() -> None:
    found = answered(_nvimgcodec_steps.fancy_chroma)
    assert found["nearest_is_off_by"] > 50
    assert found["default"] == found["default :fancy_upsampling=1"] == found["torchvision decode_jpeg"] == 0
    assert found["default :fancy_upsampling=0"] > 50


def test_a_bad_picture_fails_alone_and_is_told_from_a_wrong_one() -> None:
    found = answered(_nvimgcodec_load.bad_sample)
    for fault in ("cut short", "header only", "not a JPEG"):
        assert found[f"default, {fault}"] == ["mean off by 0.000", "none", "mean off by 0.000"]


def test_the_steps_under_load_count_pictures_wiring_only() -> None:
    hazards = answered(_nvimgcodec_load.stream_hazard)
    assert (hazards["default, not waited"]["overtaken"], hazards["slab"]["wrong"]) == (0, 0)
    rates = answered(_nvimgcodec_load.batches)
    assert rates["default, 500x375, batches of 2"] > 0
    assert "unknown" in rates["engines"] or rates["engines"]["engines"] >= 0
    threads = answered(_nvimgcodec_load.decoders_and_threads)["2 threads"]
    assert threads["images_per_second"] > 0
    assert (threads["none"], threads["wrong_of_those_compared"]) == (0, 0)
    assert [row["decodes"] for row in answered(_nvimgcodec_load.memory_growth)["growth"]] == [0, 20]
    assert answered(first_call)["second picture"]["ms"] > 0


def test_a_late_write_is_seen_wiring_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Overtaken(HostPlace):
        """What is queued before the decode runs after it."""

        def empty(self, shape: tuple[int, ...]) -> Any:
            self.last = super().empty(shape)
            return self.last

        def host(self, array: Any) -> Any:
            if getattr(self, "level", None) is not None and array is self.last:
                array[...] = self.level
            return super().host(array)

        def overwrite_late(self, array: Any, stream: Any, *, level: int, milliseconds: float) -> None:
            self.level = level

    monkeypatch.setattr(_gpu_place, "PLACE", Overtaken())
    found = answered(_nvimgcodec_load.stream_hazard)["default, not waited"]
    assert found["overtaken"] == found["of"]


def test_the_notes_hold_every_question_and_its_answers(tmp_path: Path) -> None:
    h200_image_checklist.conclude(
        tmp_path, {"fancy_chroma": {"default": 0.0}, "batches": {"failed": "no time was left"}}
    )
    text = (tmp_path / h200_image_checklist.NOTES).read_text()
    assert text.splitlines()[0].startswith("fancy_chroma: 3: a red and a blue half")
    assert "    default: 0.0" in text
    assert '    failed: "no time was left"' in text


@pytest.mark.parametrize("architecture", [80, 90, 120])
def test_the_kernel_that_writes_late_compiles(architecture: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "source", lambda _: _gpu_place.LATE)
    assert "0 bytes spill stores" in building.compile_by_nvrtc("late", architecture, ())


def test_a_rate_of_pictures_that_do_not_come_out_is_an_error() -> None:
    good = encoded("JPEG", 96, 64, 0)
    with pytest.raises(RuntimeError, match="1 of 2 did not come out"):
        _nvimgcodec.decode_rate("cpu", [good, good[:300]], 2, kind=None, seconds=0.01)


@pytest.mark.parametrize(
    ("form", "width", "height", "least", "most"),
    [
        ("JPEG", 500, 375, 1.9, 2.6),
        ("JPEG", 2_048, 1_536, 1.4, 2.4),
        ("PNG", 500, 375, 12, 15),
        ("WEBP", 500, 375, 1.4, 2.4),
    ],
)
def test_a_picture_takes_as_many_bits_as_photographs_do(
    form: Any, width: int, height: int, least: float, most: float
) -> None:
    assert least < 8 * len(encoded(form, width, height, 5)) / (width * height) < most
    assert encoded(form, width, height, 5) != encoded(form, width, height, 6)
